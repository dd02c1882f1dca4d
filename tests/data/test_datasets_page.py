"""The commands of docs/howto/data.md, on the files that its program writes: every format holds the same data set."""

import dataclasses
import re
import subprocess
from pathlib import Path

import numpy as np

from hvq_jax.data.datasets import open_dataset
from hvq_jax.runs.flags import parse_command_line
from hvq_jax.runs.options import from_dict

PAGE = Path(__file__).parents[2].joinpath("docs", "howto", "data.md").read_text()


def test_every_format_of_the_page_holds_the_same_images(tmp_path, prepared_dir, mini, monkeypatch):
    blocks = re.findall(r"^```\w*\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (program,) = (block for block in blocks if "import tarfile" in block)
    (commands,) = (block for block in blocks if "$TRAIN" in block)
    config = str(Path("configs/quickstart.py").absolute())
    (tmp_path / "data").symlink_to(prepared_dir)
    monkeypatch.chdir(tmp_path)
    exec(program.replace("2000", "200").replace("1000", "100"), {})
    shell = 'python() { shift; echo "$@"; }\n' + commands.replace("configs/quickstart.py", config)
    lines = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True).stdout.splitlines()
    options = [from_dict(parse_command_line(line.split()).config).data for line in lines]
    opened = [open_dataset(given) for given in options]
    streamed = [open_dataset(dataclasses.replace(given, memory_gib=0)) for given in options]
    assert len(opened) == 5
    assert len({dataset.fingerprint() for dataset in opened + streamed}) == 1
    images, labels = mini.train.read(np.arange(200))
    stored = [(image.tobytes(), label) for image, label in zip(images, labels.tolist(), strict=True)]
    splits = (opened[0].train, opened[0].validation, opened[0].test)
    found = [(i.tobytes(), n) for split in splits for i, n in zip(split.items, split.labels.tolist(), strict=True)]
    assert sorted(found) == sorted(stored)
