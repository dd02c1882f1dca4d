import contextlib
import itertools
import threading

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from hvq_jax.data.augment import Augmentation
from hvq_jax.data.datasets import Split
from hvq_jax.data.pipeline import eval_batches, steps_per_epoch, train_batches
from hvq_jax.errors import UserError

# Grain starts a thread per iterator, whose time varies with the machine's load.
untimed = hypothesis.settings(deadline=None, max_examples=25)
sizes = st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))


def numbered(size: int) -> Split:
    """Return a split in which image i and label i both contain i."""
    numbers = np.arange(size)
    return Split(numbers.astype(np.uint8).reshape(size, 1, 1, 1), numbers.astype(np.int32))


def take(split: Split, count: int, **options) -> list[np.ndarray]:
    """Return the labels of the first `count` training batches."""
    batches = train_batches(split, **options)
    labels = [batch.labels for batch in itertools.islice(batches, count)]
    batches.close()
    return labels


@untimed
@hypothesis.given(sizes, st.integers(0, 5))
def test_an_epoch_shows_each_image_at_most_once(size, seed):
    examples, batch_size = size
    split = numbered(examples)
    steps = steps_per_epoch(split, batch_size)
    assert examples - batch_size < steps * batch_size <= examples
    labels = take(split, 2 * steps, batch_size=batch_size, seed=seed)
    for epoch in (labels[:steps], labels[steps:]):
        seen = np.concatenate(epoch)
        assert len(np.unique(seen)) == len(seen) == steps * batch_size


def test_epochs_and_seeds_have_their_own_order():
    split = numbered(100)
    first, second = take(split, 2, batch_size=100, seed=0)
    (other,) = take(split, 1, batch_size=100, seed=1)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, np.arange(100))


@untimed
@hypothesis.given(sizes, st.integers(0, 90))
def test_resuming_equals_skipping(size, start):
    examples, batch_size = size
    split = numbered(examples)
    whole = take(split, start + 3, batch_size=batch_size, seed=4)
    resumed = take(split, 3, batch_size=batch_size, seed=4, start=start)
    np.testing.assert_array_equal(resumed, whole[start:])


@untimed
@hypothesis.given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10), st.integers(0, 9))
def test_slices_of_the_processes_make_the_global_batch(processes, local, extra, start):
    batch_size = processes * local
    options = {"batch_size": batch_size, "seed": 2, "start": start}
    split = numbered(batch_size + extra)
    whole = take(split, 4, **options)
    parts = [take(split, 4, process_index=index, process_count=processes, **options) for index in range(processes)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_augmented_images_depend_on_neither_hosts_nor_resumption(mini):
    options = {"batch_size": 2000, "seed": 5, "augmentation": Augmentation(True, 4, 0.5)}  # four batches per epoch

    def images(count: int, start: int, **more) -> list[np.ndarray]:
        with contextlib.closing(train_batches(mini.train, start=start, **options, **more)) as batches:
            return [batch.items for batch in itertools.islice(batches, count)]

    whole = images(3, 3)
    np.testing.assert_array_equal(images(1, 5)[0], whole[2], strict=True)
    parts = [images(3, 3, process_index=index, process_count=2) for index in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_augmentation_changes_images_alone_and_anew_each_epoch():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    split = Split(np.repeat(image[np.newaxis], 50, axis=0), np.arange(50, dtype=np.int32))
    options = {"batch_size": 50, "seed": 1}
    with contextlib.closing(train_batches(split, augmentation=Augmentation(crop_padding=4), **options)) as batches:
        first, second = itertools.islice(batches, 2)
    np.testing.assert_array_equal([first.labels, second.labels], take(split, 2, **options))
    by_row = [batch.items[np.argsort(batch.labels)] for batch in (first, second)]
    assert (by_row[0] != by_row[1]).any((1, 2, 3)).mean() > 0.5
    np.testing.assert_array_equal(split.items[7], image)


def test_grids_of_codes_keep_their_type():
    split = Split(np.arange(24, dtype=np.int32).reshape(6, 2, 2), np.zeros(6, np.int32))
    (batch,) = eval_batches(split, batch_size=6)
    np.testing.assert_array_equal(batch.items, split.items, strict=True)
    assert split.item_shape == (2, 2)


def test_images_belong_to_their_labels(mini):
    batches = train_batches(mini.train, batch_size=100, seed=0, start=7)
    batch = next(batches)
    batches.close()
    assert batch.items.shape == (100, 28, 28, 1)
    assert batch.items.dtype == np.uint8
    assert batch.labels.dtype == np.int32
    assert batch.mask.all()
    label_of = {image.tobytes(): label for image, label in zip(mini.train.items, mini.train.labels, strict=True)}
    assert [label_of[image.tobytes()] for image in batch.items] == batch.labels.tolist()


@untimed
@hypothesis.given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 3))
def test_evaluation_sees_each_image_once_in_order(examples, local, processes):
    batch_size = local * processes
    parts = [
        list(
            eval_batches(
                numbered(examples),
                batch_size=batch_size,
                process_index=index,
                process_count=processes,
            )
        )
        for index in range(processes)
    ]
    seen = []
    for part in zip(*parts, strict=True):
        for batch in part:
            assert batch.items.shape == (local, 1, 1, 1)
            assert batch.mask.dtype == bool
            np.testing.assert_array_equal(batch.items[:, 0, 0, 0], batch.labels)
            seen += batch.labels[batch.mask].tolist()
    assert seen == list(range(examples))


@pytest.mark.parametrize(
    "batches",
    [
        lambda: train_batches(numbered(10), batch_size=5, seed=0),
        lambda: eval_batches(numbered(10), batch_size=5),
    ],
    ids=["train", "eval"],
)
def test_closing_ends_the_thread(batches):
    batches = batches()
    next(batches)
    threads = [t for t in threading.enumerate() if t.name.startswith("read-batches")]
    assert threads
    batches.close()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()


@pytest.mark.parametrize(("batch_size", "processes"), [(0, 1), (-4, 1), (11, 1), (5, 2)])
def test_train_refuses_bad_batch_sizes_at_once(batch_size, processes):
    with pytest.raises(UserError, match=f"batch size {batch_size}"):
        train_batches(numbered(10), batch_size=batch_size, seed=0, process_count=processes)


@pytest.mark.parametrize(("batch_size", "processes"), [(0, 1), (-4, 1), (5, 2)])
def test_eval_refuses_bad_batch_sizes_at_once(batch_size, processes):
    with pytest.raises(UserError, match=f"batch size {batch_size}"):
        eval_batches(numbered(10), batch_size=batch_size, process_count=processes)


def test_a_negative_seed_is_refused_at_once():
    with pytest.raises(UserError, match="seed -1"):
        train_batches(numbered(10), batch_size=5, seed=-1)
