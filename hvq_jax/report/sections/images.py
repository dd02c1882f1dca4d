"""Test images: reconstructions with their errors, and maps of the latent."""

import numpy as np

from hvq_jax.evaluation.palette import BLUE, ORANGE, rgb
from hvq_jax.evaluation.plots import LARGEST_SHOWN_ERROR, error_map
from hvq_jax.latents import PROJECTION, Z_E
from hvq_jax.report.blocks import figure, grid, percent, section
from hvq_jax.report.examples import Examples
from hvq_jax.report.findings import Detail, Findings
from hvq_jax.report.markup import Element, element
from hvq_jax.report.pictures import mapped, picture, scale

_SHOWN_MAPS = 8  # images
_RARE, _FREQUENT = rgb(ORANGE), rgb(BLUE)


def reconstructions(found: Findings, detail: Detail) -> Element | None:
    """Return the section with test images, their reconstructions and the errors of these."""
    if found.examples is None:
        return None
    examples, columns = found.examples, []
    errors = error_map(examples.originals, examples.reconstructions)
    for place in range(min(detail.examples, len(examples.originals))):
        name = found.class_name(int(examples.labels[place])) or f"image {place + 1}"
        cells = [
            picture(examples.originals[place], f"{name}: test image"),
            picture(examples.reconstructions[place], f"{name}: reconstruction, {examples.psnr[place]:.1f} dB"),
            picture(errors[place], f"{name}: error of each pixel"),
            element("span", f"{examples.psnr[place]:.1f} dB"),
        ]
        columns.append(element("div", cells, class_="stack"))
    key = element("p", "Error of a pixel: ", scale("magma_r", "0", f"{percent(LARGEST_SHOWN_ERROR)} and more"))
    return section(
        "Reconstructions",
        figure(
            [element("div", columns, class_="stacks"), key],
            "Test images on top, their reconstructions in the middle, and where the two differ below (of the range of "
            "values, averaged over the channels), with the PSNR of each.",
            good="reconstructions that are hard to tell from the images, and errors along fine edges only.",
            bad="blurred textures, missing parts, or errors in whole areas.",
        ),
    )


def maps(found: Findings, detail: Detail) -> Element | None:
    """Return the section with what stands at each position of the latents of test images."""
    if found.examples is None:
        return None
    examples = found.examples
    columns, keys = _columns(found, examples)
    bits = "bits" in columns
    count = min(detail.examples, _SHOWN_MAPS, len(examples.originals))
    head = [element("span", name, class_="head") for name in columns]
    rows = [
        [
            picture(images[place], f"{name} of test image {place + 1}{_of_class(found, place)}")
            for name, images in columns.items()
        ]
        for place in range(count)
    ]
    return section(
        "Inside the latent",
        figure(
            [grid([head, *rows], len(columns), "maps"), element("ul", keys, class_="keys")],
            "Each row is a test image with maps of its latent: one square per position.",
            good="the background repeats its codes" + (", and bits are spent where there is detail." if bits else "."),
            bad="one code everywhere"
            + (", or gains far from 1" if "gain" in columns else "")
            + (", or bits spread evenly (the prior has not learned where to expect what)." if bits else "."),
            narrow=True,
        ),
    )


def _of_class(found: Findings, place: int) -> str:
    assert found.examples is not None
    name = found.class_name(int(found.examples.labels[place]))
    return f" ({name})" if name else ""


def _columns(found: Findings, examples: Examples) -> tuple[dict[str, np.ndarray], list[Element]]:
    """Return the images `[N, h, w, C]` uint8 of each column by its name, and the keys to their colours."""
    row, encoded = found.run.stream.model.row, examples.encoded
    columns = {"image": examples.originals, "decoded": examples.reconstructions, "codes": examples.colors}
    keys = [element("li", element("b", "codes"), ": each has a colour; codes of similar colour are near each other")]
    if row.uses(PROJECTION):
        gains = encoded.gains.reshape(*examples.colors.shape[:3], -1).mean(axis=-1)
        spread = max(float(np.quantile(np.abs(gains - 1), 0.99)), 0.01)
        columns["gain"] = mapped(gains, "PuOr", 1 - spread, 1 + spread)
        key = scale("PuOr", f"{1 - spread:.2f}", f"{1 + spread:.2f}")
        keys.append(element("li", element("b", "gain"), ": how many times its code a position is ", key))
    if row.uses(Z_E) and encoded.residuals is not None:
        sizes = np.linalg.norm(encoded.residuals, axis=-1)
        most = float(np.quantile(sizes, 0.99)) or 1.0
        columns["rest"] = mapped(sizes, "magma", 0, most)
        key = scale("magma", "0", f"{most:.2f}")
        keys.append(element("li", element("b", "rest"), ": length of what is added to the code ", key))
    if examples.frequent is not None:
        columns["mask"] = np.where(examples.frequent[..., None], _FREQUENT, _RARE).astype(np.uint8)
        swatches = [element("span", class_="swatch", style=f"background:rgb{color}") for color in (_FREQUENT, _RARE)]
        keys.append(
            element("li", element("b", "mask"), ": ", swatches[0], " frequent codes, ", swatches[1], " rare codes")
        )
    if examples.bits is not None:
        most = float(np.quantile(examples.bits, 0.995))
        columns["bits"] = mapped(examples.bits, "viridis", 0, most)
        key = scale("viridis", "0", f"{most:.1f}")
        keys.append(element("li", element("b", "bits"), ": what a position costs under the prior ", key))
    return columns, keys
