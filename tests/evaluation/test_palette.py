"""The colours of latents."""

import ast
import re
from pathlib import Path

import pytest
from matplotlib.colors import is_color_like

from hvq_jax.evaluation.palette import GREY, LATENT_COLORS, curve_colors, latent_color
from hvq_jax.latents import LATENTS, Latent

ROOT = Path(__file__).parents[2]


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


def test_curves_of_one_latent_are_shades_of_its_colour():
    modes = ["vq", "frequency", "projected", "frequency", "frequency"]
    colors = curve_colors(modes)
    assert [colors[0], colors[2], colors[3]] == [latent_color(mode) for mode in ("vq", "projected", "frequency")]
    assert len(set(colors)) == len(colors)
    lightness = [sum(int(color[i : i + 2], 16) for i in (1, 3, 5)) for color in colors if color not in colors[0:3:2]]
    assert lightness == sorted(lightness, reverse=True)


def own_colors_of_latents(source):
    """Return the names of latents, in dictionaries of a program, that have a colour there."""
    return [
        key.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and re.split(r"\W", str(key.value))[0] in LATENTS
        if isinstance(value, ast.Constant) and isinstance(value.value, str) and is_color_like(value.value)
    ]


def test_only_the_palette_gives_colours_to_latents():
    assert own_colors_of_latents('{"vq": "C0", "frequency S=5": "#123456", "rare": "red", "combined": 2}') == [
        "vq",
        "frequency S=5",
    ]
    files = [path for name in ("hvq_jax", "studies", "benchmarks", "docs") for path in (ROOT / name).rglob("*.py")]
    assert len(files) > 100
    palette = ROOT / "hvq_jax" / "evaluation" / "palette.py"
    assert [path for path in files if path != palette and own_colors_of_latents(path.read_text())] == []


def test_an_added_latent_gets_another_colour(monkeypatch):
    monkeypatch.setitem(LATENTS, "swapped", Latent(frequent="projection", rare="code"))
    assert latent_color("swapped") not in {*LATENT_COLORS.values(), GREY}
    assert latent_color("jpeg") == GREY
