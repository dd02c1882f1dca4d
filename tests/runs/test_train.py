"""`train.py` from the outside: what a run of each latent leaves, from training to samples."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sample
import train
from hvq_jax import autoencoder
from hvq_jax.files import read_arrays
from hvq_jax.latents import LATENTS
from hvq_jax.layout import LATENTS as LATENTS_FILE
from hvq_jax.runs.flags import parse_command_line
from hvq_jax.runs.options import from_dict
from hvq_jax.runs.trained import TrainedRun
from tests.workdirs import digests, records

ROOT = Path(__file__).parents[2]


def test_a_run_leaves_everything_it_names(trained_run):
    for name in ("loss_curves.png", "reconstructions.png", "samples.png"):
        assert (trained_run / name).read_bytes().startswith(b"\x89PNG")
    summary = json.loads((trained_run / "summary.json").read_text())
    test = summary["autoencoder"]["test"]
    assert {"mse", "psnr", "ssim", "perplexity", "codes_used", "share_outside", "gain_mean", "gain_std"} <= set(test)
    assert test["share_outside"] == 1.0  # projected: every position
    assert summary["prior"]["test"]["bits_per_pixel"] > 0
    assert "one of 16 gains" in summary["samples"]["continuous_part"]
    assert {(r["stage"], r["split"]) for r in records(trained_run)} == {
        (stage, split) for stage in ("autoencoder", "prior") for split in ("train", "validation")
    }
    for stage in ("autoencoder", "prior"):
        assert list((trained_run / "events" / stage).glob("events.out.tfevents.*"))
        assert digests(trained_run, stage)[0] == {"autoencoder": 6, "prior": 4}[stage]


def test_the_prior_counts_nats_and_bits_of_the_same_thing(trained_run):
    metrics = json.loads((trained_run / "summary.json").read_text())["prior"]["test"]
    assert metrics["bits_per_image"] == pytest.approx(metrics["nats_per_latent"] / 0.6931471805599453)
    assert metrics["bits_per_pixel"] == pytest.approx(metrics["bits_per_image"] / 784)
    assert metrics["loss"] == pytest.approx(metrics["nats_per_latent"] / 49)
    for part in ("codes", "continuous"):
        bits = metrics[f"nats_of_{part}"] / 0.6931471805599453
        assert metrics[f"bits_per_pixel_of_{part}"] == pytest.approx(bits / 784)
    assert "density_of_continuous" not in metrics  # bins have none


ON_ONE_DEVICE = "--config.parallel=jit"  # the run of `trained_run` is on four
IN_BFLOAT16 = ["--config.network.compute_dtype=bfloat16", "--config.prior.compute_dtype=bfloat16"]
# Dense layers, which compile in a third of the time: for runs that are about what is between the networks. 4×4 latents.
OF_PATCHES = [
    "--config.data.image_size=32",
    "--config.network.encoder=tests.plugins.patches:Encoder",
    "--config.network.decoder=tests.plugins.patches:Decoder",
    "--config.network.width=8",
]
BRIEFLY = ["--config.autoencoder.num_steps=2", "--config.prior.num_steps=2"]
GROUPS = [
    "--config.latent.num_frequent=2",
    "--config.latent.projection_groups=2",
    "--config.prior.name=transformer",
    "--config.prior.num_heads=2",
]


@pytest.mark.usefixtures("without_plots")
@pytest.mark.parametrize(
    ("mode", "overrides"),
    [
        ("frequency", [ON_ONE_DEVICE, "--config.latent.frequent_mass=0.5", *IN_BFLOAT16]),
        ("combined", [ON_ONE_DEVICE, *OF_PATCHES, *GROUPS]),
    ],
)
def test_the_masked_latents_from_training_to_samples(tmp_path, tiny_arguments, mode, overrides, capsys):
    workdir = tmp_path / mode
    arguments = [*tiny_arguments, f"--workdir={workdir}", f"--config.latent.mode={mode}", *BRIEFLY, *overrides]
    assert train.main(arguments) == 0
    assert "positions of rare codes" in capsys.readouterr().out
    summary = json.loads((workdir / "summary.json").read_text())
    assert 0 < summary["autoencoder"]["test"]["share_outside"] < 1
    run = TrainedRun.load(workdir)
    frequent = np.asarray(run.model.latent_options.frequent_codes(run.variables.state.quantizer.frequency))
    assert 0 < frequent.sum() < 16
    drawn = next(run.sample(np.arange(10, dtype=np.int32), seed=1))
    codes, plain = np.asarray(autoencoder.codes(run.model, run.variables))[drawn.indices], frequent[drawn.indices]
    assert drawn.images.dtype == np.uint8
    assert drawn.latents.dtype == np.float32
    if mode == "frequency":
        assert run.model.network.compute_dtype == run.prior.network.compute_dtype == "bfloat16"
        multiples = (drawn.latents - codes) / run.options.prior.residual_step
        np.testing.assert_allclose(multiples, np.round(multiples), atol=1e-3)
        assert (multiples[~plain] != 0).any()
    else:
        assert drawn.gains.shape == (*drawn.indices.shape, 2)
        np.testing.assert_array_equal(drawn.gains[plain], 1.0)
        assert (drawn.gains[~plain] != 1.0).any()
    np.testing.assert_array_equal(drawn.latents[plain], codes[plain])
    nats = summary["prior"]["test"]
    assert nats["nats_of_codes"] + nats["nats_of_continuous"] == pytest.approx(nats["nats_per_latent"])
    assert nats["nats_of_continuous"] > 0
    if mode == "frequency":  # a cell's mass is about its volume times the density
        outside = (~frequent)[read_arrays(workdir / LATENTS_FILE)["test_indices"]]
        count = outside.sum() / len(outside)  # residuals per latent, of 8 numbers
        volume = 8 * count * np.log(run.options.prior.residual_step)
        assert nats["density_of_continuous"] == pytest.approx(nats["nats_of_continuous"] + volume, abs=0.02 * 8 * count)


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "configs").glob("[!_]*.py")))
def test_every_config_is_valid_in_every_mode(name):
    for mode in LATENTS:
        line = parse_command_line([f"--config=configs/{name}.py:{mode}", "--workdir=somewhere"])
        options = from_dict(line.config)
        assert line.workdir == "somewhere"
        assert line.config.latent.mode == mode
        model = options.autoencoder_model((28, 28, 1))
        assert model.latent_options.mode == mode
        assert (model.training_loss_options.codebook_weight > 0) == (model.codebook_options.learning == "gradient")
        prior = options.prior_model(num_classes=10, grid=(7, 7))
        assert prior.num_classes == (10 if options.prior.conditional else 0)


def test_residual_codes_from_training_to_samples(tmp_path, tiny_arguments, capsys):
    workdir = tmp_path / "residual"
    residual = ["--config.latent.mode=vq", "--config.codebook.family=residual", "--config.codebook.depth=3"]
    assert train.main([*tiny_arguments, f"--workdir={workdir}", *residual, *BRIEFLY, *OF_PATCHES, ON_ONE_DEVICE]) == 0
    nats = json.loads((workdir / "summary.json").read_text())["prior"]["test"]
    of_each = [nats[f"nats_of_code_{number}"] for number in (1, 2, 3)]
    assert sum(of_each) == pytest.approx(nats["nats_per_latent"])
    assert nats["bits_per_pixel"] == pytest.approx(nats["nats_per_latent"] / math.log(2) / 32**2)
    assert (workdir / "samples.png").exists()
    latents = read_arrays(workdir / LATENTS_FILE)
    assert latents["test_indices"].shape == (128, 4, 4, 3)

    Image.fromarray(np.arange(32**2).astype(np.uint8).reshape(32, 32)).save(tmp_path / "image.png")
    arrays = {}
    for name, flags in {
        "drawn": ["--num_samples=3", "--guidance=0.5", "--top_k=8"],
        "completed": [f"--complete={tmp_path / 'image.png'}", "--rows=2", "--num_samples=2"],
        "passed": [f"--reconstruct={tmp_path / 'image.png'}"],
    }.items():
        out = tmp_path / f"{name}.npz"
        assert sample.main([f"--workdir={workdir}", f"--out={out}", *flags]) == 0
        arrays[name] = read_arrays(out)
        assert arrays[name]["indices"].shape[1:] == (4, 4, 3)
    kept = np.broadcast_to(arrays["passed"]["indices"][:, :2], (2, 2, 4, 3))
    np.testing.assert_array_equal(arrays["completed"]["indices"][:, :2], kept)
    for part in arrays.values():  # the decoder saw the sum of the codes
        run = TrainedRun.load(workdir)
        codes = np.asarray(autoencoder.codes(run.model, run.variables))
        expected = sum(codes[level][part["indices"][..., level]] for level in range(3))
        np.testing.assert_allclose(part["latents"], expected, rtol=1e-5, atol=1e-6)
    for flags in ([f"--complete={tmp_path / 'image.png'}"], ["--num_samples=2"]):
        assert sample.main([f"--workdir={workdir}", f"--out={tmp_path / 'grid.png'}", *flags]) == 0
    capsys.readouterr()
    assert sample.main([f"--workdir={workdir}", f"--vary={tmp_path / 'image.png'}", "--out=a.npz"]) == 1
    assert "draws codes only" in capsys.readouterr().err
