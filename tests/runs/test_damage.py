"""Damage to the files of a workdir: what is read is what was written, or one line names the file and what to do."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import sample
import train
from hvq_jax.data.held_out import SPLITS
from hvq_jax.errors import UserError
from hvq_jax.layout import CONFIG, DATASET, FORMAT, FORMAT_FILE, LATENTS, METRICS, SUMMARY, TABLES
from hvq_jax.runs.latent_files import check_latents, read_latents, read_tables
from hvq_jax.runs.options import RunOptions
from hvq_jax.runs.summary import read_summary
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.runs.workdir import check_format, load_options, read_description
from hvq_jax.training.logging import read_records
from tests.workdirs import error_of

SMALL = (CONFIG, DATASET, FORMAT_FILE, SUMMARY, METRICS, TABLES, LATENTS)
VALUES = st.sampled_from([None, True, -1, 0, 1.5, 2**70, float("nan"), "", "x", [], {}, [1], [[]], {"step": {}}])


@pytest.fixture(scope="module")
def run(trained_run, tmp_path_factory):
    """A run in a workdir without checkpoints, whose files are damaged and written again."""
    workdir = tmp_path_factory.mktemp("damaged")
    for name in SMALL:
        shutil.copy(trained_run / name, workdir)
    return TrainedRun.load(workdir)


def paths(value: Any) -> list[tuple[Any, ...]]:
    """Return the keys that lead to each value in `value`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(), *((key, *rest) for key, inner in items for rest in paths(inner))]


def changed(value: Any, path: tuple[Any, ...], change: Callable[[Any, Any], Any]) -> Any:
    """Return a copy of `value` after `change` of the dictionary or list, and the key, at the end of `path`."""
    copy = {"": json.loads(json.dumps(value))}
    *parents, last = ("", *path)
    inner: Any = copy
    for key in parents:
        inner = inner[key]
    change(inner, last)
    return copy.get("")


def drop(parent, key):
    del parent[key]


def reverse(parent, key):
    if isinstance(parent[key], dict):
        parent[key] = dict(reversed(parent[key].items()))


@st.composite
def damaged_json(draw, content: bytes) -> bytes:
    value = json.loads(content)
    path = draw(st.sampled_from(paths(value)))
    replacement = draw(VALUES)
    change = draw(st.sampled_from([drop, reverse, lambda parent, key: parent.__setitem__(key, replacement)]))
    return json.dumps(changed(value, path, change)).encode()


@st.composite
def damaged_bytes(draw, content: bytes) -> bytes:
    damaged = bytearray(content)
    if draw(st.booleans()):
        del damaged[draw(st.integers(0, len(content) - 1)) :]
    for _ in range(draw(st.integers(0, 3))):
        if damaged:
            damaged[draw(st.integers(0, len(damaged) - 1))] = draw(st.integers(0, 255))
    return bytes(damaged)


def damaged(run: TrainedRun, name: str) -> st.SearchStrategy[bytes]:
    content = (run.workdir / name).read_bytes()
    return damaged_json(content) | damaged_bytes(content)


def outcome(run: TrainedRun, name: str, content: bytes, read: Callable[[], Any]) -> Any:
    """Return what `read` returns with other `content` of a file, None after one line that names it."""
    path = run.workdir / name
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        return read()
    except UserError as error:
        message = str(error)
    finally:
        path.write_bytes(before)
    assert str(run.workdir) in message
    assert name in message or "another version" in message
    assert "\n" not in message
    return None


@settings(max_examples=40)
@given(data=st.data())
def test_the_data_set_is_as_it_was_written(run, data):
    content = data.draw(damaged(run, DATASET))
    found = outcome(run, DATASET, content, lambda: read_description(run.workdir))
    assert found is None or found == read_description(run.workdir)


@settings(max_examples=40)
@given(data=st.data())
def test_a_config_has_every_option_with_its_type(run, data):
    content = data.draw(damaged(run, CONFIG))
    found = outcome(run, CONFIG, content, lambda: load_options(run.workdir))
    assert found is None or isinstance(found, RunOptions)


