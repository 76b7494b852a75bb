"""Values: makes observations, actions, infos and rewards plain (what JSON can say) and bounded, and never raises.

`small` keeps up to 64 numbers and 1 KiB of text of a value; an array that is larger becomes its shape, dtype, minimum
and maximum. `everything` keeps up to 1 MiB in full, and is `small` beyond. `nothing` is None. Tuples and dicts flatten
to dotted names: `{"a": {"b": 1}, "c": (2, 3)}` is `{"a.b": 1, "c.0": 2, "c.1": 3}`. An unknown object becomes its
type's name. A number that is not finite becomes None, and is named in `nonfinite` by its dotted name behind the
field's: `{"observation.2": "nan"}`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SMALL_NUMBERS = 64
SMALL_TEXT = 1024
EVERYTHING_BYTES = 1024 * 1024


def small(value: Any, field: str, nonfinite: dict[str, str]) -> Any:
    """The value in plain words, bounded; what is not finite is named in `nonfinite` under the field's name."""
    # The common kinds first: 0.1 to 0.5 µs each (tests/recorder/test_values.py checks that both ways agree).
    kind = type(value)
    if kind is np.ndarray:
        size = value.size
        if size <= SMALL_NUMBERS:
            if value.ndim == 1 and value.dtype.char in "fd":
                numbers = value.tolist()
                if math.isfinite(sum(numbers)):
                    return numbers
        elif value.dtype.char == "B":  # a picture
            return _summary(list(value.shape), "uint8", int(value.min()), int(value.max()))
    elif kind is int:
        if _LEAST_INT <= value <= _GREATEST_INT:
            return value
    elif kind is float or kind is np.float64 or kind is np.float32:
        if math.isfinite(value):
            return float(value)
    elif value is None or kind is bool:
        return value
    elif kind is dict and _is_flat(value):
        return value.copy()
    return _walked(value, field, nonfinite, _Walk(SMALL_NUMBERS, SMALL_TEXT, leaves=SMALL_NUMBERS, depth=8))


def _is_flat(value: dict[Any, Any]) -> bool:
    """Whether it is bounded and plain as it is, as most infos are."""
    if len(value) > SMALL_NUMBERS:
        return False
    for key, item in value.items():
        if type(key) is not str or len(key) > SMALL_NUMBERS or not key.isascii():
            return False
        kind = type(item)
        if kind is int:
            if not _LEAST_INT <= item <= _GREATEST_INT:
                return False
        elif kind is float:
            if not math.isfinite(item):
                return False
        elif kind is not bool and item is not None:
            return False
    return True


