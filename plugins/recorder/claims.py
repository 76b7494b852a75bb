"""Claims: which of the live environments that write into one folder under one prefix has the plain names.

home/claims/<digest of folder and prefix>-<number>.lock     held while the environment lives
"""

from __future__ import annotations

import hashlib
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from kernel.files import FileLock, acquire

if TYPE_CHECKING:
    from pathlib import Path


class Claim(NamedTuple):
    """A number that no other live environment has for this folder and prefix; 0 has the plain names."""

    number: int
    lock: FileLock


def claim(home: Path, folder: str, prefix: str) -> Claim:
    """The lowest number that is free; its file is empty and stays, as removing a lock file is a race."""
    claims = home / "claims"
    claims.mkdir(exist_ok=True)
    digest = hashlib.sha256(f"{folder}\0{prefix}".encode()).hexdigest()[:16]
    for number in count():
        lock = acquire(claims / f"{digest}-{number}.lock")
        if lock is not None:
            return Claim(number, lock)
    raise AssertionError("numbers do not end")


def named(prefix: str, name: str, number: int) -> str:
    """A video's name with its environment's number behind the prefix; the first has none."""
    if not number:
        return name
    if name.startswith(f"{prefix}-"):
        return f"{prefix}-w{number}-{name.removeprefix(f'{prefix}-')}"
    return f"{name}-w{number}"
