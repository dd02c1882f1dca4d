"""Writing images in pieces, without losing anything if they end early, each to a file of its own."""

import os
import shutil
from pathlib import PurePath

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from hvq_jax import layout
from hvq_jax.errors import UserError
from hvq_jax.runs.outputs import check_out, in_file_name, unique_stems, write
from hvq_jax.runs.results import Decoded


def pieces_of(sizes, channels=1):
    random = np.random.default_rng(0)
    return [
        Decoded(
            images=random.integers(0, 256, (size, 8, 4, channels), np.uint8),
            indices=random.integers(0, 9, (size, 2, 1), np.int32),
            gains=random.normal(size=(size, 2, 1)).astype(np.float32),
            latents=random.normal(size=(size, 2, 1, 3)).astype(np.float32)[..., ::-1],  # not contiguous
        )
        for size in sizes
    ]


def save(out, pieces, count):
    write(str(out), pieces, count, stems=map(str, range(count)), save_png=pytest.fail, arrays={"names": ["a"] * count})


@pytest.mark.parametrize("sizes", [[3], [4, 4, 1]])
def test_an_npz_of_pieces_is_that_of_the_whole(tmp_path, sizes):
    pieces = pieces_of(sizes)
    save(tmp_path / "a.npz", iter(pieces), sum(sizes))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert set(found) == {"images", "indices", "gains", "latents", "names"}
        for name in ("images", "indices", "gains", "latents"):
            whole = np.concatenate([getattr(piece, name) for piece in pieces])
            assert found[name].dtype == whole.dtype
            np.testing.assert_array_equal(found[name], whole)
        assert list(found["names"]) == ["a"] * sum(sizes)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_one_piece_is_held_at_a_time(tmp_path):
    """Each is written before the next is asked for."""
    held = []

    def one_after_another(sizes):
        for piece in pieces_of(sizes, channels=3):
            grown = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
            held.append(grown)
            yield piece

    save(tmp_path / "a", one_after_another([5, 5, 5]), 15)
    assert 0 == held[0] < held[1] < held[2]
    assert len(list((tmp_path / "a").glob("*.png"))) == 15


@pytest.mark.parametrize("out", ["a.npz", "a"])
def test_where_pieces_end_early_what_was_there_stays(tmp_path, out):
    def broken():
        yield from pieces_of([5])
        raise OSError("no space left")

    if out == "a.npz":
        (tmp_path / out).write_text("before")
    else:
        (tmp_path / out).mkdir()
    with pytest.raises(UserError, match=rf"cannot write {tmp_path / out}: no space"):
        save(tmp_path / out, broken(), 10)
    assert [path.name for path in tmp_path.iterdir()] == [out]
    assert out == "a" or (tmp_path / out).read_text() == "before"


@pytest.mark.parametrize("out", ["a.npz", "a"])
def test_a_killed_process_leaves_what_the_next_one_replaces(tmp_path, out):
    here, left = tmp_path / "here", tmp_path / "left"
    here.mkdir()

    def copied_on_the_way():
        yield from pieces_of([5])
        shutil.copytree(here, left)  # as it would be if the process were killed now
        yield from pieces_of([5])

    save(here / out, copied_on_the_way(), 10)
    assert os.listdir(left) == [f".{out}.tmp"]
    save(left / out, iter(pieces_of([4])), 4)
    assert os.listdir(left) == [out]


def test_where_images_cannot_go(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "folder.npz").mkdir()
    for name, count, says in (
        ("a.gif", 1, "must end in .png or .npz"),
        ("a.png", 1025, "too many for one .png"),
        ("full", 1, "not an empty folder"),
        ("full/file", 1, "not an empty folder"),
        ("nowhere/a.npz", 1, "does not exist"),
        ("full/file/a.png", 1, "does not exist"),
        ("folder.png", 1, "is a folder"),
        ("folder.npz", 1, "is a folder"),
        ("x" * 255 + ".png", 1, "File name too long"),
        ("../../../../../../../../../proc/a.png", 1, "cannot write"),
    ):
        with pytest.raises(UserError, match=says):
            check_out(str(tmp_path / name), count, workdir=str(tmp_path / "run"))
    check_out(str(tmp_path / "a.png"), 1024, workdir=str(tmp_path / "run"))
    check_out(str(tmp_path / "new"), 10**9, workdir=str(tmp_path / "run"))


@pytest.mark.parametrize("name", sorted(layout.NAMES))
def test_nothing_of_the_run_is_replaced(tmp_path, name):
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "link").symlink_to(run)
    outs = [run / name, tmp_path / "link" / name, run / ".." / "run" / name]
    if "." not in name:  # a folder
        (run / name).mkdir()
        outs = [out / "0.png" for out in outs]
    refused = "belongs to the run" if outs[0].suffix in (".png", ".npz") else "must end in"
    for out in outs:
        with pytest.raises(UserError, match=refused):
            check_out(str(out), 1, workdir=str(tmp_path / "link"))


def test_an_output_may_be_beside_the_files_of_the_run(tmp_path):
    for out in (tmp_path / "grid.png", tmp_path / "drawn", tmp_path.parent / "latents.npz"):
        check_out(str(out), 1, workdir=str(tmp_path))


def test_none_of_the_given_images_is_replaced(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    inputs = [tmp_path / "link" / "a.png"]
    for out in (tmp_path / "a.png", inputs[0]):
        with pytest.raises(UserError, match="would replace one of the given images"):
            check_out(str(out), 2, workdir=str(tmp_path / "run"), inputs=inputs)
    check_out(str(tmp_path / "b.png"), 2, workdir=str(tmp_path / "run"), inputs=inputs)


# Names as they may be on a disk, and those that could meet.
NAMES = st.sampled_from(["a", "a.png", "a-2", "a-00", "x" * 255, "é" * 127, os.fsdecode(b"caf\xe9")]) | st.text(
    st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=5
).filter(lambda name: name not in (".", ".."))
STEMS = st.lists(st.lists(NAMES, min_size=1, max_size=3).map("/".join), max_size=20)


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(STEMS)
def test_every_image_has_a_file_of_its_own(tmp_path_factory, stems):
    folder = tmp_path_factory.mktemp("unique")
    unique = unique_stems(stems)
    assert len(unique) == len(stems)
    for stem in unique:
        file = folder / f"{stem}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("xb").close()
    if len(set(stems)) == len(stems) and max(map(len, stems), default=0) < 9 and not any("-" in s for s in stems):
        folders = {str(parent) for stem in stems for parent in PurePath(stem).parents}
        if folders.isdisjoint(f"{stem}.png" for stem in stems):
            assert unique == stems


@hypothesis.given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_class_names_become_parts_of_file_names(tmp_path_factory, text):
    name = in_file_name(text)
    assert len(name.encode()) <= 120
    assert name.isprintable()
    assert not set(name) & set('/\\:*?"<>| \0')
