"""`hvq.train` on arrays: the run that the command trains on the same images."""

import json

import numpy as np
import pytest

import hvq_jax as hvq
from hvq_jax.data.datasets import load_dataset
from hvq_jax.errors import UserError
from hvq_jax.runs.flags import parse_command_line
from tests.conftest import NUM_IMAGES

pytestmark = pytest.mark.usefixtures("without_plots")


@pytest.fixture(scope="module")
def config(tiny_arguments, trained_run):  # whose compiled programs are found again
    return parse_command_line([*tiny_arguments, "--config.stage=autoencoder", "--workdir=x"]).config


@pytest.fixture(scope="module")
def arrays(data_dir, manual_dir):
    dataset = load_dataset("fashion_mnist", data_dir=data_dir, validation_size=NUM_IMAGES["test"])
    rows = {name: [int(n.rpartition(b"/")[2]) for n in dataset.names[name]] for name in ("train", "validation")}
    order = np.argsort(rows["train"] + rows["validation"])
    images, labels = (
        np.concatenate([getattr(dataset.train, field), getattr(dataset.validation, field)])[order]
        for field in ("items", "labels")
    )
    return {"images": images, "labels": labels, "test_images": dataset.test.items, "test_labels": dataset.test.labels}


def test_a_run_on_arrays_is_that_on_a_data_set_and_is_resumed_with_them(tmp_path, config, arrays, trained_run, capsys):
    workdir = tmp_path / "run"
    run = hvq.train(config, workdir, data=arrays)
    summary, expected = (json.loads((path / "summary.json").read_text()) for path in (workdir, trained_run))
    assert summary["autoencoder"] == expected["autoencoder"]
    assert summary["data"] == "arrays"
    assert run.reconstruct(arrays["test_images"][:2]).images.shape == (2, 28, 28, 1)
    counts = "512 images to train on, 128 for validation, 128 for testing; 28×28×1, 10 classes"
    assert f"data      own arrays: {counts}; validation taken from train" in capsys.readouterr().out
    assert hvq.run_experiment(config, str(workdir), data=arrays) == summary
    with pytest.raises(UserError, match="arrays that were given in Python: give them again"):
        hvq.run_experiment(json.loads((workdir / "config.json").read_text()), str(workdir))
    other = {**arrays, "images": 255 - arrays["images"]}
    with pytest.raises(UserError, match=r"arrays is not the data set that .* was trained on"):
        hvq.train(config, workdir, data=other)
    assert json.loads((workdir / "summary.json").read_text()) == summary


def test_arrays_that_cannot_be_used_leave_no_run(tmp_path, config):
    with pytest.raises(UserError, match=r"^data: float images .*: say which with --config\.data\.value_range=\(0, 1\)"):
        hvq.train(config, tmp_path / "run", data=np.full((9, 28, 28), 0.5))
    assert not (tmp_path / "run" / "config.json").exists()
