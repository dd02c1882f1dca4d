import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from hvq_jax.data.augment import Augmentation, augment
from hvq_jax.errors import UserError

FLIP = Augmentation(flip=True)
shapes = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 3, 4]))
augmentations = st.builds(
    Augmentation,
    flip=st.booleans(),
    crop_padding=st.integers(0, 20),  # often beyond the image
    resized_crop_min_scale=st.one_of(st.just(0.0), st.floats(0.01, 1)),
)
numbers = st.integers(0, 2**31)


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def changed(
    images: np.ndarray, augmentation: Augmentation, *, first: int = 0, epoch: int = 0, seed: int = 0
) -> np.ndarray:
    rows = np.arange(first, first + len(images))
    return augment(images, augmentation, rows=rows, epoch=epoch, seed=seed)


def copies(array: np.ndarray, count: int) -> np.ndarray:
    return np.repeat(array[np.newaxis], count, axis=0)


@hypothesis.given(shapes, augmentations, numbers, numbers)
def test_shape_and_type_stay_and_no_new_extremes_appear(shape, augmentation, epoch, seed):
    images = noise(shape)
    before = images.copy()
    result = changed(images, augmentation, epoch=epoch, seed=seed)
    np.testing.assert_array_equal(images, before)
    assert result.dtype == np.uint8
    assert result.shape == shape
    low, high = images.min((1, 2), keepdims=True), images.max((1, 2), keepdims=True)
    assert ((low <= result) & (result <= high)).all()  # so a constant image stays as it is


@hypothesis.given(shapes, numbers, numbers)
def test_off_and_the_whole_image_are_the_identity(shape, epoch, seed):
    images = noise(shape)
    for augmentation in (Augmentation(), Augmentation(resized_crop_min_scale=1.0)):
        np.testing.assert_array_equal(changed(images, augmentation, epoch=epoch, seed=seed), images)


@hypothesis.given(shapes, augmentations, st.integers(0, 100), st.data())
def test_an_image_is_changed_alike_in_any_batch(shape, augmentation, epoch, data):
    images = noise(shape)
    order = np.array(data.draw(st.permutations(range(len(images)))))
    whole = changed(images, augmentation, epoch=epoch)
    parts = [augment(images[part], augmentation, rows=part, epoch=epoch, seed=0) for part in np.array_split(order, 2)]
    np.testing.assert_array_equal(np.concatenate(parts), whole[order])


@hypothesis.given(numbers, numbers)
def test_a_flip_is_the_image_or_its_mirror_image(epoch, seed):
    images = noise((50, 4, 5, 3))
    result = changed(images, FLIP, epoch=epoch, seed=seed)
    same = (result == images).all((1, 2, 3))
    mirrored = (result == images[:, :, ::-1]).all((1, 2, 3))
    np.testing.assert_array_equal(same, ~mirrored)


def test_half_of_the_images_are_flipped_other_ones_each_epoch():
    images = noise((4000, 1, 2, 1))
    flipped = [(changed(images, FLIP, epoch=epoch) != images).any((1, 2, 3)) for epoch in range(2)]
    differ = (images[:, :, 0] != images[:, :, 1]).any((1, 2))
    for share in (flipped[0][differ].mean(), flipped[1][differ].mean(), (flipped[0] == flipped[1])[differ].mean()):
        assert abs(share - 0.5) < 5 * 0.5 / np.sqrt(differ.sum())  # five standard deviations


@hypothesis.given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 20), numbers)
def test_a_shift_is_a_crop_of_the_reflected_image(height, width, padding, seed):
    images = noise((5, height, width, 2))
    result = changed(images, Augmentation(crop_padding=padding), seed=seed)
    for image, shifted in zip(images, result, strict=True):
        padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode="reflect")
        crops = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(0, 1))
        assert (crops == shifted.transpose(2, 0, 1)).all((2, 3, 4)).any()


def test_every_shift_occurs():
    image = np.arange(25, dtype=np.uint8).reshape(5, 5, 1)
    result = changed(copies(image, 1000), Augmentation(crop_padding=2))
    assert len(np.unique(result.reshape(1000, -1), axis=0)) == 25


@hypothesis.given(st.floats(0.05, 1), numbers)
def test_a_resized_crop_keeps_area_and_ratio_within_bounds(scale, seed):
    size = 64
    ramps = np.stack(np.meshgrid(*[np.arange(size)] * 2, indexing="ij"), axis=-1) * 4  # each pixel encodes its position
    result = changed(copies(ramps.astype(np.uint8), 40), Augmentation(resized_crop_min_scale=scale), seed=seed)
    middle = result[:, size // 4 : size * 3 // 4, size // 4 : size * 3 // 4].astype(float)  # nothing is clipped there
    height = (middle[:, -1, 0, 0] - middle[:, 0, 0, 0]) / (4 * (size / 2 - 1))  # share of the image
    width = (middle[:, 0, -1, 1] - middle[:, 0, 0, 1]) / (4 * (size / 2 - 1))
    rounding = 1.5 / (4 * (size / 2 - 1))  # the two ends are rounded to whole levels
    assert (height * width >= scale - 2 * rounding).all()
    assert (height <= 1 + rounding).all()
    assert (width <= 1 + rounding).all()
    assert (width <= (height + rounding) * 4 / 3 + rounding).all()
    assert (height <= (width + rounding) * 4 / 3 + rounding).all()


def test_a_resized_crop_lies_anywhere_in_the_image():
    ramp = np.broadcast_to(8 * np.arange(32, dtype=np.uint8)[:, np.newaxis, np.newaxis], (32, 32, 1))
    tops = changed(copies(ramp, 500), Augmentation(resized_crop_min_scale=0.25))[:, 0, 0, 0]
    assert tops.min() == 0
    assert tops.max() > 8 * 12


def test_what_is_drawn_never_changes():
    # These draws must never change, because resumed runs would see other images.
    image = 10 * np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    augmentation = Augmentation(flip=True, crop_padding=1, resized_crop_min_scale=0.5)
    result = changed(copies(image, 3), augmentation, first=100, epoch=3, seed=7)
    assert result[..., 0].tolist() == [
        [[48, 39, 48, 57], [83, 74, 83, 92], [117, 108, 117, 126], [83, 74, 83, 92]],
        [[0, 10, 20, 30], [40, 50, 60, 70], [80, 90, 100, 110], [120, 130, 140, 150]],
        [[10, 19, 27, 36], [38, 47, 55, 64], [66, 75, 83, 92], [95, 104, 112, 121]],
    ]


@pytest.mark.parametrize(
    "options", [{"crop_padding": -1}, {"resized_crop_min_scale": -0.1}, {"resized_crop_min_scale": 1.1}]
)
def test_impossible_options_are_refused(options):
    with pytest.raises(UserError, match=next(iter(options))):
        Augmentation(**options)
