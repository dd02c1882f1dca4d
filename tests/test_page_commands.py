"""The commands in the README and in the pages of docs/ run, with options behind them that shorten them.

A test per page runs its commands in order, in one folder, so that a command finds what those before it wrote. With
`pytest -v` the names of the tests are the pages; `python -m tests.test_page_commands` lists the commands, and what
becomes of each. A command that is not run needs a reason in `ELSEWHERE` or `CHECKED`, or the test of its page fails.
"""

import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hvq_jax import commands
from hvq_jax.data.datasets import load_dataset
from hvq_jax.runs.flags import parse_command_line
from hvq_jax.runs.options import from_dict

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *(ROOT / "docs" / name for name in ("start.md", "tutorial.md"))]
PAGES += sorted((ROOT / "docs" / "howto").glob("*.md"))

# Commands that something else runs, which is named.
ELSEWHERE = {
    "make quickstart": ".ci/run",  # its one command, shortened
    "make test": ".ci/run",
    "python train.py * --plan": "tests/runs/test_overview.py",
    "git clone *": ".ci/run",  # works from a clean clone
    "pip install *": "tests/test_installation.py",
    "tfds build *": "tests/data/test_datasets.py",  # reads data sets of that form; there is no TensorFlow here
    "python train.py *data.name=NAME*": "tests/data/test_datasets.py",
    "python train.py *data.name=image_*": "tests/data/test_datasets_page.py",
    "python train.py *workdir=runs/gru": "tests/runs/test_additions.py",
    "python train.py *writers=tensorboard,trackio": "tests/runs/test_writers.py",
    "python train.py *prior.latents=grids.npz *": "tests/runs/test_prior_alone.py",
    "python sample.py --workdir=runs/digits *": "tests/runs/test_prior_alone.py",
    "python evaluate.py --workdir=runs/vq": "tests/runs/test_evaluate_command.py",
    "python -m hvq_jax.explore *": "tests/explore/test_explore.py",
    "python report.py *": "tests/report/test_html_report.py",
    "python export.py *": "tests/export/test_export_run.py",
    "python convert.py *": "tests/torch_reference/test_convert.py",
    "python train.py --workdir=runs/reference": "tests/torch_reference/test_convert.py",
}

# Commands whose options are checked, and no more: they differ from others in what they learn only.
CHECKED = (
    *("*workdir=runs/scratch*", "*workdir=runs/tuned*", "*workdir=runs/frozen*"),  # measurements: test_init_from.py
    *("*workdir=runs/q *", "*workdir=runs/parts *"),  # measurements: test_lengthened.py, test_accumulation.py
    *("*workdir=runs/fsq", "*workdir=runs/residual"),  # test_codebook_methods.py
)

# Of a training: a network of dense layers, which compiles in a second, and one step.
SMALL = (
    "--config.network.encoder=tests.plugins.patches:Encoder",
    "--config.network.decoder=tests.plugins.patches:Decoder",
    "--config.network.width=8",
    "--config.data.image_size=32",
    "--config.parallel=jit",
    "--config.stage=autoencoder",
    "--config.autoencoder.num_steps=1",
    "--config.autoencoder.steps_per_dispatch=1",
)


def commands_of(page):
    """Return the commands of a page, in fenced blocks without a language, each as a list of arguments from bash."""
    fenced = re.findall(r"^```(.*?)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    blocks = [block for language, block in fenced if not language]
    known = ("git", "hvq_jax", "make", "pip", "python", "tfds")
    shell = "".join(f"{name}() {{ printf '%s\\0' {name} \"$@\"; echo; }}\n" for name in known)
    shell += "cd() { :; }\nset -e\n" + "\n".join(blocks)
    printed = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert printed.returncode == 0, f"{page}: {printed.stderr}"
    return [line.split("\0")[:-1] for line in printed.stdout.splitlines()]


def what_runs(command):
    """Return the file that runs `command` elsewhere, "checked", or "run"."""
    line = " ".join(command)
    if places := [place for pattern, place in ELSEWHERE.items() if fnmatch(line, pattern)]:
        return places[0]
    return "checked" if any(fnmatch(line, pattern) for pattern in CHECKED) else "run"


def value(arguments, flag):
    """Return what stands behind `flag=`, or None."""
    return next((given.partition("=")[2] for given in arguments if given.startswith(f"{flag}=")), None)


def shortened(name, arguments, tiny_arguments):
    """Return the arguments of a command with others behind them, which make it take seconds."""
    if name == "evaluate" and not value(arguments, "--images"):
        return [*arguments, "--num_images=8"]
    if name == "sample" and value(arguments, "--num_samples"):
        return [*arguments, "--num_samples=16"]
    if name != "train":
        return arguments
    if not value(arguments, "--config"):  # a longer run
        return [*arguments, "--config.autoencoder.num_steps=8", "--config.stage=autoencoder"]
    tiny = tiny_arguments[1:]  # but for the config
    if value(arguments, "--config.data.manual_dir"):
        own_data = ("--config.data.data_dir=data", "--config.autoencoder.batch_size=2", "--config.parallel=jit")
        tiny = [*(option for option in tiny if not option.startswith("--config.data.")), *own_data]
    if value(arguments, "--config.latent.num_codes"):
        tiny = [option for option in tiny if not option.startswith("--config.latent.num_")]
    if Path(value(arguments, "--workdir")).exists():
        return [*arguments, *tiny]  # which has these options, and is finished
    if value(arguments, "--config.init_from"):
        return [*arguments, *tiny, "--config.autoencoder.num_steps=1", "--config.stage=autoencoder"]
    return [*arguments, *tiny, *SMALL]


@pytest.fixture
def place(tmp_path, monkeypatch, trained_run, data_dir):
    """A folder with what the pages take as given: the quickstart's run, as runs/a too, and images."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained_run, "runs/quickstart")
    Path("runs/a").symlink_to("quickstart")
    images, _ = load_dataset("fashion_mnist", data_dir=data_dir).test.read(np.arange(4))
    for number, image in enumerate(images):
        path = Path("photos", ("Coat", "Dress")[number % 2], f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    shutil.copy(path, "image.png")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.usefixtures("without_plots")
def test_every_command_of_a_page_runs_or_is_run_by_what_is_named(page, request, tiny_arguments):
    for command in commands_of(page):
        how = what_runs(command)
        if how not in ("run", "checked"):
            assert (ROOT / how).exists(), how
            continue
        program, script, *arguments = command
        assert program == "python", f"{' '.join(command)} is not run by this test: see its docstring"
        if how == "checked":
            config = [] if value(arguments, "--config") else ["--config=configs/quickstart.py"]
            from_dict(parse_command_line([*config, *arguments]).config)
            continue
        request.getfixturevalue("place")
        given = shortened(script.removesuffix(".py"), arguments, tiny_arguments)
        assert commands.main(script.removesuffix(".py"), given) == 0, given
        written = value(arguments, "--out") or value(arguments, "--workdir")
        assert Path(written).exists(), given


def test_a_command_that_is_not_covered_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```\npython sample.py --a='b c' \\\n    --d  # of two lines\n```\n```text\nan output\n```\n")
    assert commands_of(page) == [["python", "sample.py", "--a=b c", "--d"]]
    page.write_text("```\nunknown --command\n```\n")
    with pytest.raises(AssertionError, match="unknown: command not found"):
        commands_of(page)


if __name__ == "__main__":
    for page in PAGES:
        for command in commands_of(page):
            print(f"{page.relative_to(ROOT)}: {' '.join(command)}\n    {what_runs(command)}")
