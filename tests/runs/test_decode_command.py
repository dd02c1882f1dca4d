"""`sample.py --decode`: images of stored codes, of whatever latent and whoever wrote them."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest
from PIL import Image

import sample
from hvq_jax import autoencoder
from hvq_jax.errors import UserError
from hvq_jax.networks.options import NetworkOptions
from hvq_jax.quantizers import CodebookOptions, LatentOptions
from hvq_jax.runs.decode_command import decoded
from hvq_jax.runs.options import RunOptions
from hvq_jax.runs.stored_codes import read_codes
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.training.state import TrainState


def run_command(*arguments):
    return sample.main([str(a) for a in arguments])


def error_of(capsys, *arguments):
    capsys.readouterr()
    assert run_command(*arguments) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1, line
    return line


def arrays(path):
    with np.load(path) as stored:
        return dict(stored)


def assert_nearly_equal(images, others):
    """Another program may round a value to the next grey level."""
    differences = np.abs(images.astype(int) - others)
    assert differences.max() <= 1
    assert (differences > 0).mean() < 1e-3


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def written(trained_run, tmp_path_factory, image):
    """What each command writes."""
    folder = tmp_path_factory.mktemp("written")
    for name, flags in {
        "sample": ["--num_samples=5"],
        "reconstruct": [f"--reconstruct={image}"],
        "complete": [f"--complete={image}", "--num_samples=2"],
        "vary": [f"--vary={image}", "--num_samples=2", "--proposals=2"],
    }.items():
        assert run_command(f"--workdir={trained_run}", *flags, f"--out={folder / name}.npz") == 0
    return folder


@pytest.mark.parametrize("name", ["sample", "reconstruct", "complete", "vary"])
def test_what_sample_writes_it_reads(trained_run, written, tmp_path, name):
    given, out = arrays(written / f"{name}.npz"), tmp_path / "out.npz"
    assert run_command(f"--workdir={trained_run}", f"--decode={written / name}.npz", f"--out={out}") == 0
    found = arrays(out)
    assert set(given) - set(found) <= {"effective_proposals"}
    for array in set(found) - {"images"}:
        np.testing.assert_array_equal(found[array], given[array])
    assert_nearly_equal(found["images"], given["images"])
    # Without what the decoder saw, from the codes and their gains.
    del given["latents"]
    np.savez(tmp_path / "codes.npz", **given)
    assert run_command(f"--workdir={trained_run}", f"--decode={tmp_path / 'codes.npz'}", f"--out={out}") == 0
    assert_nearly_equal(arrays(out)["images"], given["images"])


def test_codes_from_elsewhere(trained_run, tmp_path, capsys):
    np.savez(tmp_path / "plain.npz", indices=np.arange(3 * 49, dtype=np.uint8).reshape(3, 7, 7) % 16)
    command = [f"--workdir={trained_run}", f"--decode={tmp_path / 'plain.npz'}"]
    for out in ("a.png", "folder", "a.npz"):
        assert run_command(*command, f"--out={tmp_path / out}") == 0
        assert "no gains, so the decoder sees the plain codes" in capsys.readouterr().out
    assert sorted(file.name for file in (tmp_path / "folder").iterdir()) == [f"{i:06d}.png" for i in range(3)]
    assert Image.open(tmp_path / "a.png").size[0] > 28
    found = arrays(tmp_path / "a.npz")
    run = TrainedRun.load(trained_run)
    codes = np.asarray(autoencoder.codes(run.model, run.variables))
    np.testing.assert_array_equal(found["latents"], codes[found["indices"]])
    np.savez(tmp_path / "latents.npz", latents=found["latents"])
    assert run_command(command[0], f"--decode={tmp_path / 'latents.npz'}", f"--out={tmp_path / 'b.npz'}") == 0
    assert_nearly_equal(arrays(tmp_path / "b.npz")["images"], found["images"])


def test_names_in_a_file_stay_in_the_folder(trained_run, tmp_path):
    names = np.array(["../../a.png", "/etc/b", "c/d.png"])
    np.savez(tmp_path / "codes.npz", indices=np.zeros((3, 7, 7), int), names=names)
    command = [f"--workdir={trained_run}", f"--decode={tmp_path / 'codes.npz'}"]
    assert run_command(*command, f"--out={tmp_path / 'out'}") == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [".._.._a.png", "_etc_b.png", "c_d.png"]


ZEROS = np.zeros((2, 7, 7), int)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"indices": ZEROS + 16}, "indices: must be from 0 to 15; they are from 16 to 16"),
        ({"indices": ZEROS - 1}, "indices: must be from 0 to 15"),
        ({"indices": ZEROS + 0.5}, "indices: must be integers; the dtype is float64"),
        ({"indices": np.zeros((2, 8, 8), int)}, "indices: must be [N, 7, 7]; the shape is (2, 8, 8)"),
        ({"indices": np.zeros((2, 7, 7, 2), int)}, "indices: must be [N, 7, 7]"),
        ({"indices": ZEROS, "gains": np.ones((2, 7, 7, 4))}, "gains: must be [N, 7, 7]; the shape is (2, 7, 7, 4)"),
        ({"indices": ZEROS, "gains": np.full((2, 7, 7), np.nan)}, "gains: must be finite everywhere"),
        ({"indices": ZEROS, "gains": np.ones((3, 7, 7))}, "gains: there are 3, but 2 indices"),
        ({"indices": ZEROS, "residuals": np.ones((2, 7, 7, 8))}, "residuals: the decoder sees none in the latent"),
        ({"indices": ZEROS, "latents": np.full((2, 7, 7, 8), 9.0)}, "latents: differ by up to"),
        ({"latents": np.zeros((2, 7, 7, 9))}, "latents: must be [N, 7, 7, 8]"),
        ({"indices": ZEROS, "names": np.array(["a"])}, "names: must be [2]; the shape is (1,)"),
        ({"indices": ZEROS, "lengths": np.ones((2, 7, 7, 1))}, "has lengths, of a run without an autoencoder"),
        ({"indices": ZEROS, "autoencoder": np.array("0123")}, "is of another autoencoder (autoencoder=0123) than that"),
        ({"codes": ZEROS}, "has neither indices nor latents; it has codes"),
        ({}, "has neither indices nor latents; it has no arrays"),
    ],
)
def test_what_does_not_fit_the_run_is_one_line(trained_run, tmp_path, capsys, content, says):
    np.savez(tmp_path / "given.npz", **content)
    (tmp_path / "out.npz").write_text("before")
    command = [f"--workdir={trained_run}", f"--decode={tmp_path / 'given.npz'}", f"--out={tmp_path / 'out.npz'}"]
    line = error_of(capsys, *command)
    assert says in line
    assert "given.npz" in line
    assert (tmp_path / "out.npz").read_text() == "before"


def test_files_that_cannot_be_read(trained_run, written, tmp_path, capsys):
    out = f"--out={tmp_path / 'out.npz'}"
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes((written / "sample.npz").read_bytes()[:-200])
    assert "cannot be read" in error_of(capsys, f"--workdir={trained_run}", f"--decode={damaged}", out)
    content = bytearray((written / "sample.npz").read_bytes())
    where = content.index(b"indices.npy") + 300
    content[where] ^= 255
    damaged.write_bytes(content)
    assert "cannot be read" in error_of(capsys, f"--workdir={trained_run}", f"--decode={damaged}", out)
    missing = tmp_path / "missing.npz"
    assert "cannot be read" in error_of(capsys, f"--workdir={trained_run}", f"--decode={missing}", out)
    replaced = error_of(capsys, f"--workdir={trained_run}", f"--decode={damaged}", f"--out={damaged}")
    assert "would replace one of the given" in replaced
    drawn = error_of(capsys, f"--workdir={trained_run}", f"--decode={damaged}", out, "--seed=1")
    assert "--seed does not apply to --decode, which draws nothing" in drawn


LATENT = LatentOptions(num_codes=8, num_frequent=3, dim=4)


def in_memory(tmp_path, codebook=None, **latent):
    """Return a run of random arrays that was never trained."""
    options = RunOptions(
        latent=dataclasses.replace(LATENT, **latent),
        codebook=codebook or CodebookOptions(),
        network=NetworkOptions(num_blocks=0, width=4),
        stage="autoencoder",
    )
    model = options.autoencoder_model((8, 12, 1))
    variables = jax.jit(partial(autoencoder.init, model))(jax.random.key(0))
    frequency = variables.state.quantizer.frequency
    frequency = frequency + np.arange(frequency.shape[-1], dtype=np.float32)
    quantizer = dataclasses.replace(variables.state.quantizer, frequency=frequency)
    model_state = dataclasses.replace(variables.state, quantizer=quantizer)
    state = TrainState(np.int32(1), variables.params, model_state, None, None)
    return TrainedRun(tmp_path, options, model.image_shape, None, (), given_autoencoder=state)


@pytest.mark.parametrize(
    ("latent", "codebook", "codes_alone"),
    [
        ({"mode": "vq"}, CodebookOptions(), True),
        ({"mode": "projected", "projection_groups": 2}, CodebookOptions(), True),
        ({"mode": "combined", "projection_groups": 4}, CodebookOptions(unit_norm="both"), True),
        ({"mode": "frequency"}, CodebookOptions(), False),
        ({"mode": "vq"}, CodebookOptions(family="residual", depth=3), True),
        ({"mode": "vq"}, CodebookOptions(family="fsq", levels=(3, 4)), True),
    ],
    ids=["vq", "gains in groups", "masked gains", "masked z_e", "residual", "fsq"],
)
def test_latents_of_every_kind_are_decoded(tmp_path, latent, codebook, codes_alone):
    run = in_memory(tmp_path, codebook, **latent)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 1), np.uint8)
    (given,), (encoded,) = run.reconstruct(images), run.encode(images)
    everything = {name: x for name, x in vars(given).items() if x is not None}
    forms = [everything, {"latents": given.latents}]
    codes = {"indices": given.indices, "gains": given.gains}
    forms += [codes] if codes_alone else [{**codes, "residuals": encoded.residuals}]
    for form in forms:
        np.savez(tmp_path / "codes.npz", **form)
        (found,) = decoded(run, read_codes(tmp_path / "codes.npz", run))
        np.testing.assert_allclose(found.latents, given.latents, atol=1e-5)
        assert_nearly_equal(found.images, given.images)
    changed = {**everything, "indices": (given.indices + 1) % 3}
    np.savez(tmp_path / "codes.npz", **changed)
    if latent["mode"] != "frequency":  # where most codes say nothing about the latents
        with pytest.raises(UserError, match="latents: differ by up to"):
            read_codes(tmp_path / "codes.npz", run)
