"""What a file costs and brings back, against the functions that write and read one, and in the summary of a run."""

import json
import math
import re
import shutil
import sys

import numpy as np
import pytest

import hvq_jax as hvq
import train
from hvq_jax.codec import range_coder
from hvq_jax.codec.latent_codec import LatentCodec
from hvq_jax.data.builders.idx import read_idx
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.runs.coded_evaluation import evaluate_coded
from hvq_jax.runs.trained import TrainedRun
from tests.conftest import EMBEDDED

pytest.importorskip("constriction", reason="compression is optional")

COUNT = 70  # more than a batch of the decoder


@pytest.fixture(scope="module")
def run(trained_run):
    return hvq.load(trained_run)


@pytest.fixture(scope="module")
def images():
    return read_idx(EMBEDDED / "t10k-images-idx3-ubyte.gz", (28, 28))[:1000]


@pytest.fixture(scope="module")
def labels():
    return read_idx(EMBEDDED / "t10k-labels-idx1-ubyte.gz", ())[:1000].astype(np.int32)


@pytest.fixture(scope="module")
def metrics(run, images, labels):
    return run.evaluate(images[:COUNT], labels[:COUNT], coded=True)


def test_the_bits_are_those_of_the_file_and_of_the_prior(run, images, labels, metrics):
    size = len(run.compress(images[:COUNT], labels[:COUNT]))
    nats = -run.log_likelihood(images[:COUNT], labels[:COUNT]).per_image
    assert metrics["num_images"] == COUNT
    assert metrics["coded_bytes"] == size
    assert metrics["coded_bits_per_image"] == 8 * size / COUNT
    assert metrics["bits_per_image"] == pytest.approx(nats.mean() / math.log(2), rel=1e-5)
    assert metrics["bits_per_image"] == pytest.approx(metrics["nats_per_latent"] / math.log(2), rel=1e-4)
    assert metrics["label_bits_per_image"] == math.log2(11)
    together = metrics["bits_per_image"] + math.log2(11)
    assert metrics["coded_ratio"] == pytest.approx(8 * size / COUNT / together)


def test_distortions_are_of_the_images_that_the_file_holds(run, images, metrics):
    returned = run.transmit(images[:COUNT]).images[..., 0]
    squares = np.square(returned / 127.5 - images[:COUNT] / 127.5).mean((1, 2))
    assert metrics["coded_mse"] == pytest.approx(squares.mean(), rel=1e-5)
    assert metrics["coded_psnr"] == pytest.approx((-10 * np.log10(squares / 4)).mean(), rel=1e-5)
    assert metrics["coded_mse"] != metrics["mse"]  # gains are rounded to bins
    assert metrics["coded_ssim"] == pytest.approx(metrics["ssim"], abs=0.02)
    assert metrics["coded_ssim"] != metrics["ssim"]


def test_a_thousand_images_cost_at_most_half_a_percent_more_than_the_prior_says(run, images, labels):
    found = evaluate_coded(run.stream, images[..., None], labels)
    assert found["num_images"] == 1000
    # Zeros at the end of a stream are not written: with few codes in use, it may be shorter than its information.
    assert 0.99 < found["coded_ratio"] <= 1.005


def test_without_labels_the_prior_is_given_no_class_and_the_file_holds_none(run, images, labels, metrics):
    some = images[:3]
    found = run.evaluate(some, coded=True, portable=True)
    assert found["label_bits_per_image"] == 0
    assert found["coded_bytes"] == len(run.compress(some, portable=True))
    nats = -run.log_likelihood(some).per_image.mean()
    assert found["bits_per_image"] == pytest.approx(nats / math.log(2), rel=1e-5)
    assert found["bits_per_image"] != run.evaluate(some, labels[:3])["bits_per_image"]


