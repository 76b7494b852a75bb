from __future__ import annotations

import collections
import enum
import math
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from plugins.recorder import values
from plugins.recorder.values import POLICIES, everything, number, small


def kept(value: Any) -> Any:
    nonfinite: dict[str, str] = {}
    plain = small(value, "info", nonfinite)
    assert not nonfinite
    return plain


class Colour(enum.IntEnum):
    RED = 1


class Place(NamedTuple):
    x: int
    y: int


class Hostile:
    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("on a device")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __bool__(self) -> bool:
        raise RuntimeError("no truth in it")

    def __len__(self) -> int:
        raise RuntimeError("no length")


class HostileDict(dict[Any, Any]):
    def items(self) -> Any:
        raise RuntimeError("no items")


class Frames:
    def __array__(self, *_: Any, **__: Any) -> Any:
        return np.arange(3)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (-(2**63), -(2**63)),
        (2**64 - 1, 2**64 - 1),
        (2**64, "18446744073709551616"),
        (2**5000, "an integer of 5001 bits"),
        (0.5, 0.5),
        (1 + 2j, "(1+2j)"),
        ("text", "text"),
        (b"\x01\xff", "2 bytes: 01ff"),
        ({}, {}),
        ([], []),
        ((), []),
        ([1, 2.5, "x", None], [1, 2.5, "x", None]),
        ((3, 5), {"0": 3, "1": 5}),
        ({"a": {"b": 1}, "c": (2, 3)}, {"a.b": 1, "c.0": 2, "c.1": 3}),
        ({"a": {}, "b": []}, {"a": {}, "b": []}),
        ([[1, 2], [3, 4]], {"0": [1, 2], "1": [3, 4]}),
        ({1: "one", None: 2, (1, 2): 3, 1.5: 4}, {"1": "one", "NoneType": 2, "tuple": 3, "1.5": 4}),
        (Colour.RED, 1),
        (Place(1, 2), {"0": 1, "1": 2}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (object(), "object"),
        (Hostile(), "Hostile"),
        ({"good": 1, "bad": Hostile()}, {"good": 1, "bad": "Hostile"}),
        (HostileDict(a=1), "HostileDict"),
        ({1, 2}, "set"),
        (len, "builtin_function_or_method"),
        (int, "type"),
        (Frames(), [0, 1, 2]),
        ("half \ud800", "half \\ud800"),
        (np.array([1, 2]), [1, 2]),
        (np.array([[1.5, 2.5]]), [[1.5, 2.5]]),
        (np.array(7), 7),
        (np.array([], np.float32), []),
        (np.array([True, False]), [True, False]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([b"a"]), ["1 bytes: 61"]),
        (np.array([1 + 1j]), ["(1+1j)"]),
        (np.array(["2026-11-22"], "M8[D]"), ["2026-11-22"]),
        (np.array([1, "x", None, [1]], object), [1, "x", None, "list"]),
        (np.ma.array([1.0, 2.0], mask=[False, True]), [1.0, None]),
        (np.array([(1,)], [("a", "i4")]), {"shape": [1], "dtype": "[('a', '<i4')]", "min": None, "max": None}),
        (np.array([(1, 2.0)], [("a", "i4"), ("b", "f4")])[0], {"a": 1, "b": 2.0}),
        (np.datetime64("2026-11-22T06:27"), "2026-11-22T06:27"),
        (np.datetime64("NaT"), "NaT"),
        (np.timedelta64(3, "s"), "3 seconds"),
        (np.str_("s"), "s"),
        (np.bytes_(b"s"), "1 bytes: 73"),
        (np.complex64(1j), "1j"),
        (np.void(b"ab"), "2 bytes: 6162"),
        ({"x": np.arange(3), "y": [np.arange(2), 5]}, {"x": [0, 1, 2], "y.0": [0, 1], "y.1": 5}),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_values_become_plain(value: Any, plain: Any) -> None:
    got = kept(value)
    assert got == plain
    assert msgspec.json.decode(msgspec.json.encode(got)) == plain


@pytest.mark.parametrize("kind", sorted(np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"))
def test_numpy_scalars_of_every_dtype_become_python_numbers(kind: str) -> None:
    scalar = np.ones((), kind)[()]
    for plain in (kept(scalar), kept(np.array([scalar]))[0], kept({"x": scalar})["x"]):
        assert plain == 1
        assert type(plain) in (bool, int, float)


def test_the_limits_of_small() -> None:
    assert kept(np.arange(64.0)) == list(range(64))
    assert kept(np.arange(65.0)) == {"shape": [65], "dtype": "float64", "min": 0.0, "max": 64.0}
    assert kept(np.zeros((84, 84, 3), np.uint8)) == {"shape": [84, 84, 3], "dtype": "uint8", "min": 0, "max": 0}
    assert kept(list(range(65))) == {"shape": [65], "dtype": "list", "min": None, "max": None}
    assert kept({"a": np.arange(40), "b": np.arange(40)})["b"]["shape"] == [40], "64 numbers of the whole observation"
    assert kept("x" * 1024) == "x" * 1024
    assert kept("x" * 1025) == "x" * 1024 + "…"
    assert kept(b"\0" * 1000).startswith("1000 bytes: 00")
    many = kept({str(index): index for index in range(1000)})
    assert len(many) == 65
    assert many["…"] == "more"


def test_containers_that_hold_themselves_come_to_an_end() -> None:
    wide: list[Any] = []
    wide += [wide] * 50
    deep: dict[str, Any] = {}
    deep["me"] = deep
    objects = np.empty(1, object)
    objects[0] = objects
    for value in (wide, deep, (wide, deep), objects):
        for policy in (small, everything):
            assert len(msgspec.json.encode(policy(value, "info", {}))) < 100_000


@pytest.mark.parametrize(
    ("value", "plain", "nonfinite"),
    [
        (math.nan, None, {"x": "nan"}),
        (np.float32("-inf"), None, {"x": "-inf"}),
        (np.array([1.0, 2.0, np.inf], np.float32), [1.0, 2.0, None], {"x.2": "inf"}),
        (np.array([[1.0], [np.nan]]), [[1.0], [None]], {"x.1.0": "nan"}),
        (np.array(np.nan), None, {"x": "nan"}),
        ({"a": {"b": math.inf}}, {"a.b": None}, {"x.a.b": "inf"}),
        ((1, [math.nan, 2.0]), {"0": 1, "1": [None, 2.0]}, {"x.1.0": "nan"}),
        (np.array([3e38, 3e38], np.float32), [float(np.float32(3e38))] * 2, {}),
        (np.array([1e308, 1e308]), [1e308, 1e308], {}),
        (
            np.full(100, np.nan),
            {"shape": [100], "dtype": "float64", "min": None, "max": None},
            {"x.min": "nan", "x.max": "nan"},
        ),
    ],
)  # fmt: skip
def test_what_is_not_finite_is_null_and_named(value: Any, plain: Any, nonfinite: dict[str, str]) -> None:
    for policy in (small, everything) if isinstance(plain, list) or "shape" not in (plain or {}) else (small,):
        named: dict[str, str] = {}
        assert policy(value, "x", named) == plain
        assert named == nonfinite


def test_everything_keeps_arrays_in_full_up_to_a_mebibyte() -> None:
    picture = np.arange(84 * 84 * 3).reshape(84, 84, 3)
    assert everything({"p": picture}, "x", {}) == {"p": picture.tolist()}
    assert everything("x" * 100_000, "x", {}) == "x" * 100_000
    assert everything([[index] for index in range(500)], "x", {})["499"] == [499]
    assert everything(np.zeros(200_000), "x", {}) == {"shape": [200_000], "dtype": "float64", "min": 0.0, "max": 0.0}
    assert len(everything("x" * 2_000_000, "x", {})) == 1025


def test_nothing_is_none() -> None:
    assert POLICIES["none"](5, "x", {}) is None


@pytest.mark.parametrize("reward", [1, 1.0, True, np.float32(1), np.int8(1), np.array(1.0), np.array([1.0]), "1"])
def test_rewards_become_floats(reward: Any) -> None:
    nonfinite: dict[str, str] = {}
    assert number(reward, "reward", nonfinite) == 1.0
    assert not nonfinite


@pytest.mark.parametrize(
    "reward", [math.nan, None, np.array([1.0, 2.0]), "x", object(), Hostile()], ids=lambda value: type(value).__name__
)
def test_a_reward_that_is_no_number_is_named(reward: Any) -> None:
    nonfinite: dict[str, str] = {}
    assert math.isnan(number(reward, "reward", nonfinite))
    assert nonfinite == {"reward": "nan"}


def walked(value: Any) -> tuple[Any, dict[str, str]]:
    named: dict[str, str] = {}
    walk = values._Walk(64, 1024, leaves=64, depth=8)
    return values._walked(value, "x", named, walk), named


@settings(deadline=None)
@given(
    st.one_of(
        st.floats(),
        st.integers(),
        st.booleans(),
        npst.arrays(st.sampled_from([np.float32, np.float64, np.float16]), st.integers(0, 70)),
        npst.arrays(np.uint8, npst.array_shapes(min_dims=1, max_dims=3, max_side=9)),
        st.dictionaries(
            st.one_of(st.text(max_size=70), st.integers()),
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just({}), st.just({"a": 1})),
            max_size=70,
        ),
        npst.from_dtype(np.dtype("f4")),
    )
)
def test_the_fast_paths_agree_with_the_way_round(value: Any) -> None:
    named: dict[str, str] = {}
    assert (small(value, "x", named), named) == walked(value)


anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.complex_numbers(),
        st.text(st.characters(exclude_categories=[])),
        st.binary(),
        st.datetimes(),
        st.fractions(),
        npst.arrays(npst.array_dtypes() | npst.scalar_dtypes(), npst.array_shapes(min_dims=0, max_dims=3, max_side=5)),
        npst.scalar_dtypes().flatmap(npst.from_dtype),
        st.builds(Hostile),
    ),
    lambda inner: st.one_of(
        st.lists(inner),
        st.tuples(inner, inner),
        st.dictionaries(st.one_of(st.text(st.characters(exclude_categories=[])), st.integers(), st.none()), inner),
    ),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(anything, st.sampled_from([small, everything]))
def test_any_value_becomes_bounded_json_and_nothing_is_raised(value: Any, policy: Any) -> None:
    nonfinite: dict[str, str] = {}
    plain = policy(value, "info", nonfinite)
    written = msgspec.json.encode(plain)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plain)) == msgspec.json.decode(written)
    assert all(name == "info" or name.startswith("info.") for name in nonfinite)
    msgspec.json.encode(nonfinite)
    assert len(written) < (32_000 if policy is small else 8_000_000)
