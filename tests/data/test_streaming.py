import contextlib
import dataclasses
import io
import itertools
import signal
import threading
import tracemalloc

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow_datasets as tfds
from prepared_files import TWO_CLASSES, encoded, records_of, tensor, write_dataset
from published_files import labelled_images

from hvq_jax.data.augment import Augmentation
from hvq_jax.data.datasets import Split
from hvq_jax.data.open_tfds import open_prepared, open_split
from hvq_jax.data.pipeline import eval_batches, train_batches
from hvq_jax.data.streamed import StreamedSplit, damage_named
from hvq_jax.devices.cores import number_of_cores
from hvq_jax.errors import Preempted, UserError
from tests.stops import SIGNALS, count_calls, is_stopped

EVERYTHING = Augmentation(flip=True, crop_padding=2, resized_crop_min_scale=0.3)


def opened(folder) -> StreamedSplit:
    return open_split(open_prepared("garments", folder), "train", num_classes=2)


def write_image_files(folder, files: list[bytes]) -> None:
    examples = [{"image": io.BytesIO(file), "label": 0} for file in files]
    write_dataset(folder, examples, image=tfds.features.Image(shape=(None, None, 3)), label=TWO_CLASSES)


def take(split, count: int, **options) -> list:
    with contextlib.closing(train_batches(split, **options)) as batches:
        return list(itertools.islice(batches, count))


def assert_same_batches(actual: list, expected: list) -> None:
    assert len(actual) == len(expected)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one.items, other.items, strict=True)
        np.testing.assert_array_equal(one.labels, other.labels, strict=True)
        np.testing.assert_array_equal(one.mask, other.mask, strict=True)


@pytest.fixture(scope="module")
def streamed(tmp_path_factory) -> StreamedSplit:
    """3,000 images, 9 MB in all."""
    folder = tmp_path_factory.mktemp("streamed")
    images, labels = labelled_images(3000, (32, 32, 3), 1)
    examples = [{"image": image, "label": int(label) % 2} for image, label in zip(images, labels, strict=True)]
    write_dataset(folder, examples, image=tensor(32, 32, 3), label=TWO_CLASSES)
    return opened(folder)


@pytest.fixture(scope="module")
def kept(streamed) -> Split:
    """The same images, in memory."""
    return Split(*streamed.load())


@hypothesis.given(st.lists(st.integers(0, 2999), max_size=10), st.integers(0, 2**32))
def test_any_images_are_read_in_any_order(streamed, kept, rows, seed):
    rows = np.array(rows, int)
    images, labels = streamed.read(rows)
    np.testing.assert_array_equal(images, kept.items[rows], strict=True)
    np.testing.assert_array_equal(labels, kept.labels[rows], strict=True)
    order = np.random.default_rng(seed).permutation(len(rows))
    for part in (streamed.subset(rows), streamed.subset(np.arange(3000)[::-1]).subset(2999 - rows)):
        np.testing.assert_array_equal(part.read(order)[0], images[order], strict=True)


@pytest.mark.parametrize("augmentation", [None, EVERYTHING])
@pytest.mark.parametrize(("index", "count"), [(0, 1), (1, 2)])
def test_training_batches_are_those_of_images_in_memory(streamed, kept, augmentation, index, count):
    options = {"batch_size": 1000, "seed": 3, "start": 2, "process_index": index, "process_count": count}
    options |= {"augmentation": augmentation}
    assert_same_batches(take(streamed, 2, **options), take(kept, 2, **options))


def test_evaluation_batches_are_those_of_images_in_memory(streamed, kept):
    assert_same_batches(
        list(eval_batches(streamed, batch_size=1024)),
        list(eval_batches(kept, batch_size=1024)),
    )


def test_streaming_takes_the_memory_of_a_few_batches(streamed):
    batch_bytes = 50 * 32 * 32 * 3
    with contextlib.closing(train_batches(streamed, batch_size=50, seed=0)) as batches:
        next(batches)
        tracemalloc.start()
        for _ in range(120):
            next(batches)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 12 * batch_bytes  # all images are 60 of them


