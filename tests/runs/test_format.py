"""Every command rejects a workdir of another version with a one-line error, and leaves it unchanged."""

import json
import shutil

import pytest

import sample
import train
from hvq_jax.layout import FORMAT, FORMAT_FILE
from tests.workdirs import error_of


@pytest.fixture
def workdir(trained_run, tmp_path):
    return shutil.copytree(trained_run, tmp_path / "run")


@pytest.mark.parametrize("found", [1, FORMAT + 1])
def test_another_format_is_refused(workdir, tiny_arguments, capsys, found):
    if found == 1:  # versions before 0.2 wrote no number
        (workdir / FORMAT_FILE).unlink()
    else:
        (workdir / FORMAT_FILE).write_text(json.dumps({"format": found}))
    before = sorted(path.relative_to(workdir) for path in workdir.rglob("*"))
    said = f"{workdir} was written by another version of hvq_jax (format {found}, this one reads {FORMAT}): use that"
    assert said in error_of([*tiny_arguments, f"--workdir={workdir}"], capsys)
    assert said in error_of([f"--workdir={workdir}"], capsys)
    assert sample.main([f"--workdir={workdir}", f"--out={workdir.parent / 'grid.png'}"]) == 1
    assert said in capsys.readouterr().err
    assert sorted(path.relative_to(workdir) for path in workdir.rglob("*")) == before


def test_a_run_says_its_format(trained_run):
    assert json.loads((trained_run / FORMAT_FILE).read_text()) == {"format": FORMAT}


def test_a_folder_without_a_run_has_no_format(tmp_path, tiny_arguments):
    assert train.main([*tiny_arguments, f"--workdir={tmp_path}", "--config.stage=autoencoder"]) == 0
    assert (tmp_path / FORMAT_FILE).exists()
