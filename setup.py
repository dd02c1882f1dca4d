"""The packages of the wheel: hvq_jax, with the folder of configs as hvq_jax.configs. The rest is in pyproject.toml."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["hvq_jax*"]), "hvq_jax.configs"], package_dir={"hvq_jax.configs": "configs"})
