"""What .hvq files of test images cost: bits beside those that the prior states, and time, for each latent and prior.

    python -m benchmarks.files --workdir=runs/files                                     # half an hour on two cores
    python -m benchmarks.files --workdir=runs/files --latents=vq --priors=pixelcnn --json=files.json

The runs are the quickstart with 100 steps of the prior. The prior is hardly trained then, but the question is how near
a file comes to the bits that its prior states. Runs are kept in WORKDIR and trained once. All test images are
compressed with their labels, decompressed and compared; then each of a few images alone. Times are those of
`evaluate.py`, per image and without compilation, of a repetition that other processes did not disturb. To compress
includes to decode every block, for the comparison that precedes a file.
"""

import argparse
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring.command import Parser, check_at_least, check_json, chosen, conditions
from benchmarks.measuring.quiet import Quietly
from benchmarks.measuring.table import Table
from hvq_jax.command import exit_status
from hvq_jax.devices import huge_pages
from hvq_jax.devices.xla import set_cpu_options
from hvq_jax.errors import UserError

_ROOT = Path(__file__).parents[1]
LATENTS = ("vq", "projected", "frequency", "combined")
PRIORS = {"pixelcnn": "PixelCNN", "transformer": "transformer"}
OPTIONS = ("prior.num_steps=100", "sampling.classify=False")
HEADER = [
    "latent, prior",
    "bits per image by the prior",
    "bytes of the file",
    "bits in the file / by the prior and of the label",
    "ms per image: compress",
    "decompress",
    "`--portable`: bytes more",
    "compress",
    "decompress",
    "one image: bits above its information, mean (most)",
]


def train(workdir: Path, latent: str, prior: str, options: tuple[str, ...]) -> Path:
    """Train a run, unless it is there; return its folder."""
    folder = workdir / f"{latent}_{prior}"
    if not (folder / "summary.json").exists():
        overrides = [f"--config.{option}" for option in (f"prior.name={prior}", *options)]
        config = ["--config=configs/quickstart.py:" + latent, f"--config.data.data_dir={workdir / 'data'}"]
        command = [sys.executable, "train.py", *config, *overrides, f"--workdir={folder}", "--quiet"]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"{' '.join(command)} failed: {(done.stderr.splitlines() or ['no output'])[-1]}")
    return folder


def cells(folder: Path, num_alone: int, quietly: Quietly) -> list[str]:
    """Return a row of the table but for its name, of the run's test split."""
    from hvq_jax.runs.coded_evaluation import evaluate_coded
    from hvq_jax.runs.compression_inputs import find_source
    from hvq_jax.runs.trained import TrainedRun

    run = TrainedRun.load(str(folder))
    test = find_source(run, None, "test")
    assert test.labels is not None

    def evaluated(*, portable: bool) -> dict[str, float]:
        return quietly(lambda: evaluate_coded(run, test, test.labels, portable=portable, timed=True))

    coded, portable = evaluated(portable=False), evaluated(portable=True)
    more = portable["coded_bytes"] - coded["coded_bytes"]
    alone = bits_above_information(run, np.stack([*itertools.islice(test, num_alone)]), test.labels)
    return [
        f"{coded['bits_per_image']:,.2f}",
        f"{coded['coded_bytes']:,}",
        f"{coded['coded_ratio']:.4f}",
        *_times(coded),
        f"{more} ({more / coded['coded_bytes']:.2%})".replace("%", " %"),
        *_times(portable),
        f"{alone.mean():.1f} ({alone.max():.1f})",
    ]


def bits_above_information(run: Any, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the bits [N] of each image's stream alone, without header and checksum, less its information."""
    from hvq_jax.runs.compression import RunCodec

    codec = run.made_once(RunCodec, with_labels=True)
    label_bits = np.log2(run.prior.num_classes + 1)
    above = []
    for index in range(len(images)):
        image, label = images[index : index + 1], labels[index : index + 1]
        tokens = np.concatenate(list(codec.tokens_of(image)))
        streams = codec.compressed([tokens], label, bare=True)
        (found,) = run.log_likelihood(tokens, label)
        bits = -float(found.per_image[0]) / np.log(2)
        above.append(8 * sum(map(len, streams)) - bits - label_bits)
    return np.array(above)


def _times(coded: dict[str, float]) -> list[str]:
    return [f"{coded[f'{name}_ms_per_image']:.1f}" for name in ("compress", "decompress")]


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the options; raise UserError if they are invalid."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--latents", default=",".join(LATENTS), help="default %(default)s")
    parser.add_argument("--priors", default=",".join(PRIORS), help="default %(default)s")
    parser.add_argument("--alone", type=int, default=20, help="images that are compressed alone, default %(default)s")
    parser.add_argument("--json", metavar="FILE", help="also write the table to this file")
    options = parser.parse_args(arguments)
    options.latents = chosen("--latents", options.latents, "latent", LATENTS)
    options.priors = chosen("--priors", options.priors, "prior", PRIORS)
    check_at_least(options, alone=1)
    check_json(options.json)
    return options


def main(arguments: list[str]) -> None:
    """Train what is missing, measure, and print a table."""
    options = parse(arguments)
    set_cpu_options()
    cases = [(latent, prior) for latent in options.latents for prior in options.priors]
    folders = {case: train(options.workdir.absolute(), *case, OPTIONS) for case in cases}
    quietly, table = Quietly(), Table(HEADER)
    for (latent, prior), folder in folders.items():
        table.add([f"`{latent}`, {PRIORS[prior]}", *cells(folder, options.alone, quietly)])
    table.end(f"{conditions(('jax', 'flax', 'numpy'), 1)}; {quietly}", options.json)


if __name__ == "__main__":
    huge_pages.start_again()  # as the commands do
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
