"""Own images in files that are damaged anywhere: what is listed is read, or the error is one line."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import test_image_tar
import test_image_zip
from own_files import images, png

from hvq_jax.data.builders import BUILDERS
from hvq_jax.data.decode import ImageError
from hvq_jax.errors import UserError

IMAGES = images(6)
TABLE = pa.table({"image": [{"bytes": png(image), "path": "1.png"} for image in IMAGES], "label": [0, 1] * 3})


def write_arrow(path, new):
    with new(str(path), TABLE.schema) as writer:
        writer.write_table(TABLE)


FORMATS = {
    "npz": ("image_arrays", lambda path: np.savez(path, images=IMAGES, labels=np.arange(6))),
    "npy": ("image_arrays", lambda path: np.save(path, IMAGES)),
    "parquet": ("image_table", lambda path: pq.write_table(TABLE, path, row_group_size=2)),
    "arrow": ("image_table", lambda path: write_arrow(path, pa.ipc.new_stream)),
    "arrow_file": ("image_table", lambda path: write_arrow(path, pa.ipc.new_file)),
    "tar": ("image_tar", lambda path: test_image_tar.write_members(path, test_image_tar.samples())),
    "zip": ("image_zip", lambda path: test_image_zip.write_zip(path, test_image_zip.named(test_image_zip.EDM))),
}


@pytest.fixture(scope="module", params=FORMATS)
def written(request, tmp_path_factory):
    """A file in each format, what is in it, and the name of its data sets."""
    name, write = FORMATS[request.param]
    path = tmp_path_factory.mktemp("damaged") / f"a.{request.param}"
    write(path)
    return path, path.read_bytes(), BUILDERS[name]


def check(collection):
    """Read everything."""
    for split, listed in collection.splits.items():
        assert listed
        for image in collection.read(split, (8, 8, 3)):
            assert isinstance(image, ImageError) or (image.shape, image.dtype) == ((8, 8, 3), np.uint8)


@hypothesis.settings(max_examples=25)
@hypothesis.given(data=st.data())
def test_damage_anywhere_is_one_line_or_does_no_harm(written, data):
    path, whole, builder = written
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        # Headers are at the beginning or the end.
        place = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 600) | st.integers(-900, -1))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    message = ""
    try:
        check(builder.collect(path, "folder" if path.suffix == ".zip" else "auto", None))
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    assert not message or path.parent.name in message
