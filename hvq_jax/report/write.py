"""The report as a file."""

from collections.abc import Sequence
from pathlib import Path

from hvq_jax.errors import UserError
from hvq_jax.files import check_writable, full_path, write_text
from hvq_jax.layout import REPORT
from hvq_jax.progress import print_line
from hvq_jax.report.findings import find, names_of
from hvq_jax.report.page import MOST_BYTES, MOST_SIZE, REMEDY, make_page
from hvq_jax.runs.outputs import check_out
from hvq_jax.runs.trained import TrainedRun

ENDING = ".html"


def write_report(workdirs: Sequence[str], out: str | None = None, *, num_images: int = 1000, seed: int = 0) -> Path:
    """Write a report of one or several runs; return its path.

    Args:
        workdirs: the folders of the runs.
        out: the file to write, a .html; None: report.html in the folder of the only run.
        num_images: test images to measure, and samples to draw, at most.
        seed: of the samples, and of the classifier that judges them.

    Raises:
        UserError: there is no such run, its files are damaged, or the report cannot be written.
    """
    given = [str(workdir) for workdir in workdirs]
    _check_named(given, out)
    opened = [TrainedRun.load(workdir) for workdir in given]  # all of them, before what takes time
    path = _path(given, out)
    runs = [
        find(run, name, num_images=num_images, seed=seed) for run, name in zip(opened, names_of(given), strict=True)
    ]
    page = make_page(runs)
    if (size := len(page.encode())) > MOST_BYTES:
        print_line(f"the report takes {size / 1e6:.1f} MB, more than {MOST_SIZE}: {REMEDY}")
    write_text(path, page)
    return path


def _check_named(workdirs: Sequence[str], out: str | None) -> None:
    """Raise UserError for what the names alone tell."""
    paths = [full_path(workdir) for workdir in workdirs]
    if repeated := [name for name, path in zip(workdirs, paths, strict=True) if paths.count(path) > 1]:
        raise UserError(f"--workdir={repeated[0]}: is named more than once; omit one")
    if out is None and len(workdirs) > 1:
        raise UserError("--out is required for a report of several runs, such as --out=report.html")
    if out is not None and Path(out).suffix != ENDING:
        raise UserError(f"--out={out}: must end in {ENDING}")


def _path(workdirs: Sequence[str], out: str | None) -> Path:
    """Return the file to write, once there is such a run; UserError if it cannot be written."""
    if out is None:
        path = full_path(workdirs[0]) / REPORT
        check_writable(path)
        return path
    for workdir in workdirs:
        check_out(out, 1, workdir=workdir, endings=(ENDING,))
    return full_path(out)
