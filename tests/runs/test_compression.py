"""`compress.py` from the outside, and its library functions, on the tiny trained run."""

import dataclasses
import os

import numpy as np
import pytest
from PIL import Image

import compress as command
import hvq_jax as hvq
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.runs import codec_fingerprint
from hvq_jax.runs.compression import RunCodec, compress, decompress
from hvq_jax.runs.trained import TrainedRun

pytest.importorskip("constriction", reason="compression is optional")


def run(*arguments):
    return command.main([str(a) for a in arguments])


def error_of(capsys, *arguments):
    assert run(*arguments) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1, line
    return line


@pytest.fixture(scope="module")
def trained(trained_run):
    return TrainedRun.load(trained_run)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def data(trained, images):
    return compress(trained, images, np.array([3, -1, 0]))


def test_images_return_as_the_run_transmits_them(trained, images, data):
    result = decompress(trained, data)
    ((tokens, decoded),) = trained.transmit(images)
    np.testing.assert_array_equal(result.tokens, tokens)
    np.testing.assert_array_equal(result.images, decoded.images)
    np.testing.assert_array_equal(result.labels, [3, -1, 0])


def test_a_loaded_run_compresses_what_its_other_methods_take(trained_run, images, data):
    loaded = hvq.load(trained_run)
    floats = loaded.compress(images / 255.0, ["Dress", None, 0], value_range=(0, 1))
    result = loaded.decompress(floats)
    np.testing.assert_array_equal(result.labels, [3, -1, 0])
    np.testing.assert_array_equal(result.indices, loaded.encode(images).indices)
    assert loaded.decompress(loaded.compress(images[0])).images.shape == (1, 28, 28, 1)
    with pytest.raises(ArgumentError, match=r"^labels"):
        loaded.compress(images, "Hat")
    with pytest.raises(UserError, match=r"is not an \.hvq file"):
        loaded.decompress(b"PNG" + data)


def test_a_portable_file_returns_and_costs_no_more(trained, images, data):
    portable = compress(trained, images, np.array([3, -1, 0]), portable=True)
    np.testing.assert_array_equal(decompress(trained, portable).tokens, decompress(trained, data).tokens)
    assert abs(len(portable) - len(data)) <= 1


def test_flipped_bits_and_truncations_never_return_other_images(trained, images):
    data = compress(trained, images[:1])
    rng = np.random.default_rng(0)
    damaged = [data[: rng.integers(len(data))] for _ in range(5)]
    for bit in rng.choice(8 * len(data), 25, replace=False):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(flipped))
    for content in damaged:
        with pytest.raises(UserError, match=r"^(is|was written in) "):
            decompress(trained, content)


def test_a_file_of_another_run_or_environment_is_refused_by_name(trained, data, monkeypatch):
    other = dataclasses.replace(trained, class_names=("a", *trained.class_names[1:]))
    with pytest.raises(UserError, match="is of another run"):
        decompress(other, data)
    monkeypatch.setenv("XLA_FLAGS", f"{os.environ['XLA_FLAGS']} --xla_cpu_use_fusion_emitters=true")
    with pytest.raises(UserError, match=r"another environment \(the options of XLA differ\)"):
        decompress(trained, data)
    monkeypatch.setattr(codec_fingerprint, "processor", lambda: "another")
    with pytest.raises(UserError, match="the kind of CPU, the options of XLA"):
        decompress(trained, data)


def test_a_block_that_does_not_come_back_is_not_handed_out(trained, images, monkeypatch):
    codec = RunCodec(trained)
    (tokens,) = codec.tokens_of(images)
    monkeypatch.setattr(type(codec.codec), "decode", lambda *_: (tokens + 1, None))
    with pytest.raises(UserError, match="did not decode to what it was made from"):
        list(codec.compressed([tokens], np.full(3, -1)))


def test_arguments_are_checked(trained, images):
    for wrong in (images[:0], images[:, :8], images.astype(np.int32), images / 255.0):
        with pytest.raises(ArgumentError, match=r"^images: "):
            compress(trained, wrong)
    with pytest.raises(ArgumentError, match=r"^labels=10: must be from -1 to 9"):
        compress(trained, images, np.array([0, 1, 10]))


