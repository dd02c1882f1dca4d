"""The rate table: what an image costs, in several ways of counting."""

import math
from collections.abc import Iterator

from hvq_jax.report.blocks import figure, section
from hvq_jax.report.findings import Findings
from hvq_jax.report.markup import Element, table


def rates(found: Findings) -> Element | None:
    """Return the section of rates; None without images to count them on."""
    if not found.num_images:
        return None
    pixels = found.run.stream.num_pixels
    cells = [
        [name, f"{bits:,.1f}", f"{bits / 8:,.1f}", f"{bits / pixels:.3f}", quality]
        for name, bits, quality in _rows(found)
    ]
    content = [table(["", "bits per image", "bytes", "bits per pixel", "PSNR"], cells)]
    return section(
        "Rates",
        figure(
            content,
            f"What a test image costs, by the mean over {found.num_images:,} images: as pixels, as its latent without "
            "and with a prior, and in an .hvq file that was written and read back.",
            good="codes that cost less and less from row to row, and a file hardly larger than the prior says."
            if found.run.stream.has_prior
            else "",
            bad="a prior that is no better than the frequencies of codes: train it longer, or make it larger."
            if found.run.stream.has_prior
            else "",
            narrow=True,
        ),
    )


def _rows(found: Findings) -> Iterator[tuple[str, float, str]]:
    """Yield the name, the bits per image and the quality of each way."""
    metrics = found.metrics
    yield "raw pixels", 8.0 * math.prod(found.run.stream.model.image_shape), "exact"
    yield "as PNG", metrics["png_bits_per_image"], "exact"
    known = found.psnr_of_rounded if found.is_measured else None
    psnr = "–" if known is None else f"{known:.2f} dB"
    yield "codes, each of the same length", bits_of_equal_length(found), psnr if found.is_discrete else "–"
    if not found.is_measured:
        return
    if "static_bits_of_codes" in metrics:
        yield "codes, by their frequencies", metrics["static_bits_of_codes"], "–"
    if "bits_per_image" in metrics:
        per_nat = metrics["bits_per_image"] / metrics["nats_per_latent"]
        if metrics.get("nats_of_continuous"):
            yield "codes, by the prior", metrics["nats_of_codes"] * per_nat, "–"
            yield "gains or residuals, by the prior", metrics["nats_of_continuous"] * per_nat, "–"
        yield "latent, by the prior", metrics["bits_per_image"], psnr
    if "coded_bits_per_image" in metrics:
        if metrics["label_bits_per_image"]:
            yield "label", metrics["label_bits_per_image"], "–"
        yield "in the file", metrics["coded_bits_per_image"], f"{metrics['coded_psnr']:.2f} dB"


def bits_of_equal_length(found: Findings) -> float:
    """Return the bits per image of its codes where all have the same length."""
    stream = found.run.stream
    return math.prod(stream.latent_shape) * math.prod(stream.model.index_shape) * math.log2(stream.num_codes)
