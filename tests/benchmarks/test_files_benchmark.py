"""`benchmarks.files` on the tiny run of the tests."""

import json

import pytest

from benchmarks import files
from hvq_jax.command import exit_status


def test_a_row_has_bits_bytes_and_times(trained_run, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(files, "train", lambda workdir, latent, prior, options: trained_run)
    arguments = [f"--workdir={tmp_path}", "--latents=vq", "--priors=pixelcnn", "--alone=2"]
    files.main([*arguments, f"--json={tmp_path / 'files.json'}"])
    (row,) = json.loads((tmp_path / "files.json").read_text())["rows"]
    assert len(row) == len(files.HEADER)
    assert row[0] == "`vq`, PixelCNN"
    assert float(row[3]) == pytest.approx(1, abs=0.02)
    above, most = (float(text.strip("()")) for text in row[-1].split())
    assert -1 < above <= most < 40
    assert f"| {' | '.join(row)} |" in capsys.readouterr().out


def test_a_run_that_is_there_is_not_trained_again_and_one_that_fails_is_told(tmp_path):
    (tmp_path / "vq_pixelcnn").mkdir()
    (tmp_path / "vq_pixelcnn" / "summary.json").touch()
    assert files.train(tmp_path, "vq", "pixelcnn", files.OPTIONS) == tmp_path / "vq_pixelcnn"
    with pytest.raises(files.UserError, match=r"train.py .* failed: error: .*no_such_option"):
        files.train(tmp_path, "vq", "transformer", ("no_such_option=1",))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --workdir"),
        (["--workdir=a", "--latents=x"], "--latents=x: there is no latent 'x'; choose from vq, projected"),
        (["--workdir=a", "--alone=0"], "--alone=0: must be at least 1"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    assert exit_status(lambda: files.main(arguments)) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")
