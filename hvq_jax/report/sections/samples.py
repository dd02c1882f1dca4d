"""Samples beside the nearest training images, and what a small classifier says of them."""

import numpy as np

from hvq_jax.report.blocks import figure, number, percent, section
from hvq_jax.report.findings import Detail, Drawn, Findings
from hvq_jax.report.markup import Element, element, table
from hvq_jax.report.pictures import mapped, picture
from hvq_jax.report.samples import Quality

_MOST_CLASSES = 20  # of a table


def samples(found: Findings, detail: Detail) -> Element | None:
    """Return the section with samples and their nearest training images."""
    if found.drawn is None:
        return None
    drawn, columns = found.drawn, []
    for place, number_of_sample in enumerate(drawn.shown[: detail.examples]):
        name = found.class_name(int(drawn.labels[number_of_sample]))
        of_class = f" of {name}" if name else ""
        distance = drawn.nearest.distances[place]
        cells = [
            element("span", name, class_="head"),
            picture(drawn.images[number_of_sample], f"sample{of_class}"),
            picture(drawn.nearest.images[place], f"training image nearest to the sample{of_class}"),
            element("span", f"{distance:.3f}"),
        ]
        columns.append(element("div", cells, class_="stack"))
    return section(
        "Samples",
        figure(
            [element("div", columns, class_="stacks"), element("p", _distances(drawn))],
            "Images drawn from the prior on top, the training image nearest to each below, and their distance: the "
            "root of the mean squared difference of pixels, on [0, 1].",
            good="samples that look like the data, each other than its nearest training image by about as much as "
            "test images are.",
            bad="samples that fall apart, or distances near 0: then training images are copied.",
        ),
    )


def _distances(drawn: Drawn) -> str:
    ours, test = np.median(drawn.nearest.distances), np.median(drawn.nearest_to_test)
    return f"Median distance: {ours:.3f} of these samples, {test:.3f} of test images, to the nearest training image."


def judged(found: Findings) -> Element | None:
    """Return the section with the classifier's metrics."""
    if found.quality is None:
        return None
    quality, count = found.quality, found.num_images
    rows = [
        [name, number(each.frechet, 3), f"{each.precision:.3f}", f"{each.recall:.3f}"]
        for name, each in (
            ("test images", quality.test),
            ("reconstructions", quality.reconstructions),
            ("samples", quality.samples),
        )
        if each is not None
    ]
    metrics = figure(
        table(["", "Fréchet distance", "precision", "recall"], rows),
        f"{count:,} images of each kind compared with as many training images, by the features of a small classifier "
        "that was trained on this data set. Its distances are comparable between runs on the same data and of the "
        "same number of images, and not with published FIDs. Precision is the share of images that lie among the "
        "training images, recall the share of training images that lie among them.",
        good="rows that are close to that of test images.",
        bad="a distance many times as large; low precision (unrealistic images) or low recall (little variety).",
        narrow=True,
    )
    return section("As a classifier sees them", metrics, _confusion(found, quality))


def _confusion(found: Findings, quality: Quality) -> Element | None:
    if quality.confusion is None:
        return None
    names, counts = found.class_names, quality.confusion
    if len(names) > _MOST_CLASSES:
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        content = picture(mapped(shares, "viridis", 0, 1), "Confusion matrix of samples", class_="matrix")
    else:
        content = _matrix(names, counts)
    return figure(
        content,
        "How many samples drawn for a class (rows) the classifier takes for which (columns, in the same order): "
        f"{percent(quality.accuracy or 0.0)} of samples are taken for their own class, and "
        f"{percent(quality.test_accuracy)} of test images.",
        good="nearly all counts on the diagonal.",
        bad="a column that collects samples of many classes, or a pair of classes that is confused more often than "
        "in test images.",
        narrow=True,
    )


def _matrix(names: tuple[str, ...], counts: np.ndarray) -> Element:
    made = table(
        ["", *(str(column) for column in range(len(names)))],
        [[f"{row} {name}", *counts[row]] for row, name in enumerate(names)],
        class_="matrix",
    )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for cell, share in zip(made.iter("td"), shares.ravel(), strict=True):
        cell.set("style", f"--share:{100 * share:.0f}%")
    return made
