"""`evaluate.py` from the outside, on the tiny trained run."""

import json
import math
import shutil

import numpy as np
import pytest

import evaluate as command
import hvq_jax as hvq
from hvq_jax.codec import range_coder
from hvq_jax.evaluation.histogram import histogram_nats
from hvq_jax.runs.coded_evaluation import evaluate_coded
from hvq_jax.runs.compression import compress
from hvq_jax.runs.evaluation import evaluate
from hvq_jax.runs.static_rate import static_bits_of_codes
from hvq_jax.runs.trained import TrainedRun

pytest.importorskip("constriction", reason="compression is optional")

TIMES = {"compress_ms_per_image", "decompress_ms_per_image"}


def run(*arguments):
    return command.main([str(a) for a in arguments])


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def file(images, tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "images.npz"
    np.savez(path, images=images, labels=[3, -1, 0])
    return path


def test_a_split_as_a_table_and_as_json(trained_run, data_dir, tmp_path, capsys):
    out = tmp_path / "test.json"
    assert run(f"--workdir={trained_run}", "--num_images=5", f"--out={out}") == 0
    printed = capsys.readouterr().out
    result = json.loads(out.read_text())
    metrics = result.pop("metrics")
    assert {name: result[name] for name in ("images", "latent", "prior", "prior_step", "autoencoder_step")} == {
        "images": "test", "latent": "projected", "prior": "pixelcnn", "prior_step": 4, "autoencoder_step": 6,
    }  # fmt: skip
    split = hvq.load_dataset("fashion_mnist", data_dir=data_dir).test
    images, labels = split.read(np.linspace(0, len(split) - 1, 5).astype(int))
    trained = TrainedRun.load(trained_run)
    coded = evaluate_coded(trained, images, labels.astype(np.int32))
    assert {name: metrics[name] for name in coded} == coded
    assert set(metrics) >= TIMES
    assert metrics["mse"] == evaluate(trained, images, None)["mse"]
    for number in ("bits_per_image", "static_bits_of_codes", "label_bits_per_image", "coded_bits_per_image"):
        assert f"{metrics[number]:14.2f}" in printed
    for row in (("coded_mse", "coded_psnr", "coded_ssim"), ("mse", "psnr", "ssim")):
        mse, psnr, ssim = (metrics[name] for name in row)
        assert f"{mse:10.5f}{psnr:10.2f}{ssim:10.4f}" in printed
    assert printed.endswith(f"wrote {out}\n")


def test_frequencies_are_those_in_the_class_where_it_is_known(trained_run, data_dir):
    trained = TrainedRun.load(trained_run)
    with np.load(trained_run / "latents.npz") as stored:
        train, validation, test = (
            (stored[f"{name}_indices"], stored[f"{name}_labels"]) for name in ("train", "validation", "test")
        )
    labels = test[1]
    images = hvq.load_dataset("fashion_mnist", data_dir=data_dir).test.read(np.arange(len(labels)))[0]
    found = static_bits_of_codes(trained, images, labels)
    expected = histogram_nats(train, validation, test, trained.num_codes) / math.log(2)
    assert found == pytest.approx(expected, rel=1e-3)  # batches of another size may tie a code differently
    unknown = static_bits_of_codes(trained, images)
    assert unknown > found
    assert unknown == static_bits_of_codes(trained, images, np.where(labels == 3, -1, labels))


def test_given_images_without_their_labels(trained_run, images, file, tmp_path):
    out = tmp_path / "out.json"
    assert run(f"--workdir={trained_run}", f"--images={file}", f"--out={out}", "--no-labels", "--portable") == 0
    found = json.loads(out.read_text())
    assert (found["images"], found["portable"]) == (str(file), True)
    assert found["metrics"]["coded_bytes"] == len(compress(TrainedRun.load(trained_run), images, portable=True))
    assert found["metrics"]["label_bits_per_image"] == 0


def test_what_cannot_be_measured_is_left_out(trained_run, file, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out.json"
    monkeypatch.setattr(range_coder, "is_installed", lambda: False)
    assert run(f"--workdir={trained_run}", f"--images={file}", f"--out={out}") == 0
    assert "coded: left out, since compression needs the package constriction" in capsys.readouterr().out
    metrics = json.loads(out.read_text())["metrics"]
    assert {"bits_per_image", "static_bits_of_codes", "psnr"} < set(metrics)
    assert "coded_bytes" not in metrics
    alone = shutil.copytree(trained_run, tmp_path / "run", ignore=shutil.ignore_patterns("prior"))
    assert run(f"--workdir={alone}", f"--images={file}", f"--out={out}") == 0
    printed = capsys.readouterr().out
    assert f"bits: left out, since {alone} has no prior\n" in printed
    assert "bits per image" not in printed
    assert "by frequency" not in printed
    assert json.loads(out.read_text())["metrics"]["mse"] == pytest.approx(metrics["mse"], rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out=a.npz"], "a.npz: must end in .json"),
        (["--images=a.npz", "--num_images=3"], "--num_images is for a split"),
        (["--num_images=0"], "--num_images=0: must be at least 1"),
        (["--label=3", "--no-labels"], "omit one of them"),
        (["--label=nothing"], "--label=nothing"),
        (["--images=none.npz"], "none.npz"),
        (["--images=a.npz", "--split=test"], "not allowed with argument"),
        (["--out={run}/summary.json"], "would replace what belongs to the run"),
    ],
)
def test_bad_commands_are_one_line(trained_run, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(f"--workdir={trained_run}", *(a.replace("{run}", str(trained_run)) for a in arguments)) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1, line
    assert message in line
    assert not list(tmp_path.iterdir())
