"""Image files that a user passes through a run: read as for training, named so that no two are one."""

import os
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

import sample
from hvq_jax.data.builders.decode_files import decode_files
from hvq_jax.errors import UserError
from hvq_jax.evaluation import plots
from hvq_jax.runs.image_inputs import ImageInputs
from hvq_jax.runs.outputs import unique_stems
from hvq_jax.runs.results import Decoded
from hvq_jax.runs.trained import TrainedRun

SHAPE = (16, 16, 3)


def write_image(path: pathlib.Path, side: int = 16, seed: int = 0) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.mark.parametrize("side", [10, 16, 17, 31, 33, 64, 100, 130, 300])
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_an_image_is_the_same_in_training_and_in_use(tmp_path, side, ending):
    path = write_image(tmp_path / f"a.{ending}", side)
    (trained,) = decode_files([path], sides=SHAPE[:2], channels=3)
    (used,) = ImageInputs.find(str(path)).read(SHAPE)
    np.testing.assert_array_equal(used, trained, strict=True)


def test_images_of_another_size_are_counted_in_one_line(tmp_path, capsys):
    for number in range(5):
        write_image(tmp_path / f"{number}.png", side=16 + (number > 1))
    inputs = ImageInputs.find(str(tmp_path))
    for _ in range(2):  # in one line however often they are read
        assert len(list(inputs.read(SHAPE))) == 5
    assert capsys.readouterr().out == "3 of 5 images fitted to 16×16\n"


def test_names_are_paths_below_the_folder(tmp_path):
    for path in ("shirt/001.png", "shirt/002.png", "shoe/001.png"):
        write_image(tmp_path / path)
    assert ImageInputs.find(str(tmp_path)).names == ["shirt/001.png", "shirt/002.png", "shoe/001.png"]
    assert ImageInputs.find(str(tmp_path / "shirt" / "002.png")).names == ["002.png"]


def test_a_folder_is_listed_as_for_training(tmp_path, capsys, monkeypatch):
    for path in ("a.png", "._a.png", ".ipynb_checkpoints/a.png", "x.png/b.bmp"):
        write_image(tmp_path / path)
    (tmp_path / "scan.tif").touch()
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert ImageInputs.find(f"~/{tmp_path.name}").names == ["a.png", "x.png/b.bmp"]
    assert capsys.readouterr().out == f"~/{tmp_path.name}: left out 1 .tif, 1 hidden\n"


def test_a_folder_without_images_says_what_it_has(tmp_path):
    (tmp_path / "scan.tif").touch()
    with pytest.raises(UserError, match=r"no \.png, .* file in this folder, only 1 \.tif"):
        ImageInputs.find(str(tmp_path))


def test_a_named_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png cannot be read as an image: .*a named pipe"):
        list(ImageInputs.find(str(tmp_path / "a.png")).read(SHAPE))


def test_names_that_are_not_utf8_can_be_printed_drawn_and_stored(tmp_path):
    write_image(tmp_path / os.fsdecode(b"caf\xe9.png"))
    (tmp_path / os.fsdecode(b"bad\xff\n.png")).touch()
    inputs = ImageInputs.find(str(tmp_path))
    assert inputs.names == ["bad\\xff\\n.png", "caf\\xe9.png"]
    with pytest.raises(UserError, match=r"bad\\xff\\n\.png cannot be read as an image") as caught:
        list(inputs.read(SHAPE))
    assert str(caught.value).isprintable()
    (tmp_path / os.fsdecode(b"bad\xff\n.png")).unlink()
    inputs = ImageInputs.find(str(tmp_path))
    np.savez(tmp_path / "names.npz", names=np.array(inputs.names))
    plots.save_samples(tmp_path / "a.png", np.zeros((1, 1, *SHAPE), np.uint8), inputs.names, title=inputs.names[0])


def test_two_images_never_become_one_file(tmp_path):
    for path in ("a.jpg", "a.jpg.png", "a.jpg-2.png", "b.bmp", "b.bmp.png/c.png"):
        write_image(tmp_path / path)
    stems = ImageInputs.find(str(tmp_path)).stems
    assert unique_stems(stems) == ["a.jpg", "a.jpg-2", "a.jpg-3", "b.bmp-2", "b.bmp.png/c"]


@pytest.fixture
def echoing(monkeypatch, trained_run):
    """A trained run whose reconstructions are the images themselves."""

    def reconstruct(run, images):
        count = len(given := list(images))
        latents = np.zeros((count, 7, 7, 8), np.float32)
        yield Decoded(latents[..., 0].astype(np.int32), np.stack(given), latents[..., 0], latents)

    monkeypatch.setattr(TrainedRun, "reconstruct", reconstruct)
    return f"--workdir={trained_run}"


def test_reconstructions_of_a_folder_of_classes(tmp_path, echoing, capsys):
    given = tmp_path / "given"
    for number, path in enumerate(("shirt/1.png", "shoe/1.png", "shoe/1.jpg", "shoe/1.jpg.png")):
        write_image(given / path, side=28, seed=number)
    shutil.copy(given / "shoe/1.jpg", given / os.fsdecode(b"caf\xe9.jpg"))
    assert sample.main([echoing, f"--reconstruct={given}", f"--out={tmp_path / 'a.npz'}"]) == 0
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        names = ["caf\\xe9.jpg", "shirt/1.png", "shoe/1.jpg", "shoe/1.jpg.png", "shoe/1.png"]
        assert arrays["names"].tolist() == names
        images = arrays["images"]
    assert sample.main([echoing, f"--reconstruct={given}", f"--out={tmp_path / 'folder'}"]) == 0
    made = [os.fsdecode(b"caf\xe9.jpg.png"), "shirt/1.png", "shoe/1.jpg.png", "shoe/1.jpg-2.png", "shoe/1.png"]
    for name, image in zip(made, images, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "folder" / name)), image[..., 0])
    assert sample.main([echoing, f"--reconstruct={given}", f"--out={tmp_path / 'a.png'}"]) == 0
    capsys.readouterr()
