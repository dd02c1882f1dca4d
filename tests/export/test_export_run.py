"""`export.py` from the outside, and `load_exported`, on the tiny trained run."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import export
import hvq_jax as hvq
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.export import run as export_command
from hvq_jax.extras import install_command
from hvq_jax.runs.trained import TrainedRun

pytest.importorskip("flatbuffers")


def run(*arguments):
    return export.main([str(a) for a in arguments])


def error_of(capsys, *arguments):
    assert run(*arguments) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1, line
    return line


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory):
    """The folder of the tiny run in JAX's format, for this machine and another kind."""
    folder = tmp_path_factory.mktemp("exports") / "jax"
    assert run(f"--workdir={trained_run}", "--format=jax", "--platforms=cpu,tpu", f"--out={folder}") == 0
    return folder


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)


def test_a_process_without_hvq_jax_runs_the_programs(exported, trained_run, images, tmp_path):
    """The lines are those of the folder's README."""
    readme = (exported / "README.md").read_text()
    lines = readme.split("```python\n")[1].split("```")[0].replace("FOLDER", str(exported))
    lines = lines.replace("np.zeros((3, 28, 28, 1), np.uint8)", "np.load('given.npy')")
    np.save(tmp_path / "given.npy", images)
    program = (
        "import sys; sys.modules['hvq_jax'] = None\n" + lines + "np.savez('made.npz', decoded=images, **codes, "
        "**{f'drawn_{name}': values for name, values in drawn.items()})\n"
        "print(sorted(name for name in ('hvq_jax.latents', 'flax', 'orbax') if name in sys.modules))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
    made = np.load(tmp_path / "made.npz")
    trained = TrainedRun.load(trained_run)
    own = next(trained.reconstruct(images))
    np.testing.assert_array_equal(made["indices"], own.indices)
    np.testing.assert_allclose(made["gains"], own.gains, rtol=1e-5)
    assert np.abs(made["decoded"].astype(int) - own.images).max() <= 1  # another batch size: other rounding
    drawn = next(trained.sample(np.zeros(8, np.int32), seed=1))
    np.testing.assert_array_equal(made["drawn_indices"], drawn.indices)
    assert np.abs(made["drawn_images"].astype(int) - drawn.images).max() <= 1


def test_an_exported_run_in_use(exported, trained_run, images):
    opened = hvq.load_exported(exported)
    codes = opened.encode(images)
    decoded = opened.decode(**codes)
    assert decoded.dtype == np.uint8
    assert decoded.shape == images.shape
    np.testing.assert_array_equal(opened.decode(codes["indices"][1:2], codes["gains"][1:2]).shape, (1, 28, 28, 1))
    drawn = opened.sample([3, 2], seed=2**32 - 1)
    own = next(TrainedRun.load(trained_run).sample(np.array([3, 2], np.int32), seed=2**32 - 1))
    np.testing.assert_array_equal(drawn["indices"], own.indices)
    np.testing.assert_allclose(drawn["gains"], own.gains, rtol=1e-5)
    manifest = opened.manifest
    assert manifest["class_names"][3] == "Dress"
    assert manifest["steps"].keys() == {"autoencoder", "prior"}
    assert manifest["programs"]["decoder"]["arguments"] == manifest["programs"]["encoder"]["results"]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda run, images: run.encode(images / 255.0), "images: must be uint8, not float64"),
        (lambda run, images: run.encode(images[0]), r"images: must have the shape \[N, 28, 28, 1\]"),
        (lambda run, images: run.encode(images[:0]), "N at least 1"),
        (lambda run, images: run.decode(**_codes(indices=16)), "indices: must be from 0 to 15, not 16"),
        (lambda run, images: run.decode(**_codes(indices=-1)), "indices: must be from 0 to 15, not -1"),
        (lambda run, images: run.decode(_codes()["indices"]), "gains: is missing"),
        (lambda run, images: run.decode(**_codes(), residuals=0), "residuals: is not taken"),
        (lambda run, images: run.decode(_codes()["indices"], np.ones((2, 7, 7))), "the same number of images"),
        (lambda run, images: run.sample([10]), "labels: must be from -1 to 9, not 10"),
        (lambda run, images: run.sample([0], seed=-1), "seed: must be from 0"),
        (lambda run, images: run.sample([0], seed=0.5), "seed: must be uint32"),
    ],
)
def test_what_a_program_does_not_take(exported, images, call, says):
    with pytest.raises(ArgumentError, match=says):
        call(hvq.load_exported(exported), images)


def _codes(indices=0):
    return {"indices": np.full((1, 7, 7), indices), "gains": np.ones((1, 7, 7))}


def changed(exported, folder, **changes):
    shutil.copytree(exported, folder)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name, value in changes.items():
        section = manifest["jax"] if name in manifest["jax"] else manifest
        section[name] = value
    path.write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"calling_convention_version": 999, "version": "9.9.9"}, r'exported with JAX 9\.9\.9.*pip install "jax==9'),
        ({"calling_convention_version": 1}, "calling convention 1"),
        ({"platforms": ["tpu"]}, "exported for tpu, and this process uses cpu: set JAX_PLATFORMS=tpu, or export it"),
        ({"format": 2}, "is in format 2, and this version of hvq_jax reads 1"),
        ({"kind": "onnx"}, "has programs for onnx"),
        ({"programs": None}, "cannot be read"),
    ],
)
def test_a_folder_that_cannot_be_used_here(exported, tmp_path, changes, says):
    with pytest.raises(UserError, match=says) as error:
        hvq.load_exported(changed(exported, tmp_path / "copy", **changes))
    assert "\n" not in str(error.value)


