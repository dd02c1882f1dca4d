"""How fast images reach the training step, and whether streaming them takes constant memory.

    python -m benchmarks.data

Every data set is noise in a temporary folder. Rates are those of batches of 128 after a warm-up, as the median of
several repetitions. Compare them only within a run, because they depend on the load of the machine.
"""

import argparse
import contextlib
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from benchmarks.measuring.command import Parser, check_at_least
from benchmarks.workloads.image_formats import write_files, write_formats
from hvq_jax.command import exit_status
from hvq_jax.data.augment import Augmentation
from hvq_jax.data.datasets import AnySplit, load_dataset
from hvq_jax.data.pipeline import train_batches
from hvq_jax.devices.cores import number_of_cores

BATCH_SIZE = 128
FLIP_AND_CROP = Augmentation(flip=True, crop_padding=4)
RESIZED_CROP = Augmentation(flip=True, resized_crop_min_scale=0.5)
FLAT_MIB = 32  # streaming counts as flat if memory grows by less than this after a tenth of the images
FORMATS_IMAGE_SIZE = 128


def main(arguments: list[str]) -> None:
    """Measure everything and print a table."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000, help="32×32×3 images to stream (default %(default)s)")
    parser.add_argument("--files", type=int, default=2000, help="image files, in each format (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a repetition (default %(default)s)")
    parser.add_argument("--repetitions", type=int, default=5, help="repetitions per rate (default %(default)s)")
    options = parser.parse_args(arguments)
    check_at_least(options, images=20 * BATCH_SIZE, files=2 * BATCH_SIZE, seconds=0.01, repetitions=1)
    with tempfile.TemporaryDirectory() as folder:
        write_noise(folder, options.images)
        streamed = load_dataset("noise", data_dir=folder, memory_gib=0).train
        print_memory(streamed)
        title = f"images/s on {number_of_cores()} cores"
        print(f"\n{title:40} {'median':>9} {'slowest':>9} {'fastest':>9} {'bar':>9}")
        print_rates(options, "streamed 32×32×3, shuffled", streamed, bar=10_000)
        print_rates(options, "  with flip and crop", streamed, FLIP_AND_CROP, bar=10_000)
        kept = load_dataset("noise", data_dir=folder).train
        print_rates(options, "in memory 32×32×3, shuffled", kept, bar=50_000)
        print_rates(options, "  with flip and crop", kept, FLIP_AND_CROP, bar=50_000)
        print_rates(options, "  with flip and resized crop", kept, RESIZED_CROP)
        files = pathlib.Path(folder) / "files"
        write_files(files, options.files)
        formats = write_formats(files, pathlib.Path(folder) / "formats", FORMATS_IMAGE_SIZE)
        for words, (name, path) in formats.items():
            print_format_rates(options, folder, words, name, path)


class Noise(tfds.core.GeneratorBasedBuilder):
    """Random 32×32 colour images of ten classes."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, count: int, **options: Any):
        self._count = count
        super().__init__(**options)

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Tensor(shape=(32, 32, 3), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)
        features = tfds.features.FeaturesDict({"image": image, "label": tfds.features.ClassLabel(num_classes=10)})
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        counts = {"train": self._count, "validation": 1000, "test": 1000}
        return {split: self._generate_examples(count) for split, count in counts.items()}

    def _generate_examples(self, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        random = np.random.default_rng(0)
        for number in range(count):
            yield number, {"image": random.integers(0, 256, (32, 32, 3), np.uint8), "label": number % 10}


def write_noise(folder: str, count: int) -> None:
    """Prepare the data set "noise" in `folder`."""
    tfds.disable_progress_bar()
    start = time.monotonic()
    with contextlib.redirect_stdout(None):
        Noise(count=count, data_dir=folder, file_format="array_record").download_and_prepare()
    print(f"wrote {count} 32×32×3 images in array_record format in {time.monotonic() - start:.0f} s")


def print_memory(split: AnySplit) -> None:
    """Stream the whole split once and print the resident memory along the way."""
    print("\nmemory while streaming")
    sizes = []
    steps = len(split) // BATCH_SIZE
    with contextlib.closing(train_batches(split, batch_size=BATCH_SIZE, seed=0)) as batches:
        for step in range(1, steps + 1):
            next(batches)
            if step * 20 // steps > (step - 1) * 20 // steps:
                sizes.append(resident_mib())
                print(f"{step * BATCH_SIZE:9} images {sizes[-1]:7.1f} MiB  {'#' * round(sizes[-1] / 10)}")
    growth = max(sizes[2:]) - sizes[1]
    print(f"{'flat' if growth < FLAT_MIB else 'NOT FLAT'}: {growth:+.1f} MiB after the first tenth")


def resident_mib() -> float:
    """Return the resident set size of the process."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def print_rates(
    options: argparse.Namespace,
    name: str,
    split: AnySplit,
    augmentation: Augmentation | None = None,
    bar: int | None = None,
) -> None:
    """Print a row of the table for training batches of a split."""
    rates = []
    with contextlib.closing(train_batches(split, batch_size=BATCH_SIZE, seed=0, augmentation=augmentation)) as batches:
        for _ in range(20):
            next(batches)
        for _ in range(options.repetitions):
            start, count = time.monotonic(), 0
            while time.monotonic() < start + options.seconds:
                next(batches)
                count += BATCH_SIZE
            rates.append(count / (time.monotonic() - start))
    print_row(name, rates, bar)


def print_row(name: str, rates: list[float], bar: int | None) -> None:
    """Print a row of the table."""
    median = statistics.median(rates)
    verdict = "" if bar is None else f"{bar:10,}  {'met' if median >= bar else 'MISSED'}"
    load, _, _ = os.getloadavg()
    print(f"{name:40} {median:9,.0f} {min(rates):9,.0f} {max(rates):9,.0f}{verdict:18} (load {load:.1f})", flush=True)


def print_format_rates(options: argparse.Namespace, folder: str, words: str, name: str, path: pathlib.Path) -> None:
    """Prepare the images of one format, then print its rows, streamed and in memory."""

    def load(**choices: Any) -> AnySplit:
        return load_dataset(
            name,
            data_dir=folder,
            manual_dir=path,
            image_size=FORMATS_IMAGE_SIZE,
            validation_size=options.files // 10,
            test_size=options.files // 10,
            **choices,
        ).train

    start = time.monotonic()
    streamed = load(memory_gib=0)
    side = FORMATS_IMAGE_SIZE
    print_row(f"{words}, prepared at {side}×{side}", [options.files / (time.monotonic() - start)], 400)
    print_rates(options, "  streamed", streamed, bar=400)
    print_rates(options, "  in memory", load(), bar=400)
    if name == "image_folder":
        print_rates(options, "  in memory, flip and resized crop", load(), RESIZED_CROP, bar=400)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
