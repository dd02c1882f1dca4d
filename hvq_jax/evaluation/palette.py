"""The colours of plots: one per latent, in every plot of the project.

The colours are those of Okabe and Ito, "Color universal design" (2008), which readers with any kind of colour vision
can tell apart, on white and on black.
"""

from collections.abc import Sequence

from hvq_jax.latents import LATENTS

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY_BLUE = "#E69F00", "#56B4E9"
BLACK = "#000000"
GREY = "#7F7F7F"  # of what is shown for comparison, such as image formats

# Of several quantities of one run, such as the terms of a loss, in this order.
QUANTITY_COLORS = (BLACK, BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY_BLUE)

LATENT_COLORS = {"vq": BLUE, "projected": VERMILION, "frequency": GREEN, "combined": PURPLE}
_FURTHER = (ORANGE, SKY_BLUE)
_MIXED = 0.45  # the share of white in the lightest shade of a colour, and of black in the darkest


def latent_color(mode: str) -> str:
    """Return the colour of a latent, "#rrggbb"; those added to `LATENTS` share the colours that are left.

    >>> latent_color("projected")
    '#D55E00'
    """
    if mode in LATENT_COLORS:
        return LATENT_COLORS[mode]
    added = [name for name in LATENTS if name not in LATENT_COLORS]
    return _FURTHER[added.index(mode) % len(_FURTHER)] if mode in added else GREY


def rgb(color: str) -> tuple[int, int, int]:
    """Return a colour "#rrggbb" as three numbers.

    >>> rgb(ORANGE)
    (230, 159, 0)
    """
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue


def curve_colors(modes: Sequence[str]) -> list[str]:
    """Return a colour for each of several curves, given their latents: shades, from light to dark, of the same latent.

    >>> curve_colors(["vq", "frequency", "frequency"])
    ['#0072B2', '#73CAB2', '#00573F']
    """
    shades = {mode: iter(_shades(latent_color(mode), list(modes).count(mode))) for mode in set(modes)}
    return [next(shades[mode]) for mode in modes]


def _shades(color: str, count: int) -> list[str]:
    """Return `count` shades of a colour, from light to dark; of a single one, the colour itself."""
    if count == 1:
        return [color]
    return [_mixed(color, _MIXED * (1 - 2 * number / (count - 1))) for number in range(count)]


def _mixed(color: str, share: float) -> str:
    """Return a colour with a `share` of white, or of black where it is negative."""
    target, share = (255 if share > 0 else 0), abs(share)
    channels = [round((1 - share) * channel + share * target) for channel in rgb(color)]
    return "#" + "".join(f"{channel:02X}" for channel in channels)
