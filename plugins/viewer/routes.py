"""The routes: every URL of the viewer, and what answers there. docs/viewer.md describes them."""

from __future__ import annotations

import importlib.metadata
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

import anyio
import anyio.to_thread
import msgspec
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from plugins.viewer import episodes, export, sessions, steps, system
from plugins.viewer.answers import Wrong, answer, body_of, error, packed, whole_number
from plugins.viewer.asking import Asking
from plugins.viewer.controls import Controls
from plugins.viewer.files import FILE_TYPES, OpenFile, attachment, open_file
from plugins.viewer.following import Follower
from plugins.viewer.ids import EpisodeId, WorkerId, episode_id, worker_id
from plugins.viewer.page_files import PageFiles, plotly_version
from plugins.viewer.pictures import Gallery
from plugins.viewer.steps import Library
from plugins.viewer.streams import Streams
from plugins.viewer.system import System
from plugins.viewer.tables import NoTables, Tables
from plugins.viewer.videos import Place, hash_of, video_row
from plugins.viewer.workshop import Comparison, Source, Workshop

if TYPE_CHECKING:
    from starlette.requests import Request

    from plugins.viewer.settings import Settings

IMMUTABLE = "private, max-age=31536000, immutable"


MOST_FPS = 1000.0
PATIENCE_SECONDS = 0.2


class Compare(msgspec.Struct, forbid_unknown_fields=True):
    ids: Annotated[list[str], msgspec.Meta(min_length=2, max_length=4)]
    align: Literal["step", "time", "end"] = "step"


