"""The colours of latents."""

import pytest

from hvq_jax.evaluation.palette import GREY, LATENT_COLORS, latent_color
from hvq_jax.latents import LATENTS, Latent


def test_each_latent_has_a_colour_of_its_own():
    assert set(LATENT_COLORS) == set(LATENTS)
    assert len(set(LATENT_COLORS.values()) | {GREY}) == len(LATENTS) + 1


@pytest.mark.parametrize("background", [0.0, 1.0])
def test_colours_differ_from_white_and_black(background):
    """By 3, the contrast that WCAG 2.2 asks of graphics."""
    for color in LATENT_COLORS.values():
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        lighter, darker = max(luminance, background), min(luminance, background)
        assert (lighter + 0.05) / (darker + 0.05) > 3, color


def test_an_added_latent_gets_another_colour(monkeypatch):
    monkeypatch.setitem(LATENTS, "swapped", Latent(frequent="projection", rare="code"))
    assert latent_color("swapped") not in {*LATENT_COLORS.values(), GREY}
    assert latent_color("jpeg") == GREY
