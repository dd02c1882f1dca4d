"""Tables with a column of images: Parquet files, or the Arrow files that Hugging Face's `datasets` writes."""

import pathlib

from hvq_jax.data.builders.collection import Collection
from hvq_jax.data.builders.own_images import OwnImages
from hvq_jax.value_range import ValueRange


class ImageTable(OwnImages):
    """The rows of Parquet or Arrow files: image files, as binary or as {bytes, path}, and labels."""

    NEEDED = ("your table", "FILE_OR_FOLDER")

    @staticmethod
    def collect(path: pathlib.Path, labels: str, value_range: ValueRange | None) -> Collection:
        """Find the columns, and read the labels.

        A file, or all files below a folder. Their splits are words of their paths, as in Hugging Face's
        "data/train-00000-of-00002.parquet"; without such words, all rows are of train. Images are in the column that
        is called image or img, or in the only one with image files. Labels are in the column that is called label, or
        in the only one that `datasets` describes as such; the description names the classes.
        """
        from hvq_jax.data.builders.tables import collect_tables  # pyarrow takes a quarter of a second to import

        return collect_tables(path, labels)
