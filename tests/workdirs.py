"""Helpers to inspect the workdir of a run, and the one-line error of a failed command."""

import json

import train

# For tests that need more checkpoints of a tiny run than those after evaluations.
EVERY_STEP = "--config.autoencoder.checkpoint_every_steps=1"


def digests(workdir, stage):
    """Return the digests of the newest checkpoint's leaves: equal exactly if the states are, bit for bit."""
    folder = workdir / "checkpoints" / stage
    step = max(int(p.name) for p in folder.iterdir() if p.name.isdigit())
    return step, json.loads((folder / str(step) / "digests" / "metadata").read_text())


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def error_of(arguments, capsys):
    assert train.main(list(arguments)) != 0
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1, captured.err
    return captured.err