@given(data=st.data())
def test_a_format_is_a_number(run, data):
    content = data.draw(damaged(run, FORMAT_FILE))
    found = outcome(run, FORMAT_FILE, content, lambda: check_format(run.workdir) or "passed")
    assert found is None or json.loads(content)["format"] == FORMAT


@settings(max_examples=40)
@given(data=st.data())
def test_a_summary_has_its_sections(run, data):
    content = data.draw(damaged(run, SUMMARY))
    found = outcome(run, SUMMARY, content, lambda: read_summary(run.workdir)) or {}
    assert isinstance(found.get("autoencoder", {}).get("step", 0), int)
    for section in set(found) & {"autoencoder", "prior"}:
        assert all(isinstance(value, int | float) for value in found[section]["test"].values())


@settings(max_examples=40)
@given(data=st.data())
def test_the_records_that_are_whole_are_read(run, data):
    lines = (run.workdir / METRICS).read_bytes().split(b"\n")
    number = data.draw(st.integers(0, len(lines) - 2))
    lines[number] = data.draw(damaged_json(lines[number]) | damaged_bytes(lines[number]) | st.just(b"5"))
    expected = read_records(run.workdir)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        found = outcome(run, METRICS, b"\n".join(lines), lambda: read_records(run.workdir))
    said = out.getvalue()
    if len(found) == len(expected):
        assert said == ""
        assert found[:number] + found[number + 1 :] == expected[:number] + expected[number + 1 :]
        assert {type(value) for value in found[number].values()} <= {str, int, float}
    else:
        assert said.startswith(f"{run.workdir / METRICS}: left out ")
        assert f"the first is line {number + 1} (" in said
        assert said.count("\n") == 1
        assert [record for record in found if record in expected] == found


def tables_of(run: TrainedRun) -> dict[str, np.ndarray]:
    found = read_tables(run.workdir, run.options.latent, run.options.prior, run.prior.num_codes)
    check_latents(run.workdir, step_of(run, TABLES))
    return {name: np.asarray(value) for name, value in vars(found).items()}


def latents_of(run: TrainedRun) -> dict[str, np.ndarray]:
    found = read_latents(run.workdir, run.model, len(run.class_names), SIZES)
    check_latents(run.workdir, step_of(run, LATENTS))
    return found


def step_of(run: TrainedRun, name: str) -> int:
    """Return the step of the file that is not damaged."""
    return int(np.load(run.workdir / (LATENTS if name == TABLES else TABLES))["checkpoint_step"])


SIZES = {"N_train": 512, "N_validation": 128, "N_test": 128}
READERS = {TABLES: tables_of, LATENTS: latents_of}


def equal(found, expected) -> bool:
    return found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=30)
@given(data=st.data())
def test_arrays_are_as_they_were_written(run, name, data):
    read = partial(READERS[name], run)
    found = outcome(run, name, data.draw(damaged_bytes((run.workdir / name).read_bytes())), read)
    assert found is None or equal(found, read())


def wrong_forms(array: np.ndarray) -> dict[str, np.ndarray | None]:
    """Return an array, or None for a missing one, by what is wrong with it."""
    forms = {
        "missing": None,
        "another axis": array[..., None],
        "strings": array.astype("U3"),
        "complex": array.astype(np.complex64),
        "empty": array.ravel()[:0],
        "another kind": array.astype(int if array.dtype.kind in "bf" else float),
    }
    if array.ndim:
        forms |= {"shorter": array[:-1], "twice": np.concatenate([array, array])}
    if array.dtype.kind in "iuf":
        forms |= {"too low": array - 10**9, "too high": array + 2**31 * np.int64(1)}
    if array.dtype.kind == "f":
        whole = np.ones_like(array, bool).ravel()
        forms |= {"NaN": np.where(np.arange(array.size) == 0, np.nan, array.ravel()).reshape(array.shape)}
        forms |= {"infinite": np.where(whole, np.inf, 0).reshape(array.shape)}
        del forms["too low"], forms["too high"]
    return forms


