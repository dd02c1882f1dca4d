"""The data sets of colour images that are made of Debian's packages."""

import json

import numpy as np
import pytest
from PIL import Image, ImageFont

from hvq_jax.errors import UserError
from hvq_jax.runs.flags import parse_command_line
from studies.frontier import emoji, emoji_samples, photographs


def test_patches_of_a_photograph_are_its_pixels_in_reading_order():
    pixels = np.random.default_rng(0).integers(0, 256, (70, 100, 3), np.uint8)
    found = photographs.patches(Image.fromarray(pixels))
    np.testing.assert_array_equal(found[0], pixels[:32, :32])
    np.testing.assert_array_equal(found[2], pixels[:32, 64:96])
    np.testing.assert_array_equal(found[3], pixels[32:64, :32])


def test_a_large_photograph_is_reduced():
    found = photographs.patches(Image.new("RGB", (2560, 1600), (10, 20, 30)))
    assert found.shape == (40 * 25, 32, 32, 3)
    assert (found == [10, 20, 30]).all()


def test_every_photograph_is_in_one_split_only(tmp_path):
    for number, photograph in enumerate(photographs.PHOTOGRAPHS):
        path = tmp_path / photograph.path
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (number, number, number)).save(path, quality=100)
    arrays = photographs.make_arrays(tmp_path)
    of_split = {name: set(images[:, 0, 0, 0].tolist()) for name, images in arrays.items()}
    assert sum(map(len, of_split.values())) == len(set.union(*of_split.values())) == len(photographs.PHOTOGRAPHS)
    assert [len(of_split[f"{name}_images"]) for name in ("val", "test")] == [2, 4]
    (tmp_path / photographs.PHOTOGRAPHS[0].path).unlink()
    with pytest.raises(UserError, match="is missing: install Debian's package mate-backgrounds"):
        photographs.make_arrays(tmp_path)


def test_emoji_have_the_class_of_their_code_point(monkeypatch):
    drawn = dict(emoji.characters())
    assert len(drawn) == len(list(emoji.characters()))  # no range overlaps another
    names = list(emoji.CLASSES)
    for character, name in (("😀", "faces"), ("🐶", "animals"), ("🍎", "food"), ("🚗", "vehicles"), ("🎁", "objects")):
        assert names[drawn[character]] == name
    monkeypatch.setattr(ImageFont, "truetype", lambda path, size: None)
    image = np.zeros((32, 32, 3), np.uint8)
    monkeypatch.setattr(emoji, "draw", lambda character, font: None if character == "😀" else image)
    arrays = emoji.make_arrays("font.ttf")
    assert len(arrays["images"]) == len(arrays["labels"]) == len(drawn) - 1
    assert arrays["class_names"].tolist() == names


def test_a_missing_font_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.ttf cannot be read .*fonts-noto-color-emoji"):
        emoji.make_arrays(tmp_path / "none.ttf")


def test_summary_and_samples_of_the_run_on_emoji_are_kept(tiny_arguments, tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (96, 1, 1, 3), np.uint8)
    images = np.broadcast_to(colours, (96, 8, 8, 3))
    arrays = {"images": images, "labels": np.arange(96) % 2, "class_names": np.array(["faces", "food"])}
    config = parse_command_line([*tiny_arguments, f"--workdir={tmp_path}"]).config
    config.data.validation_size, config.data.data_dir = 16, str(tmp_path / "prepared")
    for _ in range(2):  # the second time from the same data, with nothing left to train
        emoji_samples.make(arrays, config, tmp_path / "runs", tmp_path / "study")
    summary = json.loads((tmp_path / "study" / "results" / "emoji" / "summary.json").read_text())
    assert summary["data"] == "image_arrays"
    assert {"autoencoder", "prior", "samples"} <= summary.keys()
    with Image.open(tmp_path / "study" / "emoji.png") as samples:
        assert samples.format == "PNG"
    assert len(list((tmp_path / "prepared" / "image_arrays").glob("8x8x3-*"))) == 1
