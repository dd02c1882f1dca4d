"""`sample.py` from the outside, on the tiny trained run."""

import dataclasses
import functools
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import sample
import train
from hvq_jax import autoencoder
from hvq_jax.devices import side_by_side
from hvq_jax.errors import UserError
from hvq_jax.priors.sampling import CodeSamplingOptions, SamplingOptions, all_codes, top_rows
from hvq_jax.runs.trained import TrainedRun


def run(*arguments):
    return sample.main([str(a) for a in arguments])


def error_of(capsys, *arguments):
    assert run(*arguments) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1, line
    return line


def arrays(path):
    with np.load(path) as stored:
        return dict(stored)


def test_a_grid_and_its_latents(trained_run, tmp_path, capsys):
    workdir = f"--workdir={trained_run}"
    assert run(workdir, "--num_samples=5", "--label=3", "--seed=1", f"--out={tmp_path / 'grid.png'}") == 0
    assert "positions use one of 16 gains" in capsys.readouterr().out
    assert min(Image.open(tmp_path / "grid.png").size) > 28
    assert run(workdir, "--num_samples=5", "--label=Dress", "--seed=1", f"--out={tmp_path / 'a.npz'}") == 0
    found = arrays(tmp_path / "a.npz")
    assert found["images"].shape == (5, 28, 28, 1)
    np.testing.assert_array_equal(found["labels"], [3] * 5)
    assert found["class_names"][3] == "Dress"
    assert found["indices"].shape == found["gains"].shape == (5, 7, 7)
    assert found["latents"].shape == (5, 7, 7, 8)
    trained = TrainedRun.load(trained_run)
    codes = np.asarray(autoencoder.codes(trained.model, trained.variables))[found["indices"]]
    np.testing.assert_allclose(found["latents"], found["gains"][..., None] * codes, rtol=1e-6)
    lengths = found["gains"] * np.linalg.norm(codes, axis=-1)
    bins = np.asarray(trained.tables.centroids)[found["indices"]]  # [..., 16]
    np.testing.assert_allclose(np.abs(bins - lengths[..., None]).min(-1), 0, atol=1e-5)


def test_every_latent_of_a_run_has_the_name_of_its_image(trained_run):
    stored = arrays(trained_run / "latents.npz")
    names = {split: stored[f"{split}_names"].tolist() for split in ("train", "validation", "test")}
    assert [len(names[split]) for split in names] == [len(stored[f"{split}_labels"]) for split in names]
    assert sorted(names["train"] + names["validation"]) == sorted(f"train/{number}" for number in range(640))
    assert names["test"] == [f"test/{number}" for number in range(128)]


def test_a_sample_depends_on_its_seed_and_number_only(trained_run):
    trained = TrainedRun.load(trained_run)

    def images(count, **options):
        labels = np.full(count, 2, np.int32)
        return np.concatenate([piece.images for piece in trained.sample(labels, **options)])

    many = images(70, seed=1)  # two pieces
    np.testing.assert_array_equal(images(3, seed=1), many[:3])
    assert (images(3, seed=2) != many[:3]).any()
    greedy = images(2, seed=1, options=SamplingOptions(temperature=0, continuous_temperature=0))
    np.testing.assert_array_equal(greedy[0], greedy[1])


def test_the_number_of_cores_changes_no_sample(trained_run, monkeypatch):
    trained, found = TrainedRun.load(trained_run), []
    labels = np.arange(70, dtype=np.int32) % 10
    tokens = np.zeros((70, 7, 7, trained.prior.num_channels), np.int32)
    for cores in (1, 2):
        monkeypatch.setattr(side_by_side, "number_of_cores", lambda cores=cores: cores)
        pieces = trained.sample(labels, seed=3, tokens=tokens, keep=functools.partial(top_rows, rows=2))
        found.append(np.concatenate([piece.indices for piece in pieces]))
    np.testing.assert_array_equal(*found)
    assert not found[0][:, :2].any()
    assert found[0][:, 2:].any()


def test_an_image_completed_and_varied(trained_run):
    trained = TrainedRun.load(trained_run)
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    tokens, transmitted = next(trained.transmit(images))
    assert tokens.shape == (3, 7, 7, 2)
    reconstructed = next(trained.reconstruct(images))
    np.testing.assert_array_equal(transmitted.indices, reconstructed.indices)
    assert np.abs(transmitted.gains - reconstructed.gains).max() > 0  # rounded to bins
    labels = np.array([0, 1, -1], np.int32)
    completed = next(trained.sample(labels, tokens=tokens, keep=functools.partial(top_rows, rows=3)))
    np.testing.assert_array_equal(completed.latents[:, :3], transmitted.latents[:, :3])
    assert (completed.indices[:, 3:] != transmitted.indices[:, 3:]).any()
    varied = next(trained.sample(labels, tokens=tokens, keep=all_codes))
    np.testing.assert_array_equal(varied.indices, transmitted.indices)
    assert (varied.gains != transmitted.gains).any()


