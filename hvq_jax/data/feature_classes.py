"""A check of the classes that the description of a prepared data set names."""

import contextlib
import threading
from collections.abc import Iterator

import tensorflow_datasets as tfds

from hvq_jax.errors import UserError

_FeatureConnector = tfds.features.FeatureConnector
_lock = threading.Lock()


@contextlib.contextmanager
def known_features_only() -> Iterator[None]:
    """Let TFDS restore features of known classes only: it would import any module that a description names.

    Known are TFDS's own features, and those that this process has imported already. A description that names another
    one raises UserError.
    """

    def class_from_name(cls: type, name: str) -> type:
        if name not in _FeatureConnector._registered_features:
            raise UserError(
                f"it has a feature of the class {name}, which is not TFDS's own and might be any program: import its "
                "module before, or prepare the data set without it"
            )
        return find(name)

    with _lock:
        find = _FeatureConnector.cls_from_name
        _FeatureConnector.cls_from_name = classmethod(class_from_name)
        try:
            yield
        finally:
            _FeatureConnector.cls_from_name = find
