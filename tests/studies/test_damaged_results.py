"""Damage to the results that a study keeps: one line names the file and what to do."""

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from hvq_jax.errors import UserError
from studies import find_results, tables
from studies.cells import Cell
from studies.codebooks import revival
from studies.rates.report import SETTINGS, about, read_result, settings as settings_table
from studies.samples.evaluate import read_baseline
from studies.samples.report import read_judgement
from studies.samples.sweep import read_sweep
from studies.stability.probe import read_probe

KEPT = {
    "rates": sorted(find_results("rates").glob("*.json")),
    "samples": sorted(find_results("samples").glob("judged-*.json")),
    "sweeps": sorted(find_results("samples").glob("sweep-*.json")),
    "baseline": [find_results("samples") / "classifier.json"],
    "probe": sorted(find_results("stability").glob("probe-*.json")),
    "revival": [revival.PATH],
    "cells": sorted(find_results("codebooks").glob("*.json")),
}
VALUES = st.sampled_from([None, True, "x", [], {}, [1], 2**70, {"mse": "x"}])


def read_kept(kind: str, path) -> None:
    """Read a result and format it, as the report of its study does."""
    if kind == "rates":
        found = {path.stem: read_result(path)}
        about(found)
        for names in SETTINGS:
            settings_table(found, names)
    elif kind == "sweeps":
        read_sweep(path)
    elif kind == "baseline":
        read_baseline(path)
    elif kind == "probe":
        read_probe(path)
    elif kind == "revival":
        revival.table(revival.read_results(path))
    elif kind == "samples":
        read_judgement(path)
    else:
        cell = Cell("c:vq", {"latent": "vq"}, 0, ())
        object.__setattr__(cell, "name", path.stem)  # a cached property
        tables.table([[cell]], path.parent)


@st.composite
def damaged(draw, content: str) -> str:
    value = json.loads(content)
    parent, key = {"": value}, ""
    for _ in range(draw(st.integers(1, 3))):
        inner = parent[key]
        if not isinstance(inner, dict | list) or not inner:
            break
        parent, key = inner, draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
    if draw(st.booleans()):
        parent[key] = draw(VALUES)
    elif key != "":
        del parent[key]
    text = json.dumps(value)
    return text if draw(st.booleans()) else text[: draw(st.integers(0, len(text)))]


@pytest.mark.parametrize("kind", KEPT)
@settings(max_examples=30)
@given(data=st.data())
def test_a_result_is_read_or_named(tmp_path_factory, kind, data):
    kept = data.draw(st.sampled_from(KEPT[kind]))
    folder = tmp_path_factory.mktemp("results")
    path = folder / kept.name
    path.write_text(data.draw(damaged(kept.read_text())))
    if kind == "cells":
        path.with_suffix(".npz").symlink_to(kept.with_suffix(".npz").resolve())
    try:
        read_kept(kind, path)
    except UserError as error:
        message = str(error)
    else:
        return
    assert message.startswith(f"{path} ")
    assert "again" in message
    assert "\n" not in message
