"""Schemas: a value of the stated form passes, and any other is named in one line."""

import json
from typing import Annotated, Any, NotRequired, TypedDict

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from hvq_jax.errors import UserError
from hvq_jax.files import read_arrays, read_json
from hvq_jax.schema import Array, Count, Keys, Range, check_arrays, check_json


class Inner(TypedDict):
    share: Annotated[float, Range(0, 1)]


class Outer(TypedDict):
    step: Count
    name: str
    sides: tuple[int, int]
    names: list[str]
    inner: Inner
    metrics: Annotated[dict[str, float], Keys(("mse",))]
    peak: NotRequired[float | None]
    done: NotRequired[bool]


GOOD: dict[str, Any] = {
    "step": 3,
    "name": "a",
    "sides": [2, 3],
    "names": [],
    "inner": {"share": 1},
    "metrics": {"mse": 0.5, "psnr": float("inf")},
    "peak": None,
    "done": True,
    "unknown": [{}],
}


def problem(check, *arguments) -> str:
    """Return the message with which `check` refuses its arguments, "" if it does not."""
    try:
        check(*arguments)
    except ValueError as error:
        return str(error)
    return ""


def test_what_has_the_form_passes():
    check_json(GOOD, Outer)
    check_json({name: value for name, value in GOOD.items() if name not in ("peak", "done", "unknown")}, Outer)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"step": -1}, "step must be from 0 to 9223372036854775807, not -1"),
        ({"step": 2.0}, "step must be an integer, not 2.0"),
        ({"step": True}, "step must be an integer, not true"),
        ({"step": 2**64}, "step must be an integer, not 18446744073709551616"),
        ({"name": None}, "name must be a string, not null"),
        ({"sides": [1]}, "sides must be a list of 2, not a list of 1"),
        ({"sides": [1, "2"]}, 'sides.1 must be an integer, not "2"'),
        ({"names": "ab"}, 'names must be a list, not "ab"'),
        ({"names": ["a", 3]}, "names.1 must be a string, not 3"),
        ({"inner": "x\ny"}, r'inner must be an object, not "x\ny"'),
        ({"inner": {}}, "inner has no share"),
        ({"inner": {"share": float("nan")}}, "inner.share must be from 0 to 1, not NaN"),
        ({"metrics": {}}, "metrics has no mse"),
        ({"metrics": {"mse": 1, "a\nb": {}}}, r'metrics."a\nb" must be a number, not an object'),
        ({"peak": "high"}, 'peak must be a number or null, not "high"'),
        ({"done": 0}, "done must be true or false, not 0"),
        ({"name": 10**60}, f"name must be a string, not {str(10**60)[:40]}…"),
    ],
)
def test_the_value_that_has_not_is_named(changes, says):
    assert problem(check_json, {**GOOD, **changes}, Outer) == says


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(key=st.sampled_from(sorted(GOOD)), value=VALUES, keep=st.booleans())
def test_any_change_passes_or_is_one_line(key, value, keep):
    changed = {**GOOD, key: value} if keep else {name: GOOD[name] for name in GOOD if name != key}
    if message := problem(check_json, json.loads(json.dumps(changed)), Outer):
        assert message.startswith(key if keep else "it has no")
        assert "\n" not in message
        assert key != "unknown"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "Expecting value"),
        (b"null", "it must be an object, not null"),
        (b"[]", "it must be an object, not a list of 0"),
        (b'{"share": 1', "Expecting"),
        (b'{"share": 1}\xff', "can't decode"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"share": ' + b"9" * 5000 + b"}", "integer string"),
    ],
)
def test_a_json_file_is_named_with_what_to_do(tmp_path, content, says):
    path = tmp_path / "a.json"
    assert read_json(path, Inner, advice="delete it") is None
    path.write_bytes(content)
    with pytest.raises(UserError, match=says) as caught:
        read_json(path, Inner, advice="delete it")
    assert str(caught.value).startswith(f"{path} cannot be read (")
    assert str(caught.value).endswith("): delete it")
    assert "\n" not in str(caught.value)


