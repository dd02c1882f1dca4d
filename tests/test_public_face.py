"""`import hvq_jax`: what it offers, and what it does not load."""

import ast
import inspect
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import hvq_jax
from hvq_jax import command, commands

HEAVY = ("tensorflow_datasets", "orbax", "matplotlib", "tensorboardX", "PIL", "flax", "jax")


@pytest.mark.parametrize("name", hvq_jax.__all__)
def test_every_public_name_is_there(name):
    assert getattr(hvq_jax, name) is not None
    assert name in dir(hvq_jax)


def test_type_checkers_see_the_same_names_from_the_same_modules():
    tree = ast.parse(inspect.getsource(hvq_jax))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in checked.body for alias in node.names}
    modules = dict.fromkeys(hvq_jax._MODULES, "hvq_jax")
    assert seen == {**modules, **{name: f"hvq_jax.{module}" for name, module in hvq_jax._HOMES.items()}}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        hvq_jax.nothing  # noqa: B018


# Then with the help text of each command, as its script prints it.
LIGHT = f"""
import contextlib, io, sys, hvq_jax

print([name for name in {HEAVY} if name in sys.modules])
from hvq_jax import commands

for name in commands.NAMES:
    sys.argv = [name, "--help"]
    with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())) as text:
        assert commands.run(name) == 0
    assert b"--workdir" in text.buffer.getvalue()
print([name for name in {(*HEAVY, "jaxlib", "numpy")} if name in sys.modules])
"""


def test_the_import_alone_and_help_texts_load_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"


@pytest.mark.parametrize("name", commands.NAMES)
def test_the_stored_help_text_is_that_of_the_command(name):
    assert commands.help_file(name).read_text() == commands.make_help(name), "run python -m hvq_jax.commands"


@pytest.mark.parametrize(
    ("start", "says"), [(partial(commands.run, "train"), "python sample.py"), (commands.run_train, "hvq-sample")]
)
def test_a_command_knows_how_it_was_typed(monkeypatch, capsys, start, says):
    monkeypatch.setattr(commands, "start", partial(monkeypatch.setattr, command, "_spelling"))
    monkeypatch.setattr(sys, "argv", ["anything", "--help"])
    assert start() == 0
    assert capsys.readouterr().out
    assert command.typed("sample") == says


def test_every_command_has_a_help_text():
    folder = commands.help_file("train").parent
    assert {path.stem for path in folder.iterdir()} == set(commands.NAMES)
    assert {path.stem for path in folder.parent.glob("[!_]*.py")} == set(commands.NAMES)


def test_the_pure_core_needs_no_data_sets_checkpoints_or_plots():
    program = (
        "import sys, hvq_jax as hvq\n"
        "hvq.hybrid_latent, hvq.HybridQuantizer, hvq.nnx.HybridQuantizer, hvq.Autoencoder\n"
        "hvq.make_quantizer, hvq.make_prior, hvq.sample\n"
        "needless = ('tensorflow_datasets', 'orbax', 'matplotlib', 'chex')\n"
        "print([name for name in needless if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("name", "used_later"),
    [
        ("train", ("orbax", "tensorflow_datasets", "matplotlib", "scipy", "constriction", "pyarrow", "chex")),
        ("sample", ("orbax", "tensorflow_datasets", "scipy", "constriction", "pyarrow", "chex")),
    ],
)
def test_a_command_starts_without_what_it_uses_later_or_never(name, used_later):
    program = f"import sys, hvq_jax.commands.{name}\nprint([name for name in {used_later} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_version_is_the_projects():
    assert 'version = { attr = "hvq_jax.__version__" }' in Path("pyproject.toml").read_text()
    assert hvq_jax.__version__.count(".") == 2
