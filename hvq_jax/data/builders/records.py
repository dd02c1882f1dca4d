"""Writer of the records of a data set; raises OSError if the disk is full."""

import os
from collections.abc import Iterable

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

# Raw images hardly compress. Uncompressed they are read at least as fast, and their size on disk is known in advance.
_WRITER_OPTIONS = "group_size:1,uncompressed"

# Measured. Per record: field names, label and array_record's header; per file: array_record's padding.
_RECORD_OVERHEAD_BYTES = 110
_FILE_OVERHEAD_BYTES = 1 << 17


def disk_bytes(num_images: int, image_bytes: int, num_files: int) -> int:
    """Return the disk space, in bytes, of `num_images` images of `image_bytes` bytes each in `num_files` files."""
    return num_images * (image_bytes + _RECORD_OVERHEAD_BYTES) + num_files * _FILE_OVERHEAD_BYTES


class RecordWriter(tfds.core.ExampleWriter):
    """A writer of the files of a data set, one file per call of `write`."""

    def __init__(self) -> None:
        super().__init__(tfds.core.FileFormat.ARRAY_RECORD)

    def write(self, path: str | os.PathLike[str], examples: Iterable[tuple[int, bytes]]) -> None:
        """Write serialised examples, given with their keys, in order.

        Raises:
            OSError: the disk is full, or the file cannot be written for another reason.
        """
        try:
            writer = ArrayRecordWriter(os.fspath(path), _WRITER_OPTIONS)
            for _, example in examples:
                writer.write(example)
            writer.close()  # raises the errors of earlier writes too
        except RuntimeError as error:
            raise OSError(" ".join(str(error).split())) from error
