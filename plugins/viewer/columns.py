"""Columns: numbers of many steps as bytes that a browser reads without parsing, thinned to what a screen can show.

bytes 0-3    b"SRC1"
bytes 4-7    u32le: length of the header
header       JSON, padded with spaces so that the columns begin at a multiple of 8
columns      each at its offset from the start, a multiple of 8; little-endian
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Column = NDArray[Any]

MAGIC = b"SRC1"
KINDS = {"f64": "<f8", "i32": "<i4", "u8": "u1"}


def pack(columns: Mapping[str, Column], about: Mapping[str, Any]) -> bytes:
    """The columns, each as the kind that its array has, behind a header that also says what `about` says."""
    described: list[dict[str, Any]] = []
    parts: list[bytes] = []
    size = 0
    for name, column in columns.items():
        kind = _kind(column)
        content = column.astype(KINDS[kind], copy=False).tobytes()
        described.append({"name": name, "kind": kind, "offset": size, "length": len(column)})
        parts.append(content + bytes(-len(content) % 8))
        size += len(parts[-1])
    start, header = 0, b""
    while True:  # the offsets count from the file's start, which is behind a header that says them
        header = msgspec.json.encode(
            {**about, "columns": [{**each, "offset": each["offset"] + start} for each in described]}
        )
        header += b" " * (-(8 + len(header)) % 8)
        if 8 + len(header) <= start:
            header += b" " * (start - 8 - len(header))
            break
        start = 8 + len(header)
    return b"".join([MAGIC, struct.pack("<I", len(header)), header, *parts])


def thin(columns: Mapping[str, Column], points: int) -> dict[str, Column]:
    """Two rows for each of `points // 2` stretches: of each column its minimum and maximum, in their order.

    `step` has the first and the last step of each stretch.
    """
    rows = len(next(iter(columns.values())))
    buckets = max(1, points // 2)
    size = -(-rows // buckets)
    buckets = -(-rows // size)
    ends = np.minimum(np.arange(1, buckets + 1) * size, rows) - 1
    return {
        name: _ends(column, ends, size) if name == "step" else _extremes(column, buckets, size)
        for name, column in columns.items()
    }


def _ends(column: Column, ends: NDArray[np.intp], size: int) -> Column:
    return np.stack([column[::size], column[ends]], axis=1).ravel()


def _extremes(column: Column, buckets: int, size: int) -> Column:
    padded = np.full(buckets * size, np.nan)
    padded[: len(column)] = column
    table = padded.reshape(buckets, size)
    missing = np.isnan(table)
    lowest = np.where(missing, np.inf, table).argmin(axis=1)
    highest = np.where(missing, -np.inf, table).argmax(axis=1)
    rows = np.arange(buckets)
    first, second = np.minimum(lowest, highest), np.maximum(lowest, highest)
    pairs: Column = np.stack([table[rows, first], table[rows, second]], axis=1).ravel()
    if column.dtype.kind == "f":
        return pairs
    return np.nan_to_num(pairs).astype(column.dtype)


def _kind(column: Column) -> str:
    if column.dtype.kind == "f":
        return "f64"
    return "u8" if column.dtype.itemsize == 1 else "i32"


def joined(texts: Sequence[bytes | None]) -> list[Any]:
    """JSON columns of many rows, decoded at one go; None where there was none."""
    return msgspec.json.decode(b"[" + b",".join([b"null" if text is None else text for text in texts]) + b"]")  # type: ignore[no-any-return] # it is a list
