"""The range of float images: what black and white are."""

import math

from hvq_jax.errors import ArgumentError

ValueRange = tuple[float, ...]  # of black and white: (0, 1) or (-1, 1)

_RANGES = ((0, 1), (-1, 1))


def check_range(value_range: ValueRange | None) -> None:
    """Raise ArgumentError unless `value_range` is one of the two ranges, or None."""
    if value_range is not None and tuple(value_range) not in _RANGES:
        raise ArgumentError(f"value_range={value_range}", "must be (0, 1) or (-1, 1), for float images")


def resolve_range(
    lowest: float, highest: float, value_range: ValueRange | None, name: str, option: str = "value_range"
) -> ValueRange:
    """Return the values of black and white of float images whose values are from `lowest` to `highest`.

    >>> resolve_range(-0.5, 1.0, None, "images")
    (-1, 1)

    Args:
        lowest: the lowest value, NaN if any value is.
        highest: the highest value.
        value_range: what the user says, (0, 1) or (-1, 1). None: (-1, 1) if there is a negative value; where all are
            in [0, 1], they could be meant either way.
        name: what the images are called in errors.
        option: what `value_range` is called in errors.

    Raises:
        ArgumentError: a value is out of range, or the range has to be said.
    """
    check_range(value_range)
    low, high = value_range or (-1, 1)
    if not (lowest >= low and highest <= high):
        is_nan = math.isnan(lowest) or math.isnan(highest)
        found = "not all are numbers" if is_nan else f"the values are from {lowest:g} to {highest:g}"
        raise ArgumentError(name, f"float images must be in [{low:g}, {high:g}]; {found}")
    if value_range is None and lowest >= 0:
        raise ArgumentError(
            name,
            f"float images from {lowest:g} to {highest:g} may be meant in [0, 1] or in [-1, 1]: say which with "
            f"{option}=(0, 1) or {option}=(-1, 1)",
        )
    return low, high
