"""What a Weights & Biases run without network has written: its rows, and its videos."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import TYPE_CHECKING, Any

from wandb.proto import wandb_internal_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 32768


def rows_of(folder: Path, run: int = 0) -> list[dict[str, Any]]:
    """The history of a script's run, row by row."""
    (_, file), *_ = sorted((file.stat().st_mtime, file) for file in folder.glob("wandb/offline-run-*/*.wandb"))[run:]
    rows = []
    for record in _records(file.read_bytes()):
        if record.WhichOneof("record_type") == "history":
            row: dict[str, Any] = {}
            for item in record.history.item:
                part = row
                *path, last = item.nested_key or item.key.split("/")
                for name in path:
                    part = part.setdefault(name, {})
                part[last] = json.loads(item.value_json)
            rows.append(row)
    return rows


def videos_in(rows: list[dict[str, Any]], folder: Path, key: str = "videos") -> list[tuple[str, int | None]]:
    """Each video's caption and step, in the order of the rows; their files are looked at."""
    found = []
    for row in rows:
        shown = row.get(key, {})
        for video in shown.get("videos", [shown] if shown else []):
            (file,) = folder.glob(f"wandb/offline-run-*/files/{video['path']}")
            assert hashlib.sha256(file.read_bytes()).hexdigest() == video["sha256"]
            assert b"ftyp" in file.read_bytes()[:16]
            found.append((video["caption"], row.get(f"{key}_step")))
    return found


def _records(data: bytes) -> Iterator[Any]:
    """LevelDB's log format behind seven bytes: crc32, length and kind of each part (1: whole; 2, 3, 4: of several)."""
    assert data.startswith(b":W&B")
    at, parts = 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(parts)  # type: ignore[attr-defined]  # made when it is imported
            parts = b""