def test_completions_and_variations_of_image_files(trained_run, tmp_path, capsys):
    image = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    workdir, label = f"--workdir={trained_run}", "--label=2"
    for what in (["--complete=" + str(tmp_path / "a.png"), "--rows=2"], ["--vary=" + str(tmp_path / "a.png")]):
        assert run(workdir, *what, "--num_samples=3", label, f"--out={tmp_path / 'out.png'}") == 0
        width, height = Image.open(tmp_path / "out.png").size
        assert width > 5 * 28 > height / 2
        assert run(workdir, *what, "--num_samples=3", label, f"--out={tmp_path / 'out.npz'}") == 0
        found = arrays(tmp_path / "out.npz")
        assert list(found["names"]) == ["a.png"] * 3
        kept = found["indices"][:, :2] if "--rows=2" in what else found["indices"]
        np.testing.assert_array_equal(kept, np.broadcast_to(kept[:1], kept.shape))
        assert (found["gains"][0] != found["gains"][1]).any()
    capsys.readouterr()
    vary = [f"--vary={tmp_path / 'a.png'}", "--num_samples=2", label, f"--out={tmp_path / 'out.npz'}"]
    assert run(workdir, *vary, "--proposals=4") == 0
    assert "effective number of the 4 proposals: " in capsys.readouterr().out
    found = arrays(tmp_path / "out.npz")
    assert ((found["effective_proposals"] >= 1) & (found["effective_proposals"] <= 4.001)).all()
    for arguments, says in (
        (["--complete=a.png", "--rows=8"], "--rows=8: must be from 0 to 7"),
        (["--vary=a.png", "--rows=2"], "--rows is for --complete=PATH"),
        (["--vary=a.png", "--complete=a.png"], "not allowed with"),
        (["--vary=/nonexistent"], "no such file or folder"),
    ):
        assert says in error_of(capsys, workdir, *arguments, f"--out={tmp_path / 'b.png'}")


def test_given_images_are_of_the_class_of_their_folder(trained_run, tmp_path, capsys):
    for name in ("Dress", "bag", "9", "holiday"):
        (tmp_path / "in" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((28, 28), np.uint8)).save(tmp_path / "in" / name / "a.png")
    command = [f"--workdir={trained_run}", f"--complete={tmp_path / 'in'}", "--num_samples=1"]
    assert run(*command, f"--out={tmp_path / 'out.npz'}") == 0
    found = arrays(tmp_path / "out.npz")
    labels = dict(zip(found["names"], found["labels"].tolist(), strict=True))
    assert labels == {"9/a.png": -1, "Dress/a.png": 3, "bag/a.png": 8, "holiday/a.png": -1}
    assert run(*command, "--label=SHIRT", f"--out={tmp_path / 'out.npz'}") == 0
    assert set(arrays(tmp_path / "out.npz")["labels"]) == {6}


@pytest.mark.parametrize("empty", ["--reconstruct=", "--complete=", "--vary=", "--workdir=", "--out="])
def test_an_empty_path_is_refused(trained_run, tmp_path, empty, capsys):
    given = [f"--workdir={trained_run}", f"--out={tmp_path / 'a.png'}"]
    given = [argument for argument in given if not argument.startswith(empty)]
    assert "must be a path, not empty" in error_of(capsys, *given, empty)


@pytest.mark.parametrize("label", ["²", "--", "-1", "10", "dresses", "", "999999999999999999999999"])
def test_what_is_no_class_is_refused(trained_run, tmp_path, label, capsys):
    error_of(capsys, f"--workdir={trained_run}", f"--out={tmp_path / 'a.png'}", f"--label={label}")
    assert not (tmp_path / "a.png").exists()