class Site:
    """One home, as it is shown."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.home = Path(settings.home)
        self.folders = [Path(folder) for folder in settings.folders]
        self.tables = Tables(self.home / settings.database)
        self.library = Library()
        self.files = PageFiles()
        self.workshop = Workshop()
        self.asking = Asking(self.home)
        self.follower = Follower(self.home, self.tables)
        self.system = System()
        self.follower.listeners.add(self.system.hear)
        self.gallery = Gallery(self.home, self.follower, self.asking, settings.frame_cache)
        self.streams = Streams(_home_id(self.home), self.follower, self.gallery, self.tables, self.asking)
        self.controls = Controls(self.tables, self.asking, self.follower)

    def app(self) -> Starlette:
        """The application, without the gate in front of it."""
        controls = self.controls
        pages = ("/", "/live", "/episodes", "/episodes/{id}", "/compare", "/system")
        return Starlette(
            routes=[
                *(Route(page, self.files.index) for page in pages),
                Route("/page/{name:path}", self.files.file),
                Route("/vendor/plotly.min.js", self.files.plotly),
                Route("/api/about", self.about),
                Route("/api/sessions", self.sessions),
                Route("/api/progress", self.progress),
                Route("/api/pairs", self.pairs),
                Route("/api/episodes", self.episodes),
                Route("/api/episodes/marks", self.marks),
                Route("/api/episodes/{id}", self.episode),
                Route("/api/episodes/{id}/series", self.series),
                Route("/api/episodes/{id}/steps", self.steps),
                Route("/api/episodes/{id}/steps.csv", self.steps_csv),
                Route("/api/episodes/{id}/steps.json", self.steps_json),
                Route("/api/episodes/{id}/rows", self.rows),
                Route("/api/videos/{id}/file", self.video),
                Route("/api/thumbnails/{name}", self.thumbnail),
                Route("/api/strips/{name}", self.strip),
                Route("/api/comparisons", self.compare, methods=["POST"]),
                Route("/api/comparisons/{id}", self.comparison),
                Route("/api/comparisons/{id}/file", self.comparison_file),
                Route("/api/live/{id}/frames", self.live_frames),
                Route("/api/live/{id}/frames/{name}", self.live_frame),
                Route("/api/system", self.system_page),
                Route("/api/capture", controls.shown),
                Route("/api/capture", controls.capture, methods=["POST"]),
                Route("/api/capture/once", controls.once, methods=["POST"]),
                Route("/api/retention", controls.retention, methods=["PUT"]),
                Route("/api/videos/{id}", controls.delete, methods=["DELETE"]),
                Route("/api/videos/{id}/pin", controls.pin, methods=["PUT", "DELETE"]),
                Route("/api/sessions/{session}/videos", controls.delete_of_session, methods=["DELETE"]),
                Route("/api/sessions/{session}/{action}", controls.session, methods=["POST"]),
                WebSocketRoute("/ws", self.streams.serve),
            ],
            exception_handlers={Wrong: _wrong, HTTPException: _not_here, Exception: _broken},
        )

    def close(self) -> None:
        """Break off what is in the making."""
        self.tables.close()
        self.workshop.close()

    def take_lag(self, seconds: float) -> None:
        """How late the kernel's loop was, in the last second."""
        self.system.lag.append((time.time(), seconds))
        self.streams.notify("lag", {"type": "lag", "seconds": seconds})

    # What there is ---------------------------------------------------------------------------------------------------

    async def about(self, request: Request) -> Response:
        try:
            seq, database = await self.tables.ask(_cursor), "ready"
        except NoTables as none:
            seq, database = 0, "missing" if none.status == 404 else "unreadable"
        return await answer(
            request,
            {
                "home": await anyio.to_thread.run_sync(_home_id, self.home),
                "name": self.home.name,
                "version": importlib.metadata.version("stepreel"),
                "writable": self.asking.writable,
                "kernel": "running" if self.asking.kernel_runs else "none",
                "database": database,
                "seq": seq,
                "time": time.time(),
                "by": "viewer",
                "frame_cache": self.settings.frame_cache,
                "plotly": plotly_version(),
            },
        )

    async def sessions(self, request: Request) -> Response:
        try:
            with anyio.move_on_after(PATIENCE_SECONDS):  # a busy log's end is long; what was read stays read
                await self.follower.catch_up()
            paused = frozenset(self.follower.state.paused)
            found = await self.tables.ask(sessions.all_sessions, self.home, paused)
        except NoTables:
            found = []
        return await answer(request, {"sessions": found})

    async def progress(self, request: Request) -> Response:
        points = whole_number(request, "points", 20_000, least=2, most=200_000)
        try:
            found = await self.tables.ask(sessions.progress, request.query_params.getlist("session"), points)
        except NoTables:
            found = []
        return await answer(request, {"sessions": found})

    async def pairs(self, request: Request) -> Response:
        one, other = request.query_params.get("a", ""), request.query_params.get("b", "")
        return await answer(request, {"pairs": await self.tables.ask(sessions.pairs, one, other)})

    async def episodes(self, request: Request) -> Response:
        wish = episodes.wish_of(request)
        try:
            found = await self.tables.ask(episodes.window, self.place, request, wish)
        except NoTables:
            columns: dict[str, list[Any]] = {name: [] for name in episodes.SHOWN}
            found = {"total": 0, "newer": 0, "as_of": time.time(), "offset": 0, "columns": columns}
        return await answer(request, found)

    async def marks(self, request: Request) -> Response:
        return await answer(request, await self.tables.ask(episodes.marks, episodes.wish_of(request)))

    async def episode(self, request: Request) -> Response:
        return await answer(request, await self.tables.ask(episodes.one, self.place, _episode(request)))

    # Steps -----------------------------------------------------------------------------------------------------------

    async def series(self, request: Request) -> Response:
        episode = _episode(request)
        found = await self.tables.ask(lambda connection: steps.described(self.library, connection, episode))
        return await answer(request, found)

    async def steps(self, request: Request) -> Response:
        episode = _episode(request)
        names = [name for name in request.query_params.get("columns", "step,frame,reward").split(",") if name]
        wanted = steps.Wanted(
            names=names,
            first=whole_number(request, "from", 0),
            last=whole_number(request, "to", 2**53),
            points=whole_number(request, "points", 0, most=1_000_000),
        )
        found = await self.tables.ask(lambda connection: steps.packed(self.library, connection, episode, wanted))
        return await packed(request, found, "application/octet-stream")

    async def rows(self, request: Request) -> Response:
        episode = _episode(request)
        first, limit = whole_number(request, "from", 0), whole_number(request, "limit", 200, most=1000)

        found = await self.tables.ask(
            lambda connection: {
                "total": steps.count(connection, episode),
                "rows": steps.rows(connection, episode, first, 2**62, limit),
            }
        )
        return await answer(request, found)

    async def steps_csv(self, request: Request) -> Response:
        episode = _episode(request)
        await self.tables.ask(steps.count, episode)
        return StreamingResponse(
            export.as_csv(self.tables, self.library, episode),
            media_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": attachment(f"{_name(episode)}.csv")},
        )

    async def steps_json(self, request: Request) -> Response:
        episode = _episode(request)
        await self.tables.ask(steps.count, episode)
        return StreamingResponse(
            export.as_json(self.tables, episode),
            media_type="application/json",
            headers={"Content-Disposition": attachment(f"{_name(episode)}.json")},
        )

    # Files -----------------------------------------------------------------------------------------------------------

    async def video(self, request: Request) -> Response:
        row = await self.tables.ask(video_row, _number(request.path_params["id"]))
        if row is None or row["state"] != "available":
            raise Wrong(404, "there is no such video, or it does not stand any more")
        headers = {}
        if request.query_params.get("download"):
            headers["Content-Disposition"] = attachment(f"{row['session']}-{Path(str(row['path'])).name}")
        return await self._file(request, str(row["path"]), ".mp4", headers)

    async def thumbnail(self, request: Request) -> Response:
        row = await self._hashed(request.path_params["name"])
        if not row["thumbnail"]:
            raise Wrong(404, "this video has no thumbnail")
        return await self._file(request, str(row["thumbnail"]), ".jpg", {"Cache-Control": IMMUTABLE})

    async def strip(self, request: Request) -> Response:
        name = request.path_params["name"]
        source = self._source(await self._hashed(name))
        content = await self.workshop.strip(name, source)
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": IMMUTABLE})

    async def compare(self, request: Request) -> Response:
        wish = await body_of(request, Compare)
        sources = []
        for text in wish.ids:
            episode = episode_id(text)
            if episode is None:
                raise Wrong(400, f"ids: {text} is no episode's id")
            shown = await self.tables.ask(episodes.one, self.place, episode)
            row = await self.tables.ask(video_row, shown["video"]) if shown["video_state"] == "available" else None
            if row is None:
                raise Wrong(409, f"episode {episode.episode} of worker {episode.worker} has no video to be shown")
            sources.append(self._source(row))
        comparison = self.workshop.begin()
        making = BackgroundTask(self.workshop.compare, comparison, sources, wish.align)
        body = msgspec.json.encode(_as_seen(comparison))
        return Response(body, status_code=202, media_type="application/json", background=making)

    async def comparison(self, request: Request) -> Response:
        return await answer(request, _as_seen(self._comparison(request)))

    async def comparison_file(self, request: Request) -> Response:
        comparison = self._comparison(request)
        if comparison.state != "ready":
            raise Wrong(404, "it is not ready")
        headers = {"Content-Disposition": attachment("side-by-side.mp4")}
        return OpenFile(os.dup(comparison.descriptor), request, FILE_TYPES[".mp4"], headers)

    def _comparison(self, request: Request) -> Comparison:
        found = self.workshop.comparisons.get(request.path_params["id"])
        if found is None:
            raise Wrong(404, "there is no such comparison, or others took its place")
        return found

    def _source(self, row: dict[str, Any]) -> Source:
        frames, fps = row["frames"], row["fps"]
        if not (isinstance(frames, int) and frames > 0 and isinstance(fps, int | float) and 0 < fps <= MOST_FPS):
            raise Wrong(404, "this video has no pictures to be shown")
        path = str(row["path"])
        return Source(lambda: open_file(self.home, self.folders, path, ".mp4"), frames, float(fps))

    async def _hashed(self, name: str) -> dict[str, Any]:
        """The video that `<id>-<hash>.jpg` names; with another hash there is none."""
        number, dash, rest = name.removesuffix(".jpg").partition("-")
        row = await self.tables.ask(video_row, _number(number)) if dash and name.endswith(".jpg") else None
        if row is None or row["state"] != "available" or not rest or rest != hash_of(row):
            raise Wrong(404, "there is no such picture")
        return row

    async def _file(self, request: Request, path: str, suffix: str, headers: dict[str, str]) -> Response:
        descriptor = await anyio.to_thread.run_sync(open_file, self.home, self.folders, path, suffix)
        return OpenFile(descriptor, request, FILE_TYPES[suffix], headers)

    # Live, and the machine -------------------------------------------------------------------------------------------

    async def live_frames(self, request: Request) -> Response:
        worker = _worker(request)
        frames = [
            {
                "picture": picture.number,
                "episode": picture.moment.episode,
                "step": picture.moment.step,
                "return": picture.moment.total_reward,
                "time": picture.moment.time,
                "url": f"/api/live/{quote(str(worker))}/frames/{picture.number}.jpg",
            }
            for picture in self.gallery.frames(worker)
        ]
        return await answer(request, {"frames": frames})

    async def live_frame(self, request: Request) -> Response:
        number, dot, suffix = request.path_params["name"].partition(".")
        picture = self.gallery.frame(_worker(request), _number(number)) if (dot, suffix) == (".", "jpg") else None
        if picture is None:
            raise Wrong(404, "this picture is not kept any more")
        return Response(picture.jpeg, media_type="image/jpeg", headers={"Cache-Control": IMMUTABLE})

    async def system_page(self, request: Request) -> Response:
        await self.follower.catch_up()
        seconds = whole_number(request, "seconds", 600, least=1, most=86_400)
        disk = await anyio.to_thread.run_sync(system.disk, self.home, self.tables.file)
        prune, of_session = await anyio.to_thread.run_sync(system.pruning, self.home)
        try:
            storage = await self.tables.ask(system.storage)
            ids = await self.tables.ask(
                system.ids_of, [each["recording"] for each in (prune or {}).get("removals", [])]
            )
        except NoTables:
            storage, ids = [], {}
        for each in storage:
            each["prune_videos"], each["prune_bytes"] = of_session.get(each["session"], (0, 0))
        for removal in (prune or {}).get("removals", []):
            removal["video"] = ids.get(removal["recording"])
        measured = self.system.shown(self.follower.state.probes, seconds)
        return await answer(request, {**measured, "disk": disk, "storage": storage, "prune": prune})

    # Around it -------------------------------------------------------------------------------------------------------

    @property
    def place(self) -> Place:
        """What the words about videos depend on."""
        return Place(self.home, self.folders, self.asking.kernel_runs)


