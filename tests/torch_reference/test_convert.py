"""The golden weights of the reference, as a run: its reconstructions are the reference's own."""

import os
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import convert
import sample
import train
from hvq_jax import autoencoder
from hvq_jax.autoencoder import ModelState, Variables
from hvq_jax.errors import UserError
from hvq_jax.images import to_float, to_uint8
from hvq_jax.quantizers.bottleneck import QuantizerState
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.torch_reference.state_dict import read_state_dict
from hvq_jax.torch_reference.weights import autoencoder_from_torch

GOLDEN = "tests/golden"


def state_dict(name):
    with np.load(f"{GOLDEN}/{name}.npz") as golden:
        return {key.removeprefix("param/"): golden[key] for key in golden.files if key.startswith("param/")}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch")
    np.savez(folder / "autoencoder.npz", **state_dict("vqvae_c1_28_d16_k32"))
    np.savez(folder / "colour.npz", **state_dict("vqvae_c3_32_d16_k32"))
    np.savez(folder / "prior.npz", **state_dict("pixelcnn_k32_d16_l4_7x7"))
    return folder


@pytest.fixture(scope="module")
def on_data(tiny_arguments):
    """Options that choose the data set which is prepared for all tests: preparing another one prints lines."""
    return [argument for argument in tiny_arguments if argument.startswith("--config.data.")]


def arguments(files, on_data, workdir, autoencoder="autoencoder.npz"):
    return [
        "--config=configs/reference.py:vq",
        f"--workdir={workdir}",
        f"--autoencoder={files / autoencoder}",
        *on_data,
        "--config.sampling.per_class=1",
    ]


@pytest.fixture(scope="module")
def converted(files, on_data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("converted") / "run"
    assert convert.main([*arguments(files, on_data, workdir), f"--prior={files / 'prior.npz'}"]) == 0
    return workdir


def test_a_converted_run_reconstructs_as_the_reference_does(converted):
    with np.load(f"{GOLDEN}/vqvae_c1_28_d16_k32.npz") as golden:
        x = np.asarray(to_uint8(golden["x"].transpose(0, 2, 3, 1)))
    trees = autoencoder_from_torch(state_dict("vqvae_c1_28_d16_k32"))
    variables = Variables(trees["params"], ModelState(trees["batch_stats"], QuantizerState(jnp.zeros(32))))
    run = TrainedRun.load(converted)
    drawn = next(run.reconstruct(x))
    codes = autoencoder.codes(run.model, run.variables)
    np.testing.assert_array_equal(codes, state_dict("vqvae_c1_28_d16_k32")["codebook.embedding.weight"])
    # test_weights.py holds this function to the reference's golden images; compiled for another batch size, a
    # pixel may round to the neighbouring of its 256 levels.
    reconstruct = jax.jit(lambda x: to_uint8(autoencoder.reconstruct(run.model, variables, to_float(x))))
    expected = np.asarray(reconstruct(x), int)
    assert np.abs(drawn.images - expected).max() <= 1


def test_train_evaluates_it_and_sample_draws_from_it(converted, tmp_path, capsys):
    assert train.main([f"--workdir={converted}"]) == 0
    out = capsys.readouterr().out
    assert "step 1/" not in out  # nothing was trained
    assert "on the test split" in out
    assert sample.main([f"--workdir={converted}", "--num_samples=3", f"--out={tmp_path / 'grid.png'}"]) == 0
    assert Image.open(tmp_path / "grid.png").size[0] > 28


class Tensor:
    """Stands for torch.Tensor, as far as it is used: torch is not installed where the tests run."""

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    def numpy(self):
        if isinstance(self.array, Exception):
            raise self.array
        return self.array


def put_torch(monkeypatch, content):
    """Let `torch.load` return `content`, or raise it."""

    def load(file, *, map_location, weights_only):
        assert file.read(1) != b""
        assert map_location == "cpu"
        assert weights_only is True
        if isinstance(content, Exception):
            raise content
        return content

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load))


