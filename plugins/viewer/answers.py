"""Answers: JSON out, JSON in, and errors that say what is wrong."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread
import msgspec
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.requests import Request

T = TypeVar("T")

BODY_BYTES = 64 * 1024
"""The largest body that anybody has to send."""
GZIP_BYTES = 4 * 1024


class Wrong(Exception):
    """An answer that is an error: its status, and a sentence for the user."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


async def answer(request: Request, value: Any, status: int = 200) -> Response:
    """The value as JSON, compressed where the browser takes that and it is worth it."""
    body = await anyio.to_thread.run_sync(_encode, value)
    return await packed(request, body, "application/json", status=status)


async def packed(request: Request, body: bytes, media_type: str, status: int = 200) -> Response:
    """Bytes, compressed where the browser takes that and it is worth it."""
    headers = {"Cache-Control": "no-store", "Vary": "Accept-Encoding"}
    if len(body) >= GZIP_BYTES and takes_gzip(request):
        body = await anyio.to_thread.run_sync(gzip.compress, body, 1)
        headers["Content-Encoding"] = "gzip"
    return Response(body, status_code=status, media_type=media_type, headers=headers)


def takes_gzip(request: Request) -> bool:
    """Whether the browser says so."""
    return "gzip" in request.headers.get("accept-encoding", "")


def error(status: int, sentence: str) -> Response:
    """An error, as JSON."""
    return Response(
        _encode({"error": sentence}),
        status_code=status,
        media_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


async def body_of(request: Request, kind: type[T]) -> T:
    """The JSON object of a request. Raises `Wrong` where it is none, or not what is wanted."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES:
            raise Wrong(413, f"the body has more than {BODY_BYTES} bytes")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as failure:
        raise Wrong(400, f"the body: {failure}") from None


def whole_number(request: Request, name: str, default: int, *, least: int = 0, most: int = 2**53) -> int:
    """A parameter of the query; pressed between its bounds. Raises `Wrong` where it is no number."""
    text = request.query_params.get(name)
    if text is None:
        return default
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 18):
        raise Wrong(400, f"{name}: must be a whole number")
    return min(max(int(text), least), most)


_encode = msgspec.json.Encoder(enc_hook=str).encode