def _episode(request: Request) -> EpisodeId:
    found = episode_id(request.path_params["id"])
    if found is None:
        raise Wrong(404, "this is no episode's id")
    return found


def _as_seen(comparison: Comparison) -> dict[str, Any]:
    ready = comparison.state == "ready"
    return {
        "id": comparison.id,
        "state": comparison.state,
        "error": comparison.error,
        "file": f"/api/comparisons/{comparison.id}/file" if ready else None,
    }


def _worker(request: Request) -> WorkerId:
    found = worker_id(request.path_params["id"])
    if found is None:
        raise Wrong(404, "this is no worker's id")
    return found


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise Wrong(404, "this is no video's id")
    return int(text)


def _name(episode: EpisodeId) -> str:
    return f"{episode.session}-worker-{episode.worker}-episode-{episode.episode}-{episode.agent}"


def _cursor(connection: Any) -> int:
    (seq,) = connection.execute("SELECT max(seq) FROM cursor").fetchone()
    return int(seq or 0)


class _Home(msgspec.Struct):
    id: str


def _home_id(home: Path) -> str:
    try:
        return msgspec.json.decode((home / "home.json").read_bytes(), type=_Home).id
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _wrong(_request: Request, wrong: Exception) -> Response:
    assert isinstance(wrong, Wrong)
    return error(wrong.status, wrong.sentence)


def _not_here(_request: Request, failure: Exception) -> Response:
    assert isinstance(failure, HTTPException)
    return error(failure.status_code, failure.detail)


def _broken(_request: Request, failure: Exception) -> Response:
    return error(500, f"{type(failure).__name__}: {failure}")