def test_a_prior_that_was_always_told_the_class_has_to_be_told(trained_run, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(trained_run, copy)
    config = json.loads((copy / "config.json").read_text())
    config["prior"]["label_dropout"] = 0.0
    (copy / "config.json").write_text(json.dumps(config))
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(tmp_path / "a.png")
    command = [f"--workdir={copy}", f"--vary={tmp_path / 'a.png'}", "--num_samples=1", f"--out={tmp_path / 'out.npz'}"]
    assert "name one with --label=NAME" in error_of(capsys, *command)
    assert run(*command, "--label=2") == 0


def test_a_folder_has_a_file_for_each_image(trained_run, tmp_path, capsys):
    workdir = f"--workdir={trained_run}"
    assert run(workdir, "--num_samples=70", "--label=3", f"--out={tmp_path / 'all'}") == 0  # more than a piece
    assert run(workdir, "--num_samples=70", "--label=3", f"--out={tmp_path / 'all.npz'}") == 0
    files = sorted((tmp_path / "all").iterdir())
    assert [file.name for file in files] == [f"{i:06d}-class_Dress.png" for i in range(70)]
    found = np.stack([np.asarray(Image.open(file)) for file in files])
    np.testing.assert_array_equal(found, arrays(tmp_path / "all.npz")["images"][..., 0])
    assert "already exists" in error_of(capsys, workdir, f"--out={tmp_path / 'all'}")
    given = tmp_path / "given"
    (given / "sub").mkdir(parents=True)
    for name in ("a.png", "a.bmp", "sub/a.png"):
        Image.fromarray(found[0]).save(given / name)
    assert run(workdir, f"--reconstruct={given}", f"--out={tmp_path / 'made'}") == 0
    assert names_in(tmp_path / "made") == ["a.bmp.png", "a.png", "sub/a.png"]
    complete = [f"--complete={given / 'a.png'}", "--num_samples=2", "--label=3"]
    assert run(workdir, *complete, f"--out={tmp_path / 'completed'}") == 0
    assert names_in(tmp_path / "completed") == ["a-00.png", "a-01.png"]
    assert "too many for one .png" in error_of(capsys, workdir, "--num_samples=1025", f"--out={tmp_path / 'b.png'}")


def names_in(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*.png"))


def test_reconstructing_files_of_any_kind(trained_run, tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    grey = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(grey).save(folder / "a.png")
    Image.new("RGB", (60, 40), (200, 10, 10)).save(folder / "b.jpg")
    Image.new("RGBA", (28, 28), (0, 0, 0, 0)).save(folder / "c.webp")
    Image.fromarray(grey.astype(np.uint16) << 8).save(folder / "d.png")  # a.png in 16 bits
    assert run(f"--workdir={trained_run}", f"--reconstruct={folder}", f"--out={tmp_path / 'codes.npz'}") == 0
    assert "1 of 4 images fitted to 28×28" in capsys.readouterr().out
    found = arrays(tmp_path / "codes.npz")
    assert list(found["names"]) == ["a.png", "b.jpg", "c.webp", "d.png"]
    trained = TrainedRun.load(trained_run)
    codes = np.asarray(autoencoder.codes(trained.model, trained.variables))[found["indices"]]
    np.testing.assert_allclose(found["latents"], found["gains"][..., None] * codes, rtol=1e-5, atol=1e-6)
    assert found["images"].dtype == np.uint8
    np.testing.assert_array_equal(found["indices"][3], found["indices"][0])
    assert run(f"--workdir={trained_run}", f"--reconstruct={folder / 'a.png'}", f"--out={tmp_path / 'r.png'}") == 0
    assert Image.open(tmp_path / "r.png").size[0] > 28


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--label=10"], "--label=10 is out of range: the classes are 0 T-shirt/top"),
        (["--label=-1"], "--label=-1 is out of range"),
        (["--label=Hat"], "--label=Hat is out of range"),
        (["--num_samples=0"], "--num_samples=0: must be from 1 to 100000000"),
        (["--num_samples=some"], "num_samples"),
        (["--temperature=-1"], "--temperature=-1.0: must be at least 0"),
        (["--top_p=0"], "--top_p=0.0: must be above 0 and at most 1"),
        (["--top_k=-2"], "--top_k=-2: must be at least 0"),
        (["--guidance=-1"], "--guidance=-1.0: must be from 0"),
        *(
            (["--vary=.", f"--{field.name}=1"], f"--{field.name} applies to codes, which --vary keeps")
            for field in dataclasses.fields(CodeSamplingOptions)
        ),
        (["--proposals=2"], "--proposals is for --vary=PATH"),
        (["--complete=.", "--proposals=2"], "--proposals is for --vary=PATH"),
        (["--vary=.", "--proposals=0"], "--proposals=0: must be from 1 to 4096"),
        (["--continuous_temperature=-1"], "--continuous_temperature=-1.0: must be at least 0"),
        (["--seed=-1"], "--seed=-1: must be from 0"),
        (["--reconstruct=/nonexistent"], "no such file or folder"),
        (["--out=grid.gif"], "must end in .png or .npz"),
        (["--out=/nonexistent/grid.png"], "the folder does not exist"),
        (["--nonsense=1"], "nonsense"),
    ],
)
def test_bad_input_gets_one_line(trained_run, tmp_path, arguments, says, capsys):
    command = [f"--workdir={trained_run}", f"--out={tmp_path / 'out.png'}", *arguments]
    assert says in error_of(capsys, *command)
    assert not (tmp_path / "out.png").exists()


def test_files_that_are_not_images(trained_run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("not an image")
    out = f"--out={tmp_path / 'out.png'}"
    for path, says in ((tmp_path / "empty", "no .png"), (tmp_path / "text.png", "cannot be read as an image")):
        assert says in error_of(capsys, f"--workdir={trained_run}", f"--reconstruct={path}", out)


def test_a_folder_without_a_run(tmp_path, capsys):
    assert "no run in" in error_of(capsys, f"--workdir={tmp_path}", f"--out={tmp_path / 'a.png'}")


def test_sampling_before_the_prior_exists(trained_run, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(trained_run, copy)
    shutil.rmtree(copy / "checkpoints" / "prior")
    (copy / "latents.npz").unlink()
    line = error_of(capsys, f"--workdir={copy}", f"--out={tmp_path / 'a.png'}")
    assert "has no prior to sample from yet" in line
    assert "--config.stage=prior" in line


@pytest.mark.parametrize("stage", ["autoencoder", "prior"])
def test_a_missing_or_truncated_checkpoint(trained_run, tmp_path, stage, capsys):
    copy = tmp_path / "run"
    shutil.copytree(trained_run, copy)
    for path in (copy / "checkpoints" / stage).glob("*/state/**/*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:10])
    assert "is not usable" in error_of(capsys, f"--workdir={copy}", f"--out={tmp_path / 'a.png'}")
    for path in (copy / "checkpoints" / stage).iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    assert "no usable checkpoint" in error_of(capsys, f"--workdir={copy}", f"--out={tmp_path / 'a.png'}")


@pytest.mark.parametrize("name", ["latents.npz", "tables.npz"])
def test_a_prior_does_not_sample_for_another_autoencoder(trained_run, tmp_path, name, capsys):
    copy = tmp_path / "run"
    shutil.copytree(trained_run, copy)
    stored = arrays(copy / name)
    np.savez(copy / name, **{**stored, "checkpoint_step": np.array(99)})
    if name == "tables.npz":  # it is known without the latents too
        (copy / "latents.npz").unlink()
    line = error_of(capsys, f"--workdir={copy}", f"--out={tmp_path / 'a.png'}")
    assert f"{name} and the prior belong to the autoencoder of step 99" in line
    assert f"run python train.py --workdir={copy} --config.stage=prior to train the prior again" in line


def test_guidance_needs_a_class_and_a_prior_that_did_without_one(trained_run, tmp_path, capsys):
    image = tmp_path / "a.png"
    Image.new("L", (28, 28)).save(image)
    out = f"--out={tmp_path / 'b.png'}"
    line = error_of(capsys, f"--workdir={trained_run}", f"--complete={image}", "--guidance=1", out)
    assert "there is no class to guide to" in line
    copy = tmp_path / "run"
    shutil.copytree(trained_run, copy)
    config = json.loads((copy / "config.json").read_text())
    config["prior"]["label_dropout"] = 0.0
    (copy / "config.json").write_text(json.dumps(config))
    assert "always saw the class in training" in error_of(capsys, f"--workdir={copy}", "--guidance=1", out)


@pytest.mark.usefixtures("without_plots")
def test_plain_codes_are_drawn_for_vq(tiny_arguments, tmp_path):
    """Here of finite scalars: K is the product of the levels, for the prior too."""
    workdir = tmp_path / "vq"
    arguments = [
        *tiny_arguments,
        "--config.parallel=jit",
        "--config.latent.mode=vq",
        "--config.prior.conditional=False",
        "--config.autoencoder.num_steps=2",
        "--config.prior.num_steps=2",
    ]
    scalars = ["--config.codebook.family=fsq", "--config.codebook.levels=(5,3)"]
    assert train.main([*arguments, *scalars, f"--workdir={workdir}"]) == 0
    assert train.main([f"--workdir={workdir}"]) == 0  # JSON has no tuples
    trained = TrainedRun.load(workdir)
    assert trained.continuous_part_note() == ""
    with pytest.raises(UserError, match="draws codes only"):
        trained.sample(np.zeros(3, np.int32), options=SamplingOptions(continuous_temperature=0.5))
    assert trained.model.num_codes == trained.prior.num_codes == 15
    drawn = next(trained.sample(np.zeros(3, np.int32), seed=4))
    assert 0 <= drawn.indices.min() <= drawn.indices.max() < 15
    codes = np.asarray(autoencoder.codes(trained.model, trained.variables))[drawn.indices]
    np.testing.assert_array_equal(drawn.latents, codes)
    assert drawn.images.dtype == np.uint8
