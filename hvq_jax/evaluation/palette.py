"""The colours of plots: one per latent, in every plot of the project.

The colours are those of Okabe and Ito, "Color universal design" (2008), which readers with any kind of colour vision
can tell apart, on white and on black.
"""

from hvq_jax.latents import LATENTS

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY_BLUE = "#E69F00", "#56B4E9"
BLACK = "#000000"
GREY = "#7F7F7F"  # of what is shown for comparison, such as image formats

# Of several quantities of one run, such as the terms of a loss, in this order.
QUANTITY_COLORS = (BLACK, BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY_BLUE)

LATENT_COLORS = {"vq": BLUE, "projected": VERMILION, "frequency": GREEN, "combined": PURPLE}
_FURTHER = (ORANGE, SKY_BLUE)


def latent_color(mode: str) -> str:
    """Return the colour of a latent, "#rrggbb"; those added to `LATENTS` share the colours that are left.

    >>> latent_color("projected")
    '#D55E00'
    """
    if mode in LATENT_COLORS:
        return LATENT_COLORS[mode]
    added = [name for name in LATENTS if name not in LATENT_COLORS]
    return _FURTHER[added.index(mode) % len(_FURTHER)] if mode in added else GREY
