"""Image codecs on test images, beside k-means of patches, PCA and our runs: bits per image against error.

    pip install -r requirements-bench.txt
    python -m benchmarks.codecs --manual_dir=FOLDER --out=docs/performance/codecs_fashion_mnist
    python -m benchmarks.codecs --data=image_folder --manual_dir=PHOTOS --out=photos --workdir=runs/a --workdir=runs/b

JPEG, WebP, JPEG 2000, JPEG XL and AVIF code the test images with Pillow at several qualities: mosaics of 2,000, which
share their headers, and the first 2,000 images as files of their own. k-means of raw patches and PCA are fitted to the
training images; their symbols are coded under static frequencies, in one stream for all test images. Those tables,
centres and components are not counted, and neither are the networks of our runs, which code the images as an .hvq
file (`evaluate_coded`). Everything that is counted was decoded, and the error is that of what was decoded.

Writes OUT.json after each curve, and at the end OUT.md, its tables, and OUT.png. Curves that OUT.json has are not
measured again. A codec that is not installed is reported, and the others go on.
"""

import argparse
import datetime
import importlib.util
import operator
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import features

from benchmarks.measuring.codec_curves import (
    KMEANS,
    MOSAICS,
    PCA,
    SINGLE_FILES,
    Curve,
    Report,
    image_codec_curve,
    kmeans_curve,
    pca_curve,
    read_report,
)
from benchmarks.measuring.codec_report import tables, write_report
from benchmarks.measuring.command import Parser, check_at_least, chosen, versions
from benchmarks.peers.image_codecs import IMAGE_CODECS
from benchmarks.peers.patch_codes import SIDE
from hvq_jax.command import exit_status
from hvq_jax.data.datasets import AnySplit, ImageDataset, open_dataset
from hvq_jax.data.options import DataOptions
from hvq_jax.devices.cores import number_of_cores
from hvq_jax.devices.xla import keep_compiled_programs, set_cpu_options
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.files import check_writable, full_path, write_json
from hvq_jax.progress import progress_bar
from hvq_jax.runs.coded_evaluation import evaluate_coded
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.runs.workdir import read_description

CODECS = (*IMAGE_CODECS, KMEANS, PCA)
_PACKAGES = ("pillow", "pillow-jxl-plugin", "constriction", "scikit-learn", "numpy", "jax")
_LIBRARIES = {"libjpeg_turbo": "libjpeg-turbo", "webp": "libwebp", "jpg_2000": "OpenJPEG", "avif": "libavif"}
_MOST_TO_FIT = 60_000  # images

Measure = Callable[[], Curve]


def works(options: argparse.Namespace, dataset: ImageDataset) -> Iterator[tuple[str, Measure]]:
    """Yield the name of each curve to measure, and what measures it; print a line for each codec that is missing."""
    test = _items(dataset.test, options.images)
    if options.shuffle:
        test = test[np.random.default_rng(0).permutation(len(test))]
    train = _items(dataset.train, _MOST_TO_FIT)
    for codec in options.codecs:
        missing = _missing(codec, test.shape[1:])
        if missing:
            print(f"{codec}: left out: {missing}", file=sys.stderr, flush=True)
        elif codec in IMAGE_CODECS:
            measure = partial(image_codec_curve, IMAGE_CODECS[codec])
            yield f"{codec}, {MOSAICS}", partial(measure, test, options.per_mosaic, _watch(f"{codec}, {MOSAICS}"))
            if options.single_files:
                single = test[: options.single_files]
                yield f"{codec}, {SINGLE_FILES}", partial(measure, single, 1, _watch(f"{codec}, {SINGLE_FILES}"))
        else:
            yield codec, partial(kmeans_curve if codec == KMEANS else pca_curve, train, test, _watch(codec))
    for workdir in options.workdir:
        yield f"run {Path(workdir).name}", partial(run_curve, workdir, dataset, len(test))


def _missing(codec: str, image_shape: tuple[int, ...]) -> str:
    """Return why a codec cannot be measured, "" if it can."""
    if codec in IMAGE_CODECS:
        return IMAGE_CODECS[codec].missing()
    if codec == KMEANS:
        if importlib.util.find_spec("sklearn") is None:
            return "scikit-learn is not installed: pip install -r requirements-bench.txt"
        if image_shape[0] % SIDE or image_shape[1] % SIDE:
            return f"its patches of {SIDE}×{SIDE} do not fill images of {image_shape[0]}×{image_shape[1]}"
    return ""


def run_curve(workdir: str, dataset: ImageDataset, num_images: int) -> Curve:
    """Return the one point of a trained run on the first images of the test split.

    Raises UserError if the run has no prior, or was trained on other data.
    """
    run = TrainedRun.load(workdir)
    if read_description(run.workdir)["fingerprint"] != dataset.fingerprint():
        raise UserError(f"--workdir={workdir}: was trained on other data than --data: give the options that it had")
    if not run.has_prior:
        raise UserError(f"--workdir={workdir}: has no prior yet, and so no bits: train it with stage=prior")
    images, labels = dataset.test.read(np.arange(num_images))
    given = labels if run.prior.num_classes else None
    found = evaluate_coded(run, images, given, watch=_watch(f"run {Path(workdir).name}"))
    mode = run.options.latent.mode
    return {
        "settings": f"{mode}, prior {run.options.prior.name}",
        "points": [
            {
                "setting": mode,
                "images": len(images),
                "bits_per_image": found["coded_bits_per_image"],
                "mse": found["coded_mse"],
                "psnr": found["coded_psnr"],
                "ssim": found["coded_ssim"],
            }
        ],
    }