def test_timed_or_not_the_rest_is_the_same(run, images):
    timed = evaluate_coded(run.stream, images[:3, ..., None], timed=True)
    times = {"compress_ms_per_image", "decompress_ms_per_image"}
    assert all(timed[name] > 0 for name in times)
    assert {name: timed[name] for name in set(timed) - times} == evaluate_coded(run.stream, images[:3, ..., None])


def test_work_can_be_stopped_between_pieces(run, images):
    pieces = []

    def watch(items):
        for item in items:
            pieces.append(item)
            yield item

    evaluate_coded(run.stream, images[:COUNT, ..., None], watch=watch)
    assert len(pieces) == 3  # two of tokens, and the block of the file


def test_arguments_are_checked(run, images):
    with pytest.raises(ArgumentError, match=r"^images: there are none"):
        evaluate_coded(run.stream, images[:0])
    with pytest.raises(ArgumentError, match=r"^portable=True: is for coded=True"):
        run.evaluate(images[:1], portable=True)
    with pytest.raises(ArgumentError, match=r"^labels"):
        run.evaluate(images[:1], "Hat", coded=True)


@pytest.fixture
def copied(trained_run, tmp_path, without_plots):
    return shutil.copytree(trained_run, tmp_path / "run")


def summary_of(workdir):
    return json.loads((workdir / "summary.json").read_text())


def test_a_run_reports_what_its_test_images_cost(copied, data_dir, capsys):
    before = summary_of(copied)
    arguments = [f"--workdir={copied}", "--config.prior.coded_images=5"]
    assert train.main(arguments) == 0
    assert re.search(r"\n  coded +\d+\.\d bits per image, in a file of 5 test images\n", capsys.readouterr().out)
    summary = summary_of(copied)
    coded = summary.pop("coded")
    assert summary == before
    split = hvq.load_dataset("fashion_mnist", data_dir=data_dir).test
    images, labels = split.read(np.linspace(0, len(split) - 1, 5).astype(int))
    assert coded == {
        "step": 4,
        "autoencoder_step": 6,
        "most_images": 5,
        "test": evaluate_coded(TrainedRun.load(copied), images, labels.astype(np.int32)),
    }
    # A finished run does not repeat it; a damaged section is named.
    written = (copied / "summary.json").stat().st_mtime_ns
    assert train.main(arguments) == 0
    assert (copied / "summary.json").stat().st_mtime_ns == written
    (copied / "summary.json").write_text(json.dumps({**summary, "coded": {**coded, "test": {"coded_bytes": 3}}}))
    assert train.main(arguments) == 1
    assert "coded.test has no coded_bits_per_image" in capsys.readouterr().err


def test_without_the_package_a_run_says_so_and_ends_as_well(copied, monkeypatch, capsys):
    monkeypatch.setattr(range_coder, "is_installed", lambda: False)
    before = summary_of(copied)
    assert train.main([f"--workdir={copied}", "--config.prior.coded_images=5"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("coded")]
    assert lines == [
        "coded: left out, since compression needs the package constriction: pip install 'constriction>=0.5,<0.6'"
    ]
    assert summary_of(copied) == before


def test_images_that_cannot_be_coded_do_not_end_a_run(copied, monkeypatch, capsys):
    """Where a device computes the same differently, encoder and decoder disagree, and no file is written."""
    monkeypatch.setattr(LatentCodec, "decode", lambda *arguments: (np.zeros(0), np.zeros(0)))
    written = set()
    for _ in range(2):
        assert train.main([f"--workdir={copied}", "--config.prior.coded_images=5"]) == 0
        assert "did not decode to what it was made from" in summary_of(copied)["coded"]["left_out"]
        assert re.search(r"\n  coded +left out: .* did not decode", capsys.readouterr().out)
        written.add((copied / "summary.json").stat().st_mtime_ns)
    assert len(written) == 1  # it is not tried again


def test_the_package_is_found_where_it_is_installed(monkeypatch):
    assert range_coder.is_installed()
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(UserError, match="needs the package constriction"):
        range_coder.RangeEncoder()
