"""The cards at the top: the numbers that matter, each with what it means."""

import math
from collections.abc import Iterator, Mapping

from hvq_jax.report.blocks import card, number, percent
from hvq_jax.report.findings import Findings
from hvq_jax.report.markup import Element, element


def cards(found: Findings) -> Element:
    """Return the cards of a run."""
    return element("div", [card(*texts) for texts in card_texts(found)], class_="cards")


def coded_metrics(found: Findings) -> Mapping[str, float]:
    """Return the metrics of a file: those measured here or, where no file can be coded here, those of the summary.

    The latter may be of another number of images; either has its own, `num_images`.
    """
    if "coded_bytes" in found.metrics:
        return found.metrics
    return found.summary.get("coded", {}).get("test", {})


def card_texts(found: Findings) -> Iterator[tuple[str, str, str]]:
    """Yield the name, the value and a note of each number that matters."""
    metrics, stream = found.metrics, found.run.stream
    if "psnr" in metrics:
        yield "PSNR of reconstructions", f"{metrics['psnr']:.2f} dB", "higher is better"
        yield "SSIM of reconstructions", f"{metrics['ssim']:.3f}", "1 is identical"
        yield "MSE on [−1, 1]", number(metrics["mse"]), "lower is better"
    if "perplexity" in metrics:
        used = f"{percent(metrics['codes_used'])} of {stream.num_codes:,} codes occur"
        yield "Codes in effect", f"{metrics['perplexity']:.0f}", used
    if "bits_per_image" in metrics:
        yield "Bits per image", f"{metrics['bits_per_image']:.0f}", "of its latent, by the prior"
    elif "nats_per_latent" in metrics:
        yield "Bits per latent", f"{metrics['nats_per_latent'] / math.log(2):.0f}", "by the prior"
    if "coded_bytes" in (coded := coded_metrics(found)):
        mean = coded["coded_bits_per_image"] / 8
        yield (
            "Bytes per image, in a file",
            f"{mean:.1f}",
            f"{coded['coded_bytes']:,} for {coded['num_images']:,} images",
        )
    if found.quality is not None and found.quality.samples is not None:
        test, drawn = found.quality.test.frechet, found.quality.samples.frechet
        yield "Fréchet distance of samples", number(drawn, 3), f"{number(test, 3)} for test images; lower is better"
        if found.quality.accuracy is not None:
            reference = f"{percent(found.quality.test_accuracy)} for test images"
            yield "Samples of the right class", percent(found.quality.accuracy), reference
