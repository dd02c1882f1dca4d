"""The command line is parsed without importing any component of the user's, and so without using a device."""

import json

import pytest

from hvq_jax.errors import UserError
from hvq_jax.files import write_json
from hvq_jax.layout import CONFIG
from hvq_jax.runs.flags import parse_command_line
from hvq_jax.runs.options import KEYS, RunOptions, from_dict, stored_config, to_config, to_dict
from hvq_jax.runs.workdir import write_format

IMPORTABLE = [key for key, field in KEYS.items() if field.metadata["rule"].importable]


def write_run(workdir, **changes):
    """Write the config of a run, with `changes` by dotted name, as a run stores it."""
    stored = to_dict(RunOptions())
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        (stored[section] if section else stored)[name] = value
    write_format(workdir)
    write_json(workdir / CONFIG, stored)


@pytest.mark.parametrize("key", IMPORTABLE)
@pytest.mark.parametrize("resumed", [False, True])
def test_a_component_is_imported_when_the_options_are_built_not_when_the_command_line_is_parsed(
    tmp_path, monkeypatch, key, resumed
):
    (tmp_path / "users_component.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = "users_component:Class"
    if resumed:
        write_run(tmp_path, **{key: path})
        arguments = []
    else:
        arguments = ["--config=configs/default.py", f"--config.{key}={path}"]
    config = parse_command_line([*arguments, f"--workdir={tmp_path}"]).config
    section, _, name = key.partition(".")
    assert config[section][name] == path
    with pytest.raises(UserError, match=r"users_component:Class: cannot be imported \(imported\)"):
        from_dict(config).autoencoder_model((28, 28, 1))


def test_the_config_of_a_workdir_is_that_of_its_options():
    """It has the same types too, so that the same overrides are possible."""
    options = RunOptions()
    config = stored_config(json.loads(json.dumps(to_dict(options))))
    assert config.eq_as_configdict(to_config(options))
    config.prior.width = 8  # None until now
    config.codebook.levels = (5, 4)
    config.data.image_size = (28, 32)
    changed = from_dict(config)
    assert (changed.prior.width, changed.codebook.levels, changed.data.sides) == (8, (5, 4), (28, 32))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("latent.num_codes", "many", r"^--config\.latent\.num_codes='many': must be an integer$"),
        ("latent.mode", "hybrid", r"^--config\.latent\.mode=hybrid: choose one of vq, "),
        ("codebook.levels", ["8"], r"^--config\.codebook\.levels=\('8',\): must be a tuple of integers$"),
        ("seed", -1, r"^--config\.seed=-1: must be from 0 to "),
        ("latent", 5, r"the config cannot be used: latent must be a group of options$"),
        ("data.nmae", "x", r"the config is of another version: data\.nmae is missing or unknown$"),
    ],
)
def test_a_damaged_config_of_a_workdir_is_one_line(tmp_path, key, value, said):
    write_run(tmp_path, **{key: value})
    with pytest.raises(UserError, match=said):
        parse_command_line([f"--workdir={tmp_path}"])


def test_an_override_may_repair_how_options_of_a_workdir_fit_together(tmp_path):
    """What does not fit together is refused when the run is opened, with the overrides."""
    write_run(tmp_path, **{"latent.projection_groups": 3})
    config = parse_command_line([f"--workdir={tmp_path}", "--config.latent.projection_groups=4"]).config
    assert from_dict(config).latent.projection_groups == 4
