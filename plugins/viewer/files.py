"""Files: the one way in which a file of the home, or of a folder that the user named, reaches a browser.

Its path comes from the database, which a stranger may have made. So it is walked folder by folder from a root that is
ours, without a symbolic link, to a regular file with the suffix that is expected; and what is then sent is the file
that was opened, whatever its name may mean by that time.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import quote

import anyio.to_thread
from starlette.responses import Response

from plugins.viewer.answers import Wrong

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

BLOCK_BYTES = 256 * 1024

FILE_TYPES = {".mp4": "video/mp4", ".jpg": "image/jpeg"}


class Outside(Wrong):
    """A file that lies in no folder that may be shown."""

    def __init__(self, path: str) -> None:
        folder = str(PurePosixPath(path).parent)
        super().__init__(
            403,
            f"{path} lies outside of the home. To show it, name its folder: `folders` in the viewer's table, "
            f"or --folder {folder}",
        )


def open_file(home: Path, folders: Sequence[Path], path: str, suffix: str) -> int:
    """Open a regular file with this suffix, in the home or one of the folders; its descriptor, for the caller to close.

    `path` is relative to the home, or absolute. Raises `Outside`, and `Wrong` where there is no such file.
    """
    root, parts = _place(home, folders, path)
    if PurePosixPath(path).suffix != suffix or "\0" in path:
        raise Wrong(403, f"only files called *{suffix} are shown here")
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for part in parts[:-1]:
            descriptor = _step(descriptor, part, os.O_DIRECTORY)
        descriptor = _step(descriptor, parts[-1], os.O_NONBLOCK)  # opening a pipe would wait for its other end
    except OSError as failure:
        raise Wrong(404, f"{path}: {failure.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Wrong(404, f"{path}: is no regular file")
    return descriptor


def is_regular(path: Path) -> bool:
    """Whether this is a file that can be read without waiting: opening a pipe, say, waits for its other end."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def odd_file_in(home: Path) -> Path | None:
    """A file of a home that is none, where a kernel would have made one; None where all are as they should be."""
    names = ("home.json", "lock", "capture.json", "retention.json")
    own = [home / name for name in names] + sorted((home / "log").glob("*.jsonl"))
    return next((path for path in own if path.exists() and not is_regular(path)), None)


def may_be_shown(home: Path, folders: Sequence[Path], path: str) -> bool:
    """Whether a path lies where files are shown from; nothing is looked at."""
    try:
        _place(home, folders, path)
    except Wrong:
        return False
    return True


def _place(home: Path, folders: Sequence[Path], path: str) -> tuple[Path, tuple[str, ...]]:
    """The root that a path lies in, and the names that lead from there to the file."""
    pure = PurePosixPath(path)
    if ".." not in pure.parts and pure.name:
        if not pure.is_absolute():
            return home, pure.parts
        for root in (home, *folders):
            if pure.is_relative_to(root) and pure != PurePosixPath(root):
                return root, pure.relative_to(root).parts
    raise Outside(path)


def _step(folder: int, name: str, flags: int) -> int:
    """Open what a folder has under a name, where that is no link; the folder is closed."""
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=folder)
    finally:
        os.close(folder)


class OpenFile(Response):
    """An open file as an answer: whole, or the range that was asked for. It is closed in the end."""

    def __init__(self, descriptor: int, request: Request, media_type: str, headers: Mapping[str, str]) -> None:
        status = os.fstat(descriptor)
        self._descriptor = descriptor
        self._start, self._end = 0, status.st_size
        etag = f'"{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ino:x}"'
        super().__init__(None, media_type=media_type)
        self.headers.update({"Accept-Ranges": "bytes", "ETag": etag, "Cache-Control": "private, no-cache", **headers})
        if request.headers.get("if-none-match") == etag and "range" not in request.headers:
            self.status_code, self._end = 304, 0
            del self.headers["content-length"]
            return
        asked = request.headers.get("range", "")
        if asked and request.headers.get("if-range", etag) == etag:
            self._take_range(asked, status.st_size)
        self.headers["Content-Length"] = str(self._end - self._start)

    def _take_range(self, asked: str, size_bytes: int) -> None:
        """One range, as browsers ask for it; what is not one is as if not asked (RFC 9110, 14.2)."""
        found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", asked.replace(" ", ""))
        if found is None or found[0].endswith("=-"):
            return
        if not found[1]:  # the last n bytes
            start, end = max(0, size_bytes - int(found[2])), size_bytes
        else:
            start = int(found[1])
            end = min(int(found[2]) + 1, size_bytes) if found[2] else size_bytes
            if found[2] and int(found[2]) < start:
                return
        if start >= size_bytes:
            self.status_code = 416
            self.headers["Content-Range"] = f"bytes */{size_bytes}"
            self._start = self._end = 0
            return
        self.status_code = 206
        self.headers["Content-Range"] = f"bytes {start}-{end - 1}/{size_bytes}"
        self._start, self._end = start, end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as ASGI has it
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            at = self._start if scope["method"] != "HEAD" else self._end
            while at < self._end:
                block = await anyio.to_thread.run_sync(os.pread, self._descriptor, min(BLOCK_BYTES, self._end - at), at)
                if not block:
                    break  # it was cut short meanwhile; the connection ends, as its length was said
                at += len(block)
                await send({"type": "http.response.body", "body": block, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            with suppress(OSError):
                os.close(self._descriptor)


def attachment(name: str) -> str:
    """A `Content-Disposition` that saves under a name, of which nothing but plain characters stays."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "file"
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(plain)}"
