"""A data set of 32×32 emoji with classes, from the font in Debian's package `fonts-noto-color-emoji`.

The font is Noto Color Emoji, under the SIL Open Font License 1.1. Classes are ranges of code points; the emoji lie on
white. The set is small, a few hundred images: it is for looking at class-conditional samples, not for comparisons.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hvq_jax.errors import UserError

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
SIDE = 32
_POINTS = 109  # the only size of the font's bitmaps
_CANVAS = 136  # pixels, their width

# Both ends included
CLASSES = {
    "faces": ((0x1F600, 0x1F637), (0x1F641, 0x1F644), (0x1F910, 0x1F917), (0x1F920, 0x1F92F), (0x1F970, 0x1F976)),
    "animals": ((0x1F400, 0x1F43E), (0x1F980, 0x1F9AE)),
    "food": ((0x1F32D, 0x1F32F), (0x1F345, 0x1F37F), (0x1F950, 0x1F96F), (0x1F9C0, 0x1F9CB)),
    "vehicles": ((0x1F680, 0x1F6A4), (0x1F6B2, 0x1F6B2), (0x1F6F3, 0x1F6FC)),
    "objects": ((0x1F4A1, 0x1F4F9), (0x1F506, 0x1F52E), (0x1F380, 0x1F39F)),
}


def draw(character: str, font: ImageFont.FreeTypeFont) -> np.ndarray | None:
    """Return an emoji `[32, 32, 3]` uint8; None if the font has none of this code point."""
    canvas = Image.new("RGB", (_CANVAS, _CANVAS), "white")
    ImageDraw.Draw(canvas).text((0, 0), character, font=font, embedded_color=True)
    pixels = np.asarray(canvas.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    return None if (pixels == 255).all() else pixels


def characters() -> Iterator[tuple[str, int]]:
    """Yield each emoji with the number of its class."""
    for number, ranges in enumerate(CLASSES.values()):
        for first, last in ranges:
            yield from ((chr(point), number) for point in range(first, last + 1))


def make_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return `images` `[N, 32, 32, 3]` uint8, `labels` `[N]` and `class_names`; raise UserError without the font."""
    try:
        font = ImageFont.truetype(path, _POINTS)
    except OSError as error:
        advice = "install Debian's package fonts-noto-color-emoji, or choose --font"
        raise UserError(f"{path} cannot be read ({error}): {advice}") from None
    drawn = [(image, number) for character, number in characters() if (image := draw(character, font)) is not None]
    images, labels = zip(*drawn, strict=True)
    return {"images": np.stack(images), "labels": np.array(labels, np.int32), "class_names": np.array(list(CLASSES))}
