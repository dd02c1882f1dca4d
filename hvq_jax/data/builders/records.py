"""Writing the records of a data set, so that a full disk is an OSError."""

import os
from collections.abc import Iterable

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

# Raw images hardly shrink; uncompressed they are read as fast or faster, and how much disk they need is known before.
_WRITER_OPTIONS = "group_size:1,uncompressed"

# Measured: field names, label and array_record's header of each record; its padding of each file.
_RECORD_OVERHEAD_BYTES = 110
_FILE_OVERHEAD_BYTES = 1 << 17


def disk_bytes(num_images: int, image_bytes: int, num_files: int) -> int:
    """How much disk so many images of `image_bytes` bytes need in so many files."""
    return num_images * (image_bytes + _RECORD_OVERHEAD_BYTES) + num_files * _FILE_OVERHEAD_BYTES


class RecordWriter(tfds.core.ExampleWriter):
    """Writes the files of a data set, one call a file."""

    def __init__(self) -> None:
        super().__init__(tfds.core.FileFormat.ARRAY_RECORD)

    def write(self, path: str | os.PathLike[str], examples: Iterable[tuple[int, bytes]]) -> None:
        """Writes serialised examples, given with their keys, in order.

        Raises:
            OSError: the disk is full, or the file cannot be written for another reason.
        """
        try:
            writer = ArrayRecordWriter(os.fspath(path), _WRITER_OPTIONS)
            for _, example in examples:
                writer.write(example)
            writer.close()  # errors of earlier writes come to light here
        except RuntimeError as error:
            raise OSError(" ".join(str(error).split())) from error
