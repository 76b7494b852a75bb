"""Taking apart: what a batch of environments takes and returns, row by row, for the environments that are looked at.

What is in a batch is anybody's: of what cannot be taken apart, each row is None.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from plugins.recorder.pictures import is_picture, on_host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Row = Callable[[int], Any]
    """Gives a row by its place."""

    Column = tuple[Any, Row, list[bool] | None]
    """A key, what gives each environment's value, and who has one; None: all."""


class Rows:
    """Which rows of a batch are looked at. The place of a row is its index among them, and not in the batch."""

    def __init__(self, size: int, chosen: Sequence[int] | None = None) -> None:
        """A batch of so many rows; all of them, or those that are `chosen`, in their order."""
        self.size = size
        self.chosen = range(size) if chosen is None else chosen
        """The index in the batch for each place."""
        self.partial = chosen is not None
        self._gather = None if chosen is None else np.asarray(chosen)

    def __len__(self) -> int:
        return len(self.chosen)

    def vector(self, values: Any) -> np.ndarray[Any, Any]:
        """One number for each place, on the host; of another library's vector only these are copied there.

        This one raises for what is no vector of the batch's size.
        """
        if self._gather is not None:
            if not hasattr(values, "__getitem__") or isinstance(values, (list, tuple)):
                values = np.asarray(values)
            values = values[self._gather]
        vector = values if type(values) is np.ndarray else np.asarray(on_host(values))
        return vector if vector.ndim == 1 else vector.reshape(len(self))

    def of(self, batch: Any, space: Any = None) -> Row:
        """What gives each row of observations or actions. `space` is that of one environment, where it is known."""
        if type(batch) is np.ndarray and self._gather is None and batch.ndim:
            return _row_of(batch)
        try:
            return self._of(batch, space)
        except Exception:  # noqa: BLE001 - whatever somebody's batch is like, the step goes on
            return _nothing

    def of_info(self, info: Any) -> Row:
        """What gives each environment's own info, out of a dict of arrays with masks (`x`, `_x`) as Gymnasium has it.

        A lone number or text is everybody's. What has no row for each environment is nobody's, and left out.
        """
        if type(info) is dict and not info:
            return _empty
        try:
            return self._of_info(info)
        except Exception:  # noqa: BLE001 - as above
            return _nothing

    # Its parts -------------------------------------------------------------------------------------------------------

    def _of(self, batch: Any, space: Any) -> Row:
        if isinstance(batch, dict):
            known = space.spaces if isinstance(space, spaces.Dict) else {}
            fields = {name: self._of(value, known.get(name)) for name, value in batch.items()}
            return lambda place: {name: row(place) for name, row in fields.items()}
        if isinstance(batch, tuple) and (isinstance(space, spaces.Tuple) or not self._is_listed(batch)):
            inner = space.spaces if isinstance(space, spaces.Tuple) else [None] * len(batch)
            members = [self._of(value, member) for value, member in zip(batch, inner, strict=True)]
            return lambda place: tuple([row(place) for row in members])
        if isinstance(batch, (list, tuple)):
            return [batch[index] for index in self.chosen].__getitem__
        return self._of_array(batch)

    def _of_array(self, array: Any) -> Row:
        if not is_picture(array) or len(array.shape) == 0:
            return _nothing
        if self._gather is not None:
            array = array[self._gather]  # on its device, so that no more than these are copied
        return _row_of(on_host(array))

    def _is_listed(self, batch: Any) -> bool:
        """Whether it is a tuple of one thing for each environment, and not one of batches."""
        return len(batch) == self.size and not any(is_picture(each) and len(each.shape) for each in batch)

    def _of_info(self, info: Any) -> Row:
        if isinstance(info, (list, tuple)):  # as DictInfoToList has it
            return self._of(list(info), None) if len(info) == self.size else _empty
        return _own(self._columns(info))

    def _columns(self, info: dict[Any, Any]) -> list[Column]:
        columns: list[Column] = []
        for key, value in info.items():
            if isinstance(key, str) and key[:1] == "_" and key[1:] in info:
                continue  # a mask
            row = self._of_value(value)
            if row is not None:
                columns.append((key, row, self._mask(info.get(f"_{key}"))))
        return columns

    def _of_value(self, value: Any) -> Row | None:
        if isinstance(value, dict):
            columns = self._columns(value)
            return _own(columns) if columns or not value else None
        if isinstance(value, (bool, int, float, str)):
            return lambda _: value
        if isinstance(value, (list, tuple)):
            return self._of(list(value), None) if len(value) == self.size else None
        if is_picture(value) and value.shape[:1] == (self.size,):
            return self._of_array(value)
        return None

    def _mask(self, mask: Any) -> list[bool] | None:
        if getattr(mask, "shape", None) != (self.size,):
            return None
        return [bool(there) for there in self.vector(mask).tolist()]


def rows_in(batch: Any) -> int:
    """How many rows a batch has, as the first array in it says; 0 where there is none."""
    if isinstance(batch, (dict, tuple)):
        members: Iterable[Any] = batch.values() if isinstance(batch, dict) else batch
        return next(filter(None, map(rows_in, members)), 0)
    shape: tuple[int, ...] = getattr(batch, "shape", ())
    return int(shape[0]) if shape else 0


def _own(columns: Sequence[Column]) -> Row:
    """What gives each environment's own dict."""
    return lambda place: {key: row(place) for key, row, mask in columns if mask is None or mask[place]}


def _row_of(array: np.ndarray[Any, Any]) -> Row:
    if array.ndim == 1 and array.dtype.kind in "biufO":
        # A list gives its items in a fifth of the time, and plain ones, which are cheap to write down.
        plain: list[Any] = array.tolist()
        return plain.__getitem__
    return array.__getitem__


def _nothing(_: int) -> None:
    return None


def _empty(_: int) -> dict[Any, Any]:
    return {}