SCHEMA = {
    "codes": Array("integers", ("N", "h"), low=0, high=4),
    "lengths": Array("floats", ("N", "h", 2)),
    "mask": Array("bools", ("K",), required=False),
    "rows": Array("floats", ("n",), may_be_empty=True, other_shape=("N", "h")),
    "curve": Array("floats", ("steps",), may_be_infinite=True),
}


def arrays() -> dict[str, np.ndarray]:
    return {
        "codes": np.array([[0, 4, 1], [2, 3, 0]], np.uint8),
        "lengths": np.ones((2, 3, 2), np.float16),
        "mask": np.zeros(5, bool),
        "rows": np.zeros(0),
        "curve": np.array([1.0, np.nan, np.inf]),
        "unknown": np.array(["x"]),
    }


@pytest.mark.parametrize("changes", [{}, {"rows": np.ones((2, 3))}, {"mask": None}, {"codes": np.zeros((2, 3), int)}])
def test_arrays_of_the_form_pass(changes):
    check_arrays(
        {name: array for name, array in {**arrays(), **changes}.items() if array is not None}, SCHEMA, {"K": 5}
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"codes": None}, "it has no array codes"),
        ({"codes": np.zeros((2, 3))}, "codes must be integers [N, h]; it is float64 of shape (2, 3)"),
        ({"codes": np.zeros(2, int)}, "codes must be integers [N, h]; it is int64 of shape (2,)"),
        ({"codes": np.zeros((0, 3), int)}, "codes must not be empty; it is int64 of shape (0, 3)"),
        ({"codes": np.full((2, 3), 5)}, "codes must be from 0 to 4; it is from 5 to 5"),
        ({"codes": np.full((2, 3), -1)}, "codes must be from 0 to 4; it is from -1 to -1"),
        ({"codes": np.full((2, 3), 2**64 - 1)}, f"codes must be from 0 to 4; it is from {2**64 - 1} to {2**64 - 1}"),
        (
            {"lengths": np.ones((2, 3, 1))},
            "lengths must be floats [N, h, 2] with N=2, h=3; it is float64 of shape (2, 3, 1)",
        ),
        (
            {"lengths": np.ones((2, 4, 2))},
            "lengths must be floats [N, h, 2] with N=2, h=3; it is float64 of shape (2, 4, 2)",
        ),
        ({"lengths": np.full((2, 3, 2), np.nan)}, "lengths is not finite everywhere"),
        ({"lengths": np.full((2, 3, 2), 1e39)}, "lengths is not finite everywhere"),
        ({"mask": np.zeros(4, bool)}, "mask must be bools [K] with K=5; it is bool of shape (4,)"),
        ({"mask": np.zeros(5, np.uint8)}, "mask must be bools [K] with K=5; it is uint8 of shape (5,)"),
        ({"rows": np.ones((3, 3))}, "rows must be floats [N, h] with N=2, h=3; it is float64 of shape (3, 3)"),
    ],
)
def test_the_array_that_has_another_form_is_named(tmp_path, changes, says):
    changed = {name: array for name, array in {**arrays(), **changes}.items() if array is not None}
    assert problem(check_arrays, changed, SCHEMA, {"K": 5}) == says
    np.savez(tmp_path / "a.npz", **changed)
    with pytest.raises(UserError) as caught:
        read_arrays(tmp_path / "a.npz", SCHEMA, sizes={"K": 5}, advice="do without it")
    assert str(caught.value) == f"{tmp_path / 'a.npz'} cannot be read ({says}): do without it"


def test_only_the_arrays_of_the_schema_are_read(tmp_path):
    np.savez(tmp_path / "a.npz", **arrays(), objects=np.array([{}], object))
    assert list(read_arrays(tmp_path / "a.npz", SCHEMA)) == list(SCHEMA)
