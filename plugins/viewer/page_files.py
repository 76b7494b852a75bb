"""The page's own files, and Plotly's: read once at the start, and served from memory."""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread
from starlette.responses import Response

from plugins.viewer.answers import error, takes_gzip

if TYPE_CHECKING:
    from starlette.requests import Request

FOLDER = Path(__file__).parent / "page"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}


class PageFile:
    """A file as it is served."""

    def __init__(self, path: Path) -> None:
        self._content = path.read_bytes()
        self._packed = b""
        self._type = TYPES[path.suffix]
        self._etag = f'"{hashlib.sha256(self._content).hexdigest()[:32]}"'

    async def __call__(self, request: Request) -> Response:
        """Answer with the file, or that the browser has it already."""
        headers = {"ETag": self._etag, "Cache-Control": "private, max-age=5", "Vary": "Accept-Encoding"}
        if self._etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if not takes_gzip(request) or not self._type.startswith(("text/", "image/svg")):
            return Response(self._content, media_type=self._type, headers=headers)
        if not self._packed:
            self._packed = await anyio.to_thread.run_sync(gzip.compress, self._content, 6)
        return Response(self._packed, media_type=self._type, headers={**headers, "Content-Encoding": "gzip"})


class PageFiles:
    """All of them; a name is looked up, and never a path on the disk."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files = {
            path.relative_to(folder).as_posix(): PageFile(path)
            for path in sorted(folder.rglob("*"))
            if path.suffix in TYPES and path.is_file()
        }
        self._plotly: PageFile | None = None

    async def index(self, request: Request) -> Response:
        """The page, at each of its URLs."""
        return await self._answer(request, "index.html")

    async def file(self, request: Request) -> Response:
        """A file by its name."""
        return await self._answer(request, request.path_params["name"])

    async def plotly(self, request: Request) -> Response:
        """Plotly's own bundle, from its installed package."""
        if self._plotly is None:
            self._plotly = await anyio.to_thread.run_sync(PageFile, plotly_bundle())
        return await self._plotly(request)

    async def _answer(self, request: Request, name: str) -> Response:
        file = self._files.get(name)
        return error(404, "there is no such file") if file is None else await file(request)


def plotly_bundle() -> Path:
    """Where the bundle is. Nothing of the package is imported, which would take seconds."""
    package = importlib.util.find_spec("plotly")
    if package is None or package.origin is None:
        raise FileNotFoundError('plotly is not installed: pip install "stepreel[viewer]"')
    return Path(package.origin).parent / "package_data" / "plotly.min.js"


def plotly_version() -> str:
    """Its version."""
    return importlib.metadata.version("plotly")