@pytest.mark.parametrize("name", READERS)
def test_arrays_of_another_form_are_refused(run, tmp_path, name):
    arrays = dict(np.load(run.workdir / name))
    read, good = partial(READERS[name], run), arrays.keys() - {f"{split}_names" for split in SPLITS}
    for key in sorted(good):
        for wrong, array in wrong_forms(arrays[key]).items():
            changed = {**arrays, key: array} if array is not None else {k: v for k, v in arrays.items() if k != key}
            np.savez(tmp_path / "a.npz", **changed)
            assert outcome(run, name, (tmp_path / "a.npz").read_bytes(), read) is None, (key, wrong)
    np.savez(tmp_path / "a.npz", **dict(reversed(arrays.items())))
    assert equal(outcome(run, name, (tmp_path / "a.npz").read_bytes(), read), read())


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (SUMMARY, "null", "must be an object, not null): delete it and run train.py again"),
        (SUMMARY, '{"autoencoder": "x"}', 'autoencoder must be an object, not "x"'),
        (DATASET, "{}", "it has no class_names): restore it, or train again in another --workdir"),
        (FORMAT_FILE, "[]", "it must be an object, not a list of 0"),
        (FORMAT_FILE, '{"format": "2"}', 'format must be an integer, not "2"'),
        (CONFIG, "{}", "is missing or unknown"),
        (CONFIG, None, "config.json does not exist: restore it"),
        (DATASET, None, "dataset.json does not exist: restore it"),
    ],
)
def test_a_run_is_not_resumed_from_damaged_files(trained_run, tiny_arguments, tmp_path, capsys, name, content, says):
    workdir = shutil.copytree(trained_run, tmp_path / "run")
    (workdir / name).unlink() if content is None else (workdir / name).write_text(content)
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file() and path.name != ".lock"}
    line = error_of([*tiny_arguments, f"--workdir={workdir}"], capsys)
    assert str(workdir / name) in line
    assert says in line
    if name != SUMMARY:
        assert sample.main([f"--workdir={workdir}", f"--out={tmp_path / 'a.png'}"]) == 1
        assert says in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize(("key", "value"), [("dim", "8"), ("num_codes", 16.5), ("mode", None), ("num_frequent", -1)])
def test_an_option_of_another_type_is_named_with_its_file(trained_run, tiny_arguments, tmp_path, capsys, key, value):
    workdir = shutil.copytree(trained_run, tmp_path / "run")
    config = json.loads((workdir / CONFIG).read_text())
    config["latent"][key] = value
    (workdir / CONFIG).write_text(json.dumps(config))
    lines = [error_of([*tiny_arguments, f"--workdir={workdir}"], capsys), error_of([f"--workdir={workdir}"], capsys)]
    assert sample.main([f"--workdir={workdir}", f"--out={tmp_path / 'a.png'}"]) == 1
    lines.append(capsys.readouterr().err)
    for line in lines:
        assert f"{workdir / CONFIG} cannot be used (" in line
        assert f"latent.{key}={value!r}: must be" in line
        assert line.endswith("): restore it, or train again in another --workdir\n")


def test_no_image_is_drawn_by_damaged_tables(trained_run, tmp_path, capsys):
    workdir = shutil.copytree(trained_run, tmp_path / "run")
    tables = dict(np.load(workdir / TABLES))
    tables["centroids"][3, 5] = np.nan
    np.savez(workdir / TABLES, **tables)
    assert sample.main([f"--workdir={workdir}", f"--out={tmp_path / 'a.npz'}"]) == 1
    line = f"{workdir / TABLES} cannot be read (centroids is not finite everywhere): delete it and run train.py again"
    assert capsys.readouterr().err == f"error: {line}\n"
    (workdir / TABLES).unlink()
    assert train.main([f"--workdir={workdir}"]) == 0
    assert equal(dict(np.load(workdir / TABLES)), dict(np.load(trained_run / TABLES)))


def test_what_is_made_again_is_the_same(trained_run, tmp_path):
    """As the errors advise: delete it and run train.py again."""
    workdir = shutil.copytree(trained_run, tmp_path / "run")
    for name in (SUMMARY, TABLES, LATENTS):
        (workdir / name).unlink()
    assert train.main([f"--workdir={workdir}"]) == 0
    for name in (TABLES, LATENTS):
        assert equal(dict(np.load(workdir / name)), dict(np.load(trained_run / name)))
    made, before = (json.loads((folder / SUMMARY).read_text()) for folder in (workdir, trained_run))
    assert made == before