def test_larger_images_are_decoded_in_as_many_threads_as_there_are_cores(tmp_path, streamed, kept):
    assert streamed.num_threads == kept.num_threads == 1
    images, _ = labelled_images(600, (64, 64, 3), 4)  # several pieces for each thread
    write_image_files(tmp_path, [encoded(image) for image in images])
    assert opened(tmp_path).num_threads == min(number_of_cores(), 16)
    np.testing.assert_array_equal(opened(tmp_path).load()[0], images, strict=True)


# Each writes 200 images, of which image 150 is bad, and returns the expected message.
def damaged_record(folder) -> str:
    images, _ = labelled_images(200, (16, 16, 3), 2)
    files = write_dataset(
        folder, [{"image": i, "label": 1} for i in images], image=tensor(16, 16, 3), label=TWO_CLASSES
    )
    content = bytearray(records_of(files).read_bytes())
    content[content.index(images[150].tobytes()[:8])] ^= 1
    records_of(files).write_bytes(content)
    return "cannot be read"


def damaged_image_file(folder) -> str:
    good = encoded(np.zeros((70, 70, 3), np.uint8))  # large enough for several threads
    write_image_files(folder, [good] * 150 + [good[:60]] + [good] * 49)
    return "cannot be read"


def other_size(folder) -> str:
    good, wide = (encoded(np.zeros((8, width, 3), np.uint8)) for width in (8, 9))
    write_image_files(folder, [good] * 150 + [wide] + [good] * 49)
    return r"8×9×3, but others are 8×8×3: bring all to one size with data\.image_size=SIZE"


def label_beyond(folder) -> str:
    examples = [{"image": np.zeros((8, 8, 1), np.uint8), "label": 9 if i == 150 else 0} for i in range(200)]
    write_dataset(folder, examples, image=tensor(8, 8, 1), label=tfds.features.ClassLabel(num_classes=10))
    return "has the label 9, out of range for the 2 classes 0 to 1"


@pytest.mark.parametrize("write", [damaged_record, damaged_image_file, other_size, label_beyond])
def test_damage_found_on_the_way_reaches_the_consumer_as_one_line(tmp_path, write):
    reason = write(tmp_path)
    split = opened(tmp_path)
    expected = f"image 150 of the train split of data set garments/2.1.0 in {tmp_path}.*{reason}"
    for batches in (train_batches(split, batch_size=10, seed=0), eval_batches(split, batch_size=10)):
        with pytest.raises(UserError, match=expected) as caught:
            list(itertools.islice(batches, 20))
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=expected):
        split.load()


def test_batches_before_the_damaged_one_are_served_and_threads_end(tmp_path):
    label_beyond(tmp_path)
    batches = eval_batches(opened(tmp_path), batch_size=10)
    assert [next(batches).labels.tolist() for _ in range(15)] == [[0] * 10] * 15
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("read-batches")]
    with pytest.raises(UserError, match="image 150"):
        next(batches)
    assert threads
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()


def test_a_stop_at_any_moment_of_reading_is_a_stop(streamed):
    def read():
        with contextlib.closing(train_batches(streamed, batch_size=50, seed=0)) as batches:
            for _ in range(3):
                next(batches)
        streamed.read(np.arange(50))

    calls = count_calls(read)
    for number, call in enumerate(np.linspace(1, 0.9 * calls, 30, dtype=int)):
        assert is_stopped(read, call, SIGNALS[number % 2]), call


def test_a_stop_waits_for_the_threads_that_fetch_records(streamed):
    fetched = []

    class Records:
        def __getitems__(self, rows):
            signal.raise_signal(signal.SIGINT)
            fetched.extend(rows)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest-xdist's processes ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            dataclasses.replace(streamed, records=Records()).fetch(np.arange(3))
    finally:
        signal.signal(signal.SIGINT, before)
    assert fetched == streamed.rows[:3].tolist()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Preempted])
def test_an_error_that_came_of_a_stop_is_the_stop(stop):
    def read():
        try:
            raise stop
        finally:
            threading.Lock().release()  # raises RuntimeError

    with pytest.raises(stop), damage_named("the data set"):
        read()
