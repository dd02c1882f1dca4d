"""Callbacks: calls from a run to the code that started it, as in a sweep or a notebook."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from hvq_jax.errors import ArgumentError


class Callback:
    """Receives what a run logs: subclass it, or pass any object that has some of these methods.

    All are called in the thread of `run_experiment`, in a cluster on the first process only, after the files of the run
    have been written. Training waits for them. An exception that one raises stops the run as SIGTERM does, with the
    state saved, and is then raised by `run_experiment`.
    """

    def on_record(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Receive the metrics of the training steps since the last record, up to `step` (log_every_steps)."""

    def on_evaluation(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Receive the metrics on the validation split after `step` (eval_every_steps)."""

    def on_images(self, stage: str, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Receive images uint8 `[H, W, C]` by name, made at an evaluation."""

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """Receive the summary of a run that has come to its end."""


_METHODS = ("on_record", "on_evaluation", "on_images", "on_end")


class Callbacks:
    """The callbacks of a run; the first exception that one raises is given to `fail`, and ends all further calls."""

    def __init__(self, callbacks: Iterable[Any] = (), *, fail: Callable[[Exception], None] | None = None) -> None:
        """Check the callbacks; raise ArgumentError if one has none of the methods, or another that starts alike."""
        self._callbacks = _checked(callbacks)
        self._fail = fail
        self._failed = False

    def tell(self, name: str, *arguments: Any) -> None:
        """Call the method `name` of each callback that has it."""
        for callback in self._callbacks:
            if self._failed:
                return
            try:
                if (method := getattr(callback, name, None)) is not None:
                    method(*arguments)
            except Exception as error:
                if self._fail is None:
                    raise
                error.add_note(f"raised by the callback {type(callback).__name__}.{name}")
                self._failed = True
                self._fail(error)


def _checked(callbacks: Iterable[Any]) -> tuple[Any, ...]:
    try:
        found = tuple(callbacks)
    except TypeError:
        raise ArgumentError("callbacks", f"must be a list of callbacks, not {type(callbacks).__name__}") from None
    for number, callback in enumerate(found):
        names = [name for name in dir(callback) if name.startswith("on_")]
        unknown = [name for name in names if name not in _METHODS]
        if unknown or not names:
            problem = f"has a method {unknown[0]}, but is" if unknown else "is"
            raise ArgumentError(
                f"callbacks[{number}]",
                f"{type(callback).__name__} {problem} called by {', '.join(_METHODS)} only",
            )
    return found