def test_files_there_and_back(trained_run, images, tmp_path, capsys):
    workdir = f"--workdir={trained_run}"
    for number, image in enumerate(images):
        folder = tmp_path / "images" / ("Dress" if number else "other")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(folder / f"{number}.png")
    assert run(workdir, f"--compress={tmp_path / 'images'}", f"--out={tmp_path / 'all.hvq'}") == 0
    assert "3 images in" in capsys.readouterr().out
    assert run(workdir, f"--decompress={tmp_path / 'all.hvq'}", f"--out={tmp_path / 'all.npz'}") == 0
    with np.load(tmp_path / "all.npz") as stored:
        returned = stored["images"]
        np.testing.assert_array_equal(stored["labels"], [3, 3, -1])  # Dress/1, Dress/2, other/0
        assert stored["indices"].shape == (3, 7, 7)
    # One file for each, of an .npz; and all of them back to PNGs.
    np.savez(tmp_path / "some.npz", images=images[:2], labels=[3, 3])
    assert run(workdir, f"--compress={tmp_path / 'some.npz'}", f"--out={tmp_path / 'files'}/", "--portable") == 0
    assert run(workdir, f"--decompress={tmp_path / 'files'}", f"--out={tmp_path / 'pngs'}") == 0
    assert sorted(os.listdir(tmp_path / "pngs")) == ["000000.png", "000001.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "pngs" / "000001.png")), returned[0, ..., 0])
    # Without headers it is shorter, and cannot be read.
    assert run(workdir, f"--compress={tmp_path / 'images'}", f"--out={tmp_path / 'bare.hvq'}", "--bare") == 0
    assert (tmp_path / "bare.hvq").stat().st_size < (tmp_path / "all.hvq").stat().st_size - 12
    line = error_of(capsys, workdir, f"--decompress={tmp_path / 'bare.hvq'}", f"--out={tmp_path / 'b.npz'}")
    assert "bare.hvq is not an .hvq file" in line
    capsys.readouterr()
    assert run(f"--info={tmp_path / 'all.hvq'}", workdir) == 0
    assert "can be read with" in capsys.readouterr().out


def test_bad_commands_are_one_line_and_leave_nothing(trained_run, data, tmp_path, capsys):
    workdir, out = f"--workdir={trained_run}", tmp_path / "out.npz"
    file = tmp_path / "a.hvq"
    file.write_bytes(data[:-1])
    for arguments, message in (
        ([workdir, f"--decompress={file}", f"--out={out}"], "a.hvq is damaged: it ends early"),
        ([workdir, f"--decompress={tmp_path / 'none.hvq'}", f"--out={out}"], "No such file"),
        ([workdir, f"--decompress={file}", f"--out={out.with_suffix('.png')}"], "do not go into one .png"),
        ([workdir, f"--decompress={file}", f"--out={out}", "--portable"], "--portable is for compressing"),
        ([workdir, f"--decompress={tmp_path}"], "--out is required"),
        ([f"--info={file}", f"--out={out}"], "--out does not apply to --info"),
        ([f"--decompress={file}", f"--out={out}"], "--workdir is required"),
        ([workdir, f"--compress={file}", f"--out={tmp_path / 'b.hvq'}"], "cannot be read as an image"),
        ([workdir, f"--compress={tmp_path}", f"--out={tmp_path / 'b.hvq'}"], "no .png"),
        ([workdir, f"--compress={file}", f"--out={out}"], "must end in .hvq"),
        ([workdir, "--split=test", f"--out={tmp_path / 'b.hvq'}", "--label=3", "--no-labels"], "omit one of them"),
        ([workdir, f"--compress={file}", f"--out={tmp_path / 'b.hvq'}", "--label=nothing"], "--label=nothing"),
    ):
        assert message in error_of(capsys, *arguments)
    assert os.listdir(tmp_path) == ["a.hvq"]