def _items(split: AnySplit, most: int) -> np.ndarray:
    """Return the first images of a split, at most so many."""
    return split.read(np.arange(min(len(split), most)))[0]


def _watch(title: str) -> Callable[[Iterable[Any]], Iterator[Any]]:
    """Return a function that shows how many of the items it is given are done."""

    def watch(items: Iterable[Any]) -> Iterator[Any]:
        with progress_bar(total=operator.length_hint(items) or None, desc=title) as progress:
            for item in items:
                yield item
                progress.update()

    return watch


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the options; raise UserError if they are invalid."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--out", required=True, metavar="STEM", help="write STEM.json, STEM.md and STEM.png")
    parser.add_argument("--data", default="fashion_mnist", help="the data set, as data.name; default %(default)s")
    parser.add_argument("--title", help="name of the data set in tables; default that of --data")
    parser.add_argument("--data_dir", help="folder of prepared data sets")
    parser.add_argument("--manual_dir", help="folder of the published files, or of image_folder")
    parser.add_argument("--image_size", type=int, default=0, help="side of the images; default 0, as stored")
    parser.add_argument("--channels", type=int, default=0, help="1: grey, 3: colour; default 0, as stored")
    parser.add_argument("--codecs", default=",".join(CODECS), help="some of them, or none; default %(default)s")
    parser.add_argument("--images", type=int, default=10_000, help="test images at most; default %(default)s")
    parser.add_argument(
        "--single_files",
        type=int,
        default=2000,
        help="first images that also get their own files; default %(default)s",
    )
    parser.add_argument("--per_mosaic", type=int, default=2000, help="images per mosaic; default %(default)s")
    parser.add_argument(
        "--shuffle", action="store_true", help="shuffle the test images, if those beside each other belong together"
    )
    parser.add_argument("--workdir", action="append", default=[], help="a trained run to add; may be repeated")
    parser.add_argument("--draw", action="store_true", help="measure nothing; write tables and plot of STEM.json")
    options = parser.parse_args(arguments)
    check_at_least(options, images=1, single_files=0, per_mosaic=2)
    options.codecs = chosen("--codecs", options.codecs, "codec", CODECS) if options.codecs else []
    names = [Path(workdir).name for workdir in options.workdir]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--workdir: two folders are called {name}: rename one")
    options.out = full_path(options.out)
    check_writable(options.out)
    return options


def _open(options: argparse.Namespace) -> ImageDataset:
    try:
        data = DataOptions(
            name=options.data,
            data_dir=options.data_dir,
            manual_dir=options.manual_dir,
            image_size=options.image_size,
            channels=options.channels,
        )
    except ArgumentError as error:
        raise error.within("--") from None
    return open_dataset(data)


def new_report(options: argparse.Namespace, dataset: ImageDataset) -> Report:
    """Return the report of a data set, without curves."""
    return {
        "data": options.title or options.data,
        "image_shape": list(dataset.image_shape),
        "train_images": min(len(dataset.train), _MOST_TO_FIT),
        "test_images": min(len(dataset.test), options.images),
        "images_per_mosaic": options.per_mosaic,
        "shuffled": options.shuffle,
        "versions": _versions(),
        "device": f"{jax.devices()[0].device_kind}, {number_of_cores()} cores",
        "date": datetime.date.today().isoformat(),
        "curves": {},
    }


def _versions() -> dict[str, str]:
    found = versions(name for name in _PACKAGES if _is_installed(name))
    libraries = {name: features.version(key) for key, name in _LIBRARIES.items()}
    return {**found, **{name: number for name, number in libraries.items() if number}}


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _continued(path: Path, report: Report) -> Report:
    """Return the report with the curves that the file has; raise UserError if they are of other images."""
    if not path.exists():
        return report
    stored = read_report(path)
    for key in ("data", "image_shape", "train_images", "test_images", "images_per_mosaic", "shuffled"):
        if stored[key] != report[key]:
            raise UserError(f"{path}: has {key} {stored[key]}, not {report[key]}: choose another --out")
    return {**report, "curves": stored["curves"]}


def _order(name: str) -> tuple[int, str]:
    """Return the place of a curve in the report: codecs as in `CODECS`, mosaics first, then runs."""
    codec = name.removesuffix(f", {MOSAICS}").removesuffix(f", {SINGLE_FILES}")
    return CODECS.index(codec) if codec in CODECS else len(CODECS), name


def main(arguments: list[str]) -> None:
    """Measure the curves that are not there yet, and write the report."""
    options = parse(arguments)
    path = options.out.with_name(f"{options.out.name}.json")
    if options.draw:
        report = read_report(path)
    else:
        dataset = _open(options)
        report = _continued(path, new_report(options, dataset))
        for name, measure in works(options, dataset):
            if name not in report["curves"]:
                curves = {**report["curves"], name: measure()}
                report["curves"] = {name: curves[name] for name in sorted(curves, key=_order)}
                write_json(path, report)
    write_report(report, options.out)
    print(tables(report), end="")


if __name__ == "__main__":
    set_cpu_options()
    keep_compiled_programs()
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
