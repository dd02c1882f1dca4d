"""What an installation needs: the core alone, everything from a wheel, and a system that is not POSIX."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement

from hvq_jax.extras import TRAIN, install_command
from tests.conftest import TINY

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Imports and uses the core as a user does who has a training loop of their own.
CORE = """
import jax, jax.numpy as jnp
import hvq_jax as hvq
from hvq_jax import autoencoder, errors, images, latents, losses, metrics, networks, options, priors, quantizers
from hvq_jax import codes, linen, nnx, registry

latent_options = hvq.LatentOptions(mode="combined", num_codes=4, dim=2, num_frequent=2)
quantizer = hvq.make_quantizer(latent_options, hvq.CodebookOptions(init="uniform"))
params, state = jax.jit(quantizer.init)(jax.random.key(0))
latent, step = jax.jit(quantizer.step, static_argnums=4)(params, state, jnp.ones((5, 2)), jax.random.key(1), None)
assert latent.z_bar.shape == (5, 2)
model = hvq.Autoencoder((8, 8, 1), hvq.NetworkOptions(num_blocks=0), latent_options)
batch = jnp.zeros((2, 8, 8, 1))

@jax.jit
def evaluated(key):
    variables = autoencoder.init(model, key)
    return autoencoder.evaluation_sums(model, variables, batch, jnp.ones(2, bool))

assert jnp.isfinite(evaluated(jax.random.key(0)).loss.total)
prior = hvq.make_prior(
    hvq.PriorOptions(width=4, num_layers=1, head_width=4), latent_options, num_codes=4, num_classes=0, grid=(2, 2)
)
assert prior.num_codes == 4
"""


def with_dependencies(names):
    """Return the names of distributions and of all that they depend on, as far as these are installed."""
    found, left = set(), list(names)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        found.add(name)
        for line in importlib.metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                left.append(requirement.name)
    return found


@pytest.fixture(scope="module")
def core_only(tmp_path_factory):
    """The environment of processes that can import what the core depends on and nothing else."""
    folder = tmp_path_factory.mktemp("core")
    for name in with_dependencies(Requirement(line).name for line in PROJECT["dependencies"]):
        distribution = importlib.metadata.distribution(name)
        for part in {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            if not (folder / part).exists():
                (folder / part).symlink_to(distribution.locate_file(part))
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def run_alone(arguments, environment, folder):
    command = [sys.executable, "-S", *arguments]  # without the packages of this environment
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)


def test_the_core_needs_its_own_dependencies_only(core_only, tmp_path):
    done = run_alone(["-c", CORE], core_only, tmp_path)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


NEEDS_MORE = """
import importlib
import hvq_jax as hvq

for needed in (lambda: hvq.TrainedRun, lambda: importlib.import_module("hvq_jax.runs.options")):
    try:
        needed()
    except ImportError as error:
        print(error)
"""


def test_what_needs_more_says_how_to_install_it(core_only, tmp_path):
    done = run_alone(["-c", NEEDS_MORE], core_only, tmp_path)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    for line in lines:
        assert line.startswith("array_record, importlib_resources, ")
        assert line.endswith(f'needed to train models and to open trained ones: pip install "{ROOT}[train]"')


def test_a_command_says_it_in_one_line(core_only, tmp_path):
    done = run_alone([ROOT / "train.py", "--help"], core_only, tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: array_record, importlib_resources, ")
    assert f'pip install "{ROOT}[train]"' in done.stderr


def test_an_extra_is_installed_from_where_the_package_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert install_command("explore") == f'pip install "{ROOT}[explore]"'
    monkeypatch.chdir(ROOT)
    assert install_command("explore") == 'pip install ".[explore]"'
    monkeypatch.setattr("hvq_jax.extras._ROOT", tmp_path)  # as site-packages, where there is no pyproject.toml
    assert install_command("explore") == 'pip install "hvq_jax[explore]"'


def test_the_extra_lists_the_packages_whose_modules_are_looked_for():
    names = {Requirement(line).name for line in PROJECT["optional-dependencies"]["train"]}
    owners = importlib.metadata.packages_distributions()
    assert len(names) == len(TRAIN)
    for module in TRAIN:
        assert {name.replace("_", "-").lower() for name in owners[module]} & {
            name.replace("_", "-").lower() for name in names
        }, module


# A system without the modules and constants that only POSIX has: everything can be imported all the same.
WITHOUT_POSIX = """
import errno, importlib, os, pkgutil, signal, sys

for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
import jax, matplotlib.figure, orbax.checkpoint, tensorflow_datasets  # what these need of the system is theirs to know

del os.O_NONBLOCK, os.getuid, errno.EREMOTEIO, signal.SIGKILL
import hvq_jax

for module in pkgutil.walk_packages(hvq_jax.__path__, "hvq_jax."):
    importlib.import_module(module.name)
"""


def test_every_module_can_be_imported_where_there_is_no_posix():
    for name in ("resource", "pwd", "grp", "fcntl"):
        assert name in sys.stdlib_module_names
    done = subprocess.run([sys.executable, "-c", WITHOUT_POSIX], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of the commands in a fresh environment into which the wheel was installed, without a download."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    for name in ("hvq_jax", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    venv.create(folder / "venv", symlinks=True)
    (purelib,) = (folder / "venv" / "lib").glob("python*/site-packages")
    paths = [path for path in sys.path if path.endswith("site-packages")]
    (purelib / "dependencies.pth").write_text("\n".join(paths))
    target = ["--python", folder / "venv" / "bin" / "python"]
    install = [sys.executable, "-m", "pip", *target, "install", "--no-build-isolation", "--no-compile", *quiet, source]
    subprocess.run(install, check=True)  # of a wheel, which pip builds
    return folder / "venv" / "bin"


# Runs each command as its script does, all in one process.
HELP = """
import sys
from importlib.metadata import entry_points

for name in sys.argv[1:]:
    (script,) = entry_points(group="console_scripts", name=name)
    sys.argv = [name, "--help"]
    try:
        status = script.load()()
    except SystemExit as done:
        status = done.code
    assert not status
"""


def test_the_installed_commands_train_and_sample(installed, trained_run, data_dir, tmp_path):
    """With the packaged quickstart, in few steps and in a folder without a checkout."""
    briefly = ["--config.stage=autoencoder", "--config.autoencoder.num_steps=2", "--config.parallel=jit"]
    briefly += ["--config.network.factor=2", "--config.data.image_size=14"]

    def run(command, *arguments):
        done = subprocess.run(
            [installed / command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    options = [*TINY, *briefly, f"--config.data.data_dir={data_dir}"]
    run("hvq-train", "--config=configs/quickstart.py:vq", "--workdir=run", *options)
    assert (tmp_path / "run" / "summary.json").exists()
    run("hvq-sample", f"--workdir={trained_run}", "--num_samples=3", "--out=drawn.npz")
    assert np.load(tmp_path / "drawn.npz")["images"].shape == (3, 28, 28, 1)
    others = sorted(PROJECT["scripts"].keys() - {"hvq-train", "hvq-sample"})
    assert all((installed / name).exists() for name in others)
    said = run("python", "-c", HELP, *others)
    for line in ("Compress images", "Convert checkpoints", "Export a trained run"):
        assert line in said