def test_a_program_of_another_jax(exported, tmp_path):
    """One whose file is whole, but means nothing to this version."""
    folder = changed(exported, tmp_path / "copy", version="0.1")
    manifest = json.loads((folder / "manifest.json").read_text())
    content = (folder / "encoder.jax").read_bytes()[::-1]
    (folder / "encoder.jax").write_bytes(content)
    manifest["programs"]["encoder"]["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"exported with JAX 0\.1, and this JAX, .*, cannot read it"):
        hvq.load_exported(folder)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "encoder.jax").unlink(), "encoder.jax does not exist"),
        (lambda folder: (folder / "decoder.jax").write_bytes(b"no program"), "decoder.jax is damaged"),
        (lambda folder: (folder / "manifest.json").unlink(), "is no exported run"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "cannot be read"),
    ],
)
def test_a_damaged_folder(exported, tmp_path, damage, says):
    damage(changed(exported, tmp_path / "copy"))
    with pytest.raises(UserError, match=says):
        hvq.load_exported(tmp_path / "copy")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--format=pickle"], "--format=pickle: choose one of jax, safetensors, onnx"),
        ([], "--format"),
        (["--format=jax", "--platforms=gpu"], "--platforms=gpu: choose one of cpu, cuda, rocm, tpu"),
        (["--format=safetensors", "--platforms=cpu"], "--platforms: is for --format=jax"),
        (["--format=onnx", "--temperature=0.5"], "--temperature: is for --format=jax"),
        (["--format=jax", "--temperature=-1"], "--temperature=-1.0: must be at least 0"),
        (["--format=jax", "--out=/nonexistent/a"], "--out=/nonexistent/a: the folder does not exist"),
    ],
)
def test_bad_input_gets_one_line(trained_run, tmp_path, arguments, says, capsys):
    line = error_of(capsys, f"--workdir={trained_run}", f"--out={tmp_path / 'out'}", *arguments)
    assert says in line
    assert not list(tmp_path.iterdir())


def test_what_is_there_stays(trained_run, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    to = [f"--workdir={trained_run}", "--format=jax"]
    assert "already exists and is not an empty folder" in error_of(capsys, *to, f"--out={tmp_path / 'full'}")
    assert "would replace what belongs to the run" in error_of(capsys, *to, f"--out={trained_run / 'checkpoints'}")
    assert "no run in" in error_of(capsys, f"--workdir={tmp_path}", "--format=jax", f"--out={tmp_path / 'b'}")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_package_that_is_missing(trained_run, tmp_path, monkeypatch, capsys):
    to = [f"--workdir={trained_run}", f"--out={tmp_path / 'out'}"]
    missing = (("flatbuffers", "jax", "export"), ("safetensors", "safetensors", "export"), ("jax2onnx", "onnx", "onnx"))
    for name, format, extra in missing:
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, "jax._src.export.serialization", None)
        monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
        assert f"package {name}: {install_command(extra)}" in error_of(capsys, *to, f"--format={format}")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def prior_alone(trained_run):
    """The tiny run as one over latents of one's own."""
    return dataclasses.replace(TrainedRun.load(trained_run), image_shape=None, own_latent_shape=(7, 7))


def test_a_prior_alone_draws_latents(prior_alone, tmp_path):
    assert hvq.export_run(prior_alone, tmp_path / "a", platforms=("cpu",)) == [
        "README.md",
        "manifest.json",
        "sampler.jax",
    ]
    opened = hvq.load_exported(tmp_path / "a")
    own = next(prior_alone.sample_latents(np.array([3, 2], np.int32), seed=5))
    drawn = opened.sample([3, 2], seed=5)
    assert drawn.keys() == {"indices", "lengths"}
    np.testing.assert_array_equal(drawn["indices"], own.indices)
    np.testing.assert_allclose(drawn["lengths"], own.lengths)
    with pytest.raises(UserError, match="has no encoder: it has sampler"):
        opened.encode(np.zeros((1, 28, 28, 1), np.uint8))


def test_a_prior_alone_is_no_onnx_model(prior_alone, tmp_path, monkeypatch):
    monkeypatch.setattr(export_command, "check_packages", lambda: None)
    with pytest.raises(UserError, match="no autoencoder to convert: choose --format=safetensors"):
        hvq.export_run(prior_alone, tmp_path / "a", "onnx")


def test_options_of_sampling_that_this_prior_cannot_follow(trained_run, tmp_path):
    always = TrainedRun.load(trained_run)
    always = dataclasses.replace(
        always,
        options=dataclasses.replace(always.options, prior=dataclasses.replace(always.options.prior, label_dropout=0.0)),
    )
    with pytest.raises(ArgumentError, match=r"guidance=0\.5: this run's prior always saw the class"):
        hvq.export_run(always, tmp_path / "a", sampling=hvq.SamplingOptions(guidance=0.5))
    assert not list(tmp_path.iterdir())
