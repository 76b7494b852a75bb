"""Checked files: small JSON files that tell whether they still say what was written.

The last member of the object, `"crc32"`, is the CRC-32 of all bytes before it, in hexadecimal. A file without one, such
as a user writes by hand, is taken as it is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar
from zlib import crc32

import msgspec

from kernel.files import NOT_OURS, open_regular, write_whole

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")

MOST_BYTES = 64 * 2**20
"""No file of ours comes near; what is larger was written by somebody else."""


class NotAsWritten(Exception):
    """A file is not what was written into it. Its text names the file."""


def write_checked(path: Path, value: Any, *, lasting: bool, pretty: bool = False) -> None:
    """Write a value that JSON says as an object; whole, and to last, as `write_whole` does."""
    write_whole(path, pack(value, pretty=pretty), lasting=lasting)


def read_checked(path: Path, kind: type[T]) -> T | None:
    """The value of a file; None where there is none. Raises `NotAsWritten`."""
    try:
        with open_regular(path) as file:
            content = file.read(MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno not in NOT_OURS:
            raise
        raise NotAsWritten(f"{path}: {error.strerror}") from None
    try:
        return unpack(content, kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, NotAsWritten) as error:
        raise NotAsWritten(f"{path}: is not what was written into it: {error}") from None


def pack(value: Any, *, pretty: bool = False) -> bytes:
    """What such a file holds."""
    body = msgspec.json.encode(value)
    if pretty:
        body = msgspec.json.format(body)
    start = body[:-1].rstrip()
    comma, space = b"" if start == b"{" else b",", b"\n  " if pretty else b""
    return b'%s%s%s"crc32":"%08x"%s}\n' % (start, comma, space, crc32(start), b"\n" if pretty else b"")


def unpack(content: bytes, kind: type[T]) -> T:
    """The value that such a file holds. Raises `NotAsWritten`, or what decoding raises."""
    end = _END.search(content)
    # One that is nearly so was one before a bit of it changed.
    if end is None or sum(a != b for a, b in zip(end["key"], b"crc32", strict=True)) > 1:
        return msgspec.json.decode(content, type=kind)
    start = content[: end.start()]
    if end["key"] != b"crc32" or end["value"] != b"%08x" % crc32(start):
        raise NotAsWritten("its checksum is another one")
    return msgspec.json.decode(start + b"}", type=kind)


_END = re.compile(rb',?[ \n]*"(?P<key>.{5})":"(?P<value>.{8})"[ \n]*\}[ \n]*\Z', re.DOTALL)