def everything(value: Any, field: str, nonfinite: dict[str, str]) -> Any:
    """The value in plain words, in full up to 1 MiB; beyond that it is `small`."""
    walk = _Walk(EVERYTHING_BYTES // 8, EVERYTHING_BYTES, leaves=EVERYTHING_BYTES // 32, depth=32)
    walk.in_full = True
    named: dict[str, str] = {}
    try:
        plain = walk.plain(value, field, named)
    except Exception:  # noqa: BLE001 - too much, or an object that cannot be looked at; small knows what to do with both
        return small(value, field, nonfinite)
    nonfinite.update(named)
    return plain


def nothing(value: Any, field: str, nonfinite: dict[str, str]) -> None:
    """None."""


POLICIES: dict[str, Callable[[Any, str, dict[str, str]], Any]] = {
    "small": small,
    "all": everything,
    "none": nothing,
}


def number(value: Any, field: str, nonfinite: dict[str, str]) -> float:
    """A reward as a float; NaN, and named in `nonfinite`, where it is none."""
    try:
        plain = float(value if not isinstance(value, np.ndarray) else value.item())
    except Exception:  # noqa: BLE001 - a vector, None, or anything else that is no number
        plain = math.nan
    if not math.isfinite(plain):
        nonfinite[field] = _word(plain)
    return plain


def _walked(value: Any, field: str, nonfinite: dict[str, str], walk: _Walk) -> Any:
    named: dict[str, str] = {}
    try:
        plain = walk.plain(value, field, named)
    except Exception:  # noqa: BLE001 - whatever an object does when it is looked at, the step goes on
        return _type_name(value)
    nonfinite.update(named)
    return plain


class _TooMuch(Exception):
    """More than `everything` keeps."""


class _Walk:
    """One way through a value, with what is left to be spent on it."""

    def __init__(self, numbers: int, text: int, *, leaves: int, depth: int) -> None:
        self.numbers = numbers
        self.text = text
        self.leaves = leaves
        self.depth = depth
        self.in_full = False

    def plain(self, value: Any, field: str, nonfinite: dict[str, str]) -> Any:
        """The value, flattened where it is a container with members."""
        if not self._is_nest(value):
            return self._leaf(value, field, nonfinite)
        flat: dict[str, Any] = {}
        for place, leaf in self._leaves(value, "", self.depth):
            self.leaves -= 1
            flat[place] = self._leaf(leaf, f"{field}.{place}", nonfinite)
        return flat

    def _leaves(self, nest: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
        """The dotted name of each thing in a container that is no container itself."""
        for key, value in nest.items() if isinstance(nest, dict) else enumerate(nest):
            if self.leaves <= 0:
                self._refuse()
                yield "…", "more"
                return
            place = prefix + self._key(key)
            if not self._is_nest(value):
                yield place, value
            elif depth > 1:
                yield from self._leaves(value, f"{place}.", depth - 1)
            else:
                self._refuse()
                yield place, _type_name(value)

    def _is_nest(self, value: Any) -> bool:
        """Whether its members get dotted names: a dict, a tuple, or a list with containers in it."""
        if isinstance(value, list):
            return 0 < len(value) <= self.numbers and any(isinstance(item, _CONTAINERS) for item in value)
        return isinstance(value, (dict, tuple)) and len(value) > 0

    def _key(self, key: Any) -> str:
        if type(key) is int:
            return str(key) if key.bit_length() <= 64 else "int"
        text = str.__str__(key) if isinstance(key, str) else _type_name(key)
        if isinstance(key, (bool, float, np.number)):
            text = str(key)
        text = _writable(text)[:SMALL_NUMBERS]
        if self.in_full:
            self._spend(len(text))
        return text

    def _leaf(self, value: Any, name: str, nonfinite: dict[str, str]) -> Any:
        try:
            return self._known(value, name, nonfinite)
        except _TooMuch:
            raise
        except Exception:  # noqa: BLE001 - whatever an object does when it is looked at, its neighbours are kept
            return _type_name(value)

    def _known(self, value: Any, name: str, nonfinite: dict[str, str]) -> Any:
        if value is None or value is np.ma.masked:
            return None
        if isinstance(value, np.ndarray):
            return self._array(value, name, nonfinite)
        if isinstance(value, np.generic):
            return self._numpy_scalar(value, name, nonfinite)
        if isinstance(value, bool):
            return bool(value)
        if isinstance(value, int):
            return self._int(int(value))
        if isinstance(value, float):
            return self._float(float(value), name, nonfinite)
        return self._other(value, name, nonfinite)

    def _other(self, value: Any, name: str, nonfinite: dict[str, str]) -> Any:
        if isinstance(value, str):
            return self._bounded(str.__str__(value))
        if isinstance(value, complex):
            return self._bounded(str(complex(value)))
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self._bytes(bytes(value))
        if isinstance(value, dict) and not value:
            return {}
        if isinstance(value, (list, tuple)):
            return self._list(value, name, nonfinite)
        if hasattr(type(value), "__array__"):  # the pictures of a frame stack, a tensor
            return self._array(np.asarray(value), name, nonfinite)
        return self._bounded(_type_name(value))

    def _int(self, value: int) -> int | str:
        self.numbers -= 1
        if _LEAST_INT <= value <= _GREATEST_INT:
            return value
        return self._bounded(str(value) if value.bit_length() <= 1024 else f"an integer of {value.bit_length()} bits")

    def _float(self, value: float, name: str, nonfinite: dict[str, str]) -> float | None:
        self.numbers -= 1
        if math.isfinite(value):
            return value
        self._name(name, value, nonfinite)
        return None

    def _name(self, name: str, value: float, nonfinite: dict[str, str]) -> None:
        if self.in_full:
            self._spend(len(name))
        nonfinite[name] = _word(value)

    def _bounded(self, text: str) -> str:
        text = _writable(text)
        if len(text) > self.text:
            self._refuse()
            text = text[: max(0, self.text)] + "…"
        self._spend(len(text))
        return text

    def _bytes(self, value: bytes) -> str:
        shown = value if self.in_full else value[:SMALL_NUMBERS]
        return self._bounded(f"{len(value)} bytes: {shown.hex()}{'…' if len(shown) < len(value) else ''}")

    def _list(self, value: list[Any] | tuple[Any, ...], name: str, nonfinite: dict[str, str]) -> Any:
        """A list of plain numbers and texts."""
        if len(value) > self.numbers:
            self._refuse()
            return _summary([len(value)], type(value).__name__, None, None)
        return [
            self._bounded(_type_name(item))
            if isinstance(item, _CONTAINERS)
            else self._leaf(item, f"{name}.{index}", nonfinite)
            for index, item in enumerate(value)
        ]

    def _numpy_scalar(self, value: np.generic[Any], name: str, nonfinite: dict[str, str]) -> Any:
        kind = value.dtype.kind
        if kind == "b":
            return bool(value)
        if kind in "iu":
            return self._int(value.item())
        if kind == "f":
            return self._float(float(value), name, nonfinite)
        if kind == "S":
            return self._bytes(value.tobytes())
        if kind == "V":
            fields = value.dtype.names
            if fields is None:
                return self._bytes(value.tobytes())
            flat: dict[str, Any] = {}
            for field in fields[: max(0, self.leaves)]:
                self.leaves -= 1
                flat[self._bounded(field)] = self._leaf(value[field], f"{name}.{field}", nonfinite)  # type: ignore[index] # has fields
            return flat
        return self._bounded(str(value))

    def _array(self, value: np.ndarray[Any, Any], name: str, nonfinite: dict[str, str]) -> Any:
        kind = value.dtype.kind
        if kind == "V" or value.size > self.numbers:
            self._refuse()
            return self._array_summary(value, name, nonfinite)
        if value.ndim == 0:
            return self._leaf(value[()], name, nonfinite) if kind != "O" else self._bounded(_type_name(value[()]))
        if kind in "biuf" and not isinstance(value, np.ma.MaskedArray):
            self.numbers -= value.size
            plain = value
            if value.dtype.char == "g":  # a long double may be too large for JSON's numbers
                with np.errstate(all="ignore"):
                    plain = value.astype(np.float64)
            if kind != "f" or np.isfinite(plain).all():
                return plain.tolist()
            return self._with_nulls(plain, name, nonfinite)
        self.leaves -= value.size
        if self.leaves < 0:
            self._refuse()
            return self._array_summary(value, name, nonfinite)
        return self._nested(value, name, nonfinite)

    def _with_nulls(self, value: np.ndarray[Any, Any], name: str, nonfinite: dict[str, str]) -> Any:
        plain = value.tolist()
        for place in np.argwhere(~np.isfinite(value)).tolist():
            row = plain
            for index in place[:-1]:
                row = row[index]
            self._name(".".join((name, *map(str, place))), row[place[-1]], nonfinite)
            row[place[-1]] = None
        return plain

    def _nested(self, value: Any, name: str, nonfinite: dict[str, str]) -> Any:
        """Arrays of texts, times, complex numbers or objects, and masked ones, item by item."""
        if value is np.ma.masked:
            return None
        if isinstance(value, np.ndarray) and value.ndim:
            return [self._nested(value[index], f"{name}.{index}", nonfinite) for index in range(len(value))]
        if isinstance(value, np.ndarray) and value.ndim == 0:
            value = value[()]
        if isinstance(value, _CONTAINERS):
            return self._bounded(_type_name(value))
        return self._leaf(value, name, nonfinite)

    def _array_summary(self, value: np.ndarray[Any, Any], name: str, nonfinite: dict[str, str]) -> dict[str, Any]:
        least = most = None
        if value.size and value.dtype.kind in "biuf":
            least = self._leaf(value.min(), f"{name}.min", nonfinite)
            most = self._leaf(value.max(), f"{name}.max", nonfinite)
        return _summary(list(value.shape), str(value.dtype)[:256], least, most)

    def _spend(self, text: int) -> None:
        self.text -= text
        if self.text < 0:
            self._refuse()

    def _refuse(self) -> None:
        if self.in_full:
            raise _TooMuch


def _summary(shape: list[int], dtype: str, least: Any, most: Any) -> dict[str, Any]:
    return {"shape": shape, "dtype": dtype, "min": least, "max": most}


def _writable(text: str) -> str:
    """Half a surrogate pair cannot be written in UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _type_name(value: Any) -> str:
    return type.__getattribute__(type(value), "__name__")[:256]  # type: ignore[no-any-return] # a class's name is text


def _word(value: float) -> str:
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


_CONTAINERS = (dict, list, tuple, np.ndarray, np.void)
_LEAST_INT = -(2**63)
_GREATEST_INT = 2**64 - 1
