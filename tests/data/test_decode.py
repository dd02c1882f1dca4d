import contextlib
import io
import os
import struct

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image
from published_files import raw_png

from hvq_jax.data.decode import MAX_PIXELS, ImageError, decode_image, fit_image, read_image

FORMATS = {"PNG": {}, "JPEG": {"quality": 90}, "WEBP": {"lossless": True}}


def encoded(image: Image.Image, file_format: str = "PNG", **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    file.seek(0)
    return file


def noise(height: int, width: int, *channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, *channels), np.uint8)


def smooth(height: int, width: int) -> Image.Image:
    """Colours that change slowly, which JPEG keeps well."""
    return Image.fromarray(noise(4, 4, 3)).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize(("channels", "decoded"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_black_and_white_are_the_same_in_every_mode(mode, channels, decoded):
    grey = (noise(5, 7) > 127) * np.uint8(255)
    image = decode_image(encoded(Image.fromarray(grey).convert(mode)), channels)
    assert image.mode == decoded
    np.testing.assert_array_equal(np.asarray(image.convert("L")), grey)


@pytest.mark.parametrize("file_format", FORMATS)
def test_colours_become_grey_by_their_luminance(file_format):
    image = smooth(8, 8)
    file = encoded(image, file_format, **FORMATS[file_format])
    expected = np.asarray(image, float) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(np.asarray(decode_image(file, 1)), expected, atol=8)  # JPEG is not exact


def test_cmyk_becomes_rgb():
    image = decode_image(encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG"), 3)
    np.testing.assert_allclose(np.asarray(image)[4, 4], (0, 255, 255), atol=3)
    assert decode_image(encoded(Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "JPEG"), 1).getpixel((4, 4)) < 3


@pytest.mark.parametrize("channels", [1, 3])
def test_the_upper_8_of_16_bits_are_kept(channels):
    values = np.array([[0x0000, 0x12FF, 0x8000, 0xFFFF]])
    expected = np.broadcast_to((values >> 8)[..., np.newaxis], (1, 4, channels)).squeeze()
    grey = raw_png(4, 1, 16, 0, [values.astype(">u2").tobytes()])
    colour = raw_png(4, 1, 16, 2, [np.repeat(values, 3).astype(">u2").tobytes()])
    for content in (grey, colour):
        decoded = decode_image(io.BytesIO(content), channels)
        np.testing.assert_array_equal(np.asarray(decoded).squeeze(), expected)


HIDDEN = (200, 30, 60)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "content",
    [
        encoded(Image.fromarray(np.array([[[*HIDDEN, 0], [9, 9, 9, 255]]], np.uint8))).getvalue(),
        encoded(
            Image.fromarray(np.array([[[*HIDDEN, 0], [9, 9, 9, 255]]], np.uint8)), "WEBP", lossless=True, exact=True
        ).getvalue(),
        encoded(Image.fromarray(np.array([[[200, 0], [9, 255]]], np.uint8))).getvalue(),
        raw_png(2, 1, 8, 0, [bytes([200, 9])], struct.pack(">H", 200)),
        raw_png(2, 1, 8, 2, [bytes([*HIDDEN, 9, 9, 9])], struct.pack(">3H", *HIDDEN)),
        raw_png(2, 1, 16, 0, [struct.pack(">2H", 0xC8AA, 0x09FF)], struct.pack(">H", 0xC8AA)),
        raw_png(2, 1, 16, 4, [struct.pack(">4H", 0xC8AA, 0, 0x09FF, 0xFFFF)]),
    ],
    ids=["rgba", "webp", "grey and opacity", "grey", "rgb", "16 bits", "16 bits and opacity"],
)
def test_what_a_transparent_pixel_hides_stays_hidden(content, channels):
    image = np.asarray(decode_image(io.BytesIO(content), channels)).reshape(2, channels)
    np.testing.assert_array_equal(image, [[255] * channels, [9] * channels])


def test_palettes_with_a_transparent_entry_are_laid_on_white():
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([*HIDDEN, 9, 9, 9])
    decoded = decode_image(encoded(image, transparency=0), 3)
    np.testing.assert_array_equal(np.asarray(decoded), [[[255] * 3, [9] * 3]])


def test_half_opacity_is_half_white():
    image = decode_image(encoded(Image.new("RGBA", (2, 2), (0, 100, 200, 128))), 3)
    np.testing.assert_allclose(np.asarray(image)[0, 0], np.array([0, 100, 200]) * 128 / 255 + 127, atol=1)


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(file_format, orientation):
    upright = np.array([[0, 80], [160, 240], [40, 120]], np.uint8).repeat(16, 0).repeat(16, 1)
    stored = {  # what the camera would have written, by the meaning of EXIF's tag 274
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright[::-1, ::-1].T,
        8: upright.T[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    file = encoded(Image.fromarray(stored).convert("RGB"), file_format, exif=exif, **FORMATS[file_format])
    np.testing.assert_allclose(np.asarray(decode_image(file, 1)), upright, atol=3)


UNREADABLE = {
    "no header": b"Exif\0\0garbage garbage",
    "cut": b"Exif\0\0MM\0*\0\0\0\x08\0\x05",
    "cut in an entry": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03",
    "elsewhere": b"Exif\0\0MM\0*\xff\xff\xff\xff",
    "an orientation of nine": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x09\0\0\0\0\0\0",
    "a text": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x02a\0\0\0\0\0\0\0",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("name", UNREADABLE)
def test_pixels_are_taken_as_stored_where_exif_cannot_be_read(file_format, name):
    image = smooth(24, 40)
    plain, marked = (
        decode_image(encoded(image, file_format, **FORMATS[file_format], **options), 3)
        for options in ({}, {"exif": UNREADABLE[name]})
    )
    np.testing.assert_array_equal(np.asarray(marked), np.asarray(plain))


@pytest.mark.filterwarnings("ignore")
@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(data=st.data(), file_format=st.sampled_from([*FORMATS]))
def test_damage_to_exif_alone_never_stops_the_decoder(data, file_format):
    exif = Image.Exif()
    exif[274], exif[270], exif[315] = 6, "description", "artist"
    content = bytearray(exif.tobytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(6, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = encoded(smooth(24, 40), file_format, exif=bytes(content), **FORMATS[file_format])
    assert decode_image(file, 3).size in ((40, 24), (24, 40))


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_cut_anywhere_is_decoded_or_refused_in_one_line(file_format):
    whole = encoded(smooth(16, 16), file_format, **FORMATS[file_format]).getvalue()
    for size in range(len(whole)):
        if size < len(whole) - 24:  # more is missing than checksums and the mark of the end
            with pytest.raises(ImageError, match=r"^.+$"):
                decode_image(io.BytesIO(whole[:size]), 3)
        else:
            with contextlib.suppress(ImageError):
                assert decode_image(io.BytesIO(whole[:size]), 3).size == (16, 16)


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_with_a_changed_byte_raises_nothing_else(file_format):
    whole = encoded(smooth(16, 16), file_format, **FORMATS[file_format]).getvalue()
    for place in range(len(whole)):
        changed = io.BytesIO(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with contextlib.suppress(ImageError):
            decode_image(changed, 3)


@pytest.mark.parametrize(
    "content", [b"", b"text\n", b"GIF89a", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"P6 1 1 255 abc", bytes(100)]
)
def test_other_files_are_no_images(content):
    with pytest.raises(ImageError, match=r"^not a PNG, JPEG, WebP, BMP or GIF image"):
        decode_image(io.BytesIO(content), 3)


def test_files_that_cannot_be_opened_are_image_errors(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path, tmp_path / "absent.png", tmp_path / "pipe.png"):
        with pytest.raises(ImageError, match=path.name):
            decode_image(path, 3)


def test_an_image_that_announces_too_many_pixels_is_refused_before_it_is_decoded(recwarn):
    side = int(MAX_PIXELS**0.5)
    assert side**2 == MAX_PIXELS
    with pytest.raises(ImageError, match=r"truncated|broken"):  # this size would be decoded
        decode_image(io.BytesIO(raw_png(side, side, 1, 0, [b"\0"])), 1)
    for width, height in ((side, side + 1), (2**31 - 1, 2**31 - 1)):
        with pytest.raises(ImageError, match="pixels"):
            decode_image(io.BytesIO(raw_png(width, height, 1, 0, [b"\0"])), 1)


SIDES = st.tuples(st.integers(1, 20), st.integers(1, 20))


@hypothesis.given(st.integers(1, 60), st.integers(1, 60), SIDES, st.tuples(*[st.integers(0, 255)] * 3))
def test_one_colour_of_any_size_stays_that_colour(width, height, sides, colour):
    image = fit_image(Image.new("RGB", (width, height), colour), sides)
    np.testing.assert_array_equal(np.asarray(image), np.full((*sides, 3), colour, np.uint8), strict=True)


@hypothesis.given(SIDES, st.integers(0, 20), st.booleans())
def test_an_image_of_which_one_side_fits_is_only_cropped(sides, half_excess, tall):
    height, width = sides
    pixels = noise(height, width + 2 * half_excess)
    expected = pixels[:, half_excess : half_excess + width]
    if tall:
        pixels, expected, sides = pixels.T, expected.T, (width, height)
    np.testing.assert_array_equal(np.asarray(fit_image(Image.fromarray(pixels), sides)), expected)


@hypothesis.given(st.integers(1, 50), st.integers(1, 50), SIDES)
def test_fitting_favours_neither_side(height, width, sides):
    pixels = noise(height, width) // 2 + 64  # far enough from black and white for nothing to be clipped
    fitted = np.asarray(fit_image(Image.fromarray(pixels), sides), int)
    transposed = np.asarray(fit_image(Image.fromarray(np.ascontiguousarray(pixels.T)), sides[::-1]), int)
    mirrored = np.asarray(fit_image(Image.fromarray(np.ascontiguousarray(pixels[:, ::-1])), sides), int)
    # One axis is rounded to bytes before the other.
    np.testing.assert_allclose(transposed, fitted.T, atol=2)
    np.testing.assert_allclose(mirrored, fitted[:, ::-1], atol=1)


def test_fine_patterns_do_not_alias():
    checkerboard = np.indices((256, 256)).sum(0).astype(np.uint8) % 2 * 255
    fitted = np.asarray(fit_image(Image.fromarray(checkerboard), (32, 32)), int)
    np.testing.assert_allclose(fitted[2:-2, 2:-2], 127.5, atol=4)


def test_transparent_pixels_do_not_bleed_when_shrunk():
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, ::2] = (*HIDDEN, 0)
    pixels[:, 1::2] = (9, 9, 9, 255)
    fitted = np.asarray(fit_image(Image.fromarray(pixels), (8, 8)))
    np.testing.assert_allclose(fitted[1:-1, 1:-1, :3], 9, atol=1)


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(st.integers(1, 200), st.integers(1, 200), SIDES, st.sampled_from([1, 3, 4]))
def test_read_images_have_their_shape_and_are_fitted_where_they_had_another(width, height, sides, channels):
    pixels, is_fitted = read_image(encoded(Image.new("RGB", (width, height)), "JPEG"), sides, channels)
    assert pixels.shape == (*sides, channels)
    assert is_fitted == ((height, width) != sides)


@pytest.mark.parametrize(("width", "height"), [(512, 512), (640, 400), (300, 2400)])
def test_large_jpegs_are_decoded_smaller_and_look_the_same(width, height):
    file = encoded(smooth(height, width), "JPEG", quality=95)
    whole = decode_image(file, 3)
    small = decode_image(file, 3, at_least=(32, 32))
    assert whole.size == (width, height)
    assert 64 <= min(small.size) < min(whole.size)
    fitted, expected = (np.asarray(fit_image(image, (32, 32)), int) for image in (small, whole))
    np.testing.assert_allclose(fitted, expected, atol=4)


def test_a_jpeg_is_decoded_as_large_as_either_side_needs():
    file = encoded(smooth(512, 512), "JPEG", quality=95)
    assert decode_image(file, 3, at_least=(16, 16)).size == (64, 64)
    assert decode_image(file, 3, at_least=(16, 128)).size == (256, 256)
    assert decode_image(file, 3, at_least=(128, 16)).size == (256, 256)


def test_a_turned_jpeg_is_decoded_as_large_as_either_side_needs():
    exif = Image.Exif()
    exif[274] = 6  # stored lying, shown upright
    file = encoded(smooth(256, 1024), "JPEG", quality=95, exif=exif)
    image = decode_image(file, 3, at_least=(16, 128))
    assert image.height > image.width >= 2 * 128