def test_a_pt_file_is_read_as_weights_only(files, on_data, tmp_path, monkeypatch, capsys):
    (tmp_path / "best.pt").write_bytes(bytes(2**20))
    put_torch(monkeypatch, {key: Tensor(array) for key, array in state_dict("vqvae_c1_28_d16_k32").items()})
    command = arguments(tmp_path, on_data, tmp_path / "run", "best.pt")
    assert convert.main(command) == 0
    assert (tmp_path / "run" / "checkpoints" / "autoencoder" / "1").is_dir()
    assert convert.main(command) == 1
    assert "already holds a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (EOFError(), "is not a state dict: EOFError: it is empty or cut off"),
        (
            RuntimeError("failed finding central directory. This is\nlong"),
            "RuntimeError: failed finding central directory",
        ),
        (
            ValueError("Weights only load failed.\nUnsupported global: GLOBAL numpy.core.x was not an allowed global"),
            "it needs the Python object numpy.core.x; save the module's state_dict() alone",
        ),
        ([], "is not a state dict: it holds a list"),
        ({"a.weight": 3.0}, "a.weight is of type float, no tensor"),
        ({"model": {"a": Tensor(np.ones(3))}}, "model is of type dict, no tensor"),
        ({"a": Tensor(TypeError("unsupported ScalarType"))}, "a cannot be used: TypeError: unsupported ScalarType"),
        (
            {"a": Tensor(np.broadcast_to(np.float32(0), (10**9, 10**9)))},
            "a of shape (1000000000, 1000000000) is larger",
        ),
    ],
)
def test_a_pt_file_of_anything_else_is_refused(tmp_path, monkeypatch, content, says):
    (tmp_path / "a.pt").write_bytes(b"stands for a checkpoint")
    put_torch(monkeypatch, content)
    with pytest.raises(UserError) as caught:
        read_state_dict(str(tmp_path / "a.pt"))
    assert str(caught.value).startswith(f"{tmp_path / 'a.pt'}")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.pt", "a.npz"])
def test_nothing_but_a_regular_file_is_opened(tmp_path, monkeypatch, name):
    put_torch(monkeypatch, {})
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=f"{name} cannot be read: it is a named pipe"):
        read_state_dict(str(tmp_path / name))


def refused(command, capsys):
    assert convert.main(command) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_bad_files_get_one_line(files, on_data, tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "run"
    assert "no such file" in refused(arguments(files, on_data, workdir, "absent.npz"), capsys)
    assert "missing" in refused(arguments(files, on_data, workdir)[:2], capsys)
    (tmp_path / "text.npz").write_text("not arrays")
    assert "is not a state dict" in refused(arguments(tmp_path, on_data, workdir, "text.npz"), capsys)
    assert "another number of channels" in refused(arguments(files, on_data, workdir, "colour.npz"), capsys)
    wrong = refused(arguments(files, on_data, tmp_path / "other", "prior.npz"), capsys)
    assert "encoder.0.weight" in wrong or "embedding.weight" in wrong
    broken = state_dict("vqvae_c1_28_d16_k32")
    broken["encoder.1.running_var"] = -broken["encoder.1.running_var"]
    np.savez(tmp_path / "broken.npz", **broken)
    line = refused(arguments(tmp_path, on_data, tmp_path / "other", "broken.npz"), capsys)
    assert f"--autoencoder={tmp_path / 'broken.npz'}: not a model of the reference: encoder.1.running_var must" in line
    assert not (tmp_path / "other").exists()
    (tmp_path / "model.pt").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "needs torch" in refused(arguments(tmp_path, on_data, workdir, "model.pt"), capsys)


@pytest.mark.parametrize("flag", ["--plan", "--quiet", "--profile=3", "--process_id=0"])
def test_flags_of_training_are_refused(files, on_data, tmp_path, capsys, flag):
    name = flag.partition("=")[0]
    line = refused([*arguments(files, on_data, tmp_path), flag], capsys)
    assert line == f"error: {name} is for train.py, and this trains nothing: omit it\n"
