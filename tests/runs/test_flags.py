"""What newcomers type wrongly gets a line that says what they may have meant."""

import re
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from hvq_jax.errors import UserError
from hvq_jax.options import is_optional
from hvq_jax.runs.flags import parse_command_line
from hvq_jax.runs.options import KEYS, from_dict
from hvq_jax.runs.workdir import flatten

CONFIG = "--config=configs/quickstart.py"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([CONFIG, "--workdr=x"], "--workdr: there is no such option; did you mean --workdir?"),
        ([CONFIG, "--workdir=x", "--latent.num_codes=1"], "did you mean --config.latent.num_codes?"),
        ([CONFIG, "--workdir=x", "--num_codes=1"], "did you mean --config.latent.num_codes?"),
        (
            [CONFIG, "--workdir=x", "--epochs=12"],
            "--epochs: there is no such option; did you mean --config.autoencoder.num_epochs or "
            "--config.prior.num_epochs?",
        ),
        (
            [CONFIG, "--workdir=x", "--config.learning_rate=1"],
            "did you mean --config.autoencoder.learning_rate or --config.prior.learning_rate?",
        ),
        ([CONFIG, "--workdir=x", "--config.autoencoder.epochs=1"], "did you mean --config.autoencoder.num_epochs?"),
        ([CONFIG, "--workdir=x", "--noconfig.prior.conditionl"], "did you mean --config.prior.conditional?"),
        (["--config=elsewhere/quickstart.py", "--workdir=x"], "no such file; did you mean --config=quickstart?"),
        (["--config=elsewhere/mnist.py:vq", "--workdir=x"], "no such file; did you mean --config=mnist?"),
        (["--config=nothing", "--workdir=x"], "no such file; the packaged configs are cifar10, cifar100, default"),
        ([CONFIG, "--workdir="], "--workdir=DIR is missing"),
        ([CONFIG, "--workdir=~no_such_user_at_all/x"], "there is no such home folder"),
        ([CONFIG, "--workdir=x", "--plan", "--quiet"], "--plan only prints, and --quiet prints nothing"),
        ([CONFIG, "--workdir=x", "--plan", "--profile=3"], "--plan trains nothing that --profile could trace"),
    ],
)
def test_what_was_meant_is_suggested(arguments, says):
    with pytest.raises(UserError) as raised:
        parse_command_line(arguments)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["mnist", "mnist.py", "configs/mnist.py"])
@pytest.mark.parametrize("form", ["--config={}", "--config {}", "-config={}"])
def test_packaged_configs_are_found_anywhere_and_files_come_first(tmp_path, monkeypatch, form, name):
    monkeypatch.chdir(tmp_path)
    given = form.format(f"{name}:vq").split()
    found = parse_command_line([*given, "--workdir=x"]).config
    assert (found.data.name, found.latent.mode) == ("mnist", "vq")
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("from hvq_jax.runs.options import default_config as get_config\n")
    found = parse_command_line([*given, "--workdir=x"]).config
    assert (found.data.name, found.latent.mode) == (KEYS["data.name"].default, "vq")


@given(st.sampled_from(sorted(KEYS)), st.data())
def test_a_slip_in_any_option_is_met_with_that_option(key, data):
    place = data.draw(st.integers(key.rfind(".") + 1, len(key) - 1))
    wrong = key[:place] + data.draw(st.sampled_from("xz".replace(key[place], ""))) + key[place + 1 :]
    with pytest.raises(UserError, match="there is no such option; did you mean --config"):
        parse_command_line([CONFIG, "--workdir=x", f"--config.{wrong}=1"])


OPTIONAL = sorted(key for key, field in KEYS.items() if is_optional(field.type))


@pytest.mark.parametrize("key", OPTIONAL)
def test_what_may_be_none_can_be_set_to_none(key):
    for flags in ([f"--config.{key}=None"], [f"--config.{key}", "None"], [f"--config.{key}=1", f"-config.{key}=None"]):
        config = parse_command_line([CONFIG, "--workdir=x", *flags]).config
        assert flatten(config.to_dict())[key] is None
    config = parse_command_line([CONFIG, "--workdir=x", f"--config.{key}=None", f"--config.{key}", "1"]).config
    assert flatten(config.to_dict())[key] in (1, "1", [1])


@pytest.mark.parametrize("key", sorted(KEYS))
def test_no_option_can_be_empty(key):
    with pytest.raises(UserError, match=rf"{re.escape(key)}=('',\))?.*: (must|choose)"):
        from_dict(parse_command_line([CONFIG, "--workdir=x", f"--config.{key}="]).config)


@pytest.mark.parametrize("key", [key for key, field in KEYS.items() if field.type in (int, float, bool)])
def test_a_value_of_another_type_is_refused_in_words(key):
    says = f"^--config.{re.escape(key)}=x: must be (an integer|a number|True or False)$"
    with pytest.raises(UserError, match=says):
        parse_command_line([CONFIG, "--workdir=x", f"--config.{key}=x"])


def config_file(tmp_path: Path, body: str) -> str:
    file = tmp_path / "mine.py"
    file.write_text(f"from ml_collections import ConfigDict\nfrom configs import quickstart\n\n\n{body}\n")
    return f"--config={file}"


START = "def get_config():\n    config = quickstart.get_config()\n"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("def get_config():\n    pass", "get_config must return a ConfigDict, not NoneType"),
        (f"{START}    raise ValueError('my own words')", "ValueError: my own words (FILE, line 7)"),
        (f"{START}    raise KeyError('latent')", "KeyError: 'latent' (FILE, line 7)"),
        (f"{START}    config.latent.mode", "get_config must return a ConfigDict, not NoneType"),
        (
            f"{START}    config.autoencoder.batchsize = 3\n    return config",
            "sets autoencoder.batchsize: there is no such option; did you mean --config.autoencoder.batch_size?",
        ),
        (
            f"{START}    del config.latent.mode\n    return config",
            "latent.mode is missing; start from hvq_jax.runs.options.default_config",
        ),
        (
            f"{START}    from hvq_jax.errors import ArgumentError\n    raise ArgumentError('mode=x', 'is not mine')",
            "mode=x: is not mine",
        ),
        ("this is no program", "SyntaxError"),
        (f"{START}    return config.to_dict()", "get_config must return a ConfigDict, not dict"),
        (f"{START}    raise SystemExit(3)", "SystemExit: 3 (FILE, line 7)"),
    ],
)
def test_a_config_file_says_itself_what_is_wrong(tmp_path, body, says):
    flag = config_file(tmp_path, body)
    with pytest.raises(UserError) as raised:
        parse_command_line([flag, "--workdir=x"])
    assert says.replace("FILE", flag.removeprefix("--config=")) in str(raised.value)


def test_a_leading_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text("from configs.quickstart import get_config as get_config\n")
    line = parse_command_line(["--config=~/mine.py:vq", "--workdir=~/runs/a"])
    assert line.workdir == str(tmp_path / "runs" / "a")
    assert line.config.latent.mode == "vq"
