"""Controls: what a user may ask for. Each wish is an event with `by`, handed in as anyone's would be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from plugins.events import (
    CaptureAsked,
    CaptureSettings,
    RetentionAsked,
    SessionAsked,
    VideoDeleteAsked,
    VideoPinned,
    VideoUnpinned,
)
from plugins.viewer.answers import Wrong, answer, body_of
from plugins.viewer.asking import BY
from plugins.viewer.sessions import is_running
from plugins.viewer.videos import json_or, video_row

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping
    from pathlib import Path

    from starlette.requests import Request
    from starlette.responses import Response

    from kernel.event import Event
    from plugins.viewer.asking import Asking
    from plugins.viewer.following import Follower
    from plugins.viewer.tables import Tables

MOST_EVERY = 10**9


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request that says everything in its URL."""


class Capture(msgspec.Struct, forbid_unknown_fields=True):
    mode: Literal["every", "cubic", "eval", "manual", "off"]
    every: int = 1
    session: str | None = None


class Once(msgspec.Struct, forbid_unknown_fields=True):
    session: str | None = None


class Retention(msgspec.Struct, forbid_unknown_fields=True):
    max_videos_per_session: int | None = None
    max_bytes: int | None = None
    max_age_days: float | None = None
    evict: Literal["oldest", "thin"] | None = None


class Controls:
    """The requests that ask for something."""

    def __init__(self, tables: Tables, asking: Asking, follower: Follower) -> None:
        self._tables = tables
        self._asking = asking
        self._follower = follower

    # Capture ---------------------------------------------------------------------------------------------------------

    async def shown(self, request: Request) -> Response:
        """What was asked for, and what each worker has taken up."""
        await self._follower.catch_up()
        state = self._follower.state
        common = json_or(_read(self._asking.home / "capture.json"), {})
        settings = common.get("settings") if isinstance(common, dict) else None
        workers = []
        for key, worker in state.workers.items():
            applied = worker.applied or state.applied.get(key) or {}
            workers.append(
                {
                    "id": worker.id,
                    "session": worker.session,
                    "worker": worker.worker,
                    "episode": applied.get("episode"),
                    "mode": applied.get("mode"),
                    "every": applied.get("every"),
                    "once": applied.get("once", False),
                }
            )
        asked = state.asked or (settings if isinstance(settings, dict) else None)
        seq = state.asked_seq or (common.get("asked", 0) if isinstance(common, dict) else 0)
        return await answer(request, {"asked": asked, "asked_seq": seq, "held": state.held, "workers": workers})

    async def capture(self, request: Request) -> Response:
        wish = await body_of(request, Capture)
        if not 1 <= wish.every <= MOST_EVERY:
            raise Wrong(400, f"every: must be from 1 to {MOST_EVERY}")
        settings = CaptureSettings(mode=wish.mode, every=wish.every)
        return await self._ask(request, CaptureAsked(settings=settings, session=wish.session, by=BY))

    async def once(self, request: Request) -> Response:
        wish = await body_of(request, Once)
        event = CaptureAsked(settings=CaptureSettings(mode="manual"), once=True, session=wish.session, by=BY)
        return await self._ask(request, event)

    # Videos ----------------------------------------------------------------------------------------------------------

    async def pin(self, request: Request) -> Response:
        await body_of(request, Nothing)
        video = await self._standing(request)
        kind = VideoPinned if request.method == "PUT" else VideoUnpinned
        return await self._ask(request, kind(recording=video["recording"], by=BY))

    async def delete(self, request: Request) -> Response:
        await body_of(request, Nothing)
        video = await self._standing(request)
        if video["pinned"]:
            raise Wrong(409, "this video is pinned; unpin it first to delete it")
        return await self._ask(request, VideoDeleteAsked(recording=video["recording"], by=BY))

    async def delete_of_session(self, request: Request) -> Response:
        await body_of(request, Nothing)
        found = await self._tables.ask(_videos_of, request.path_params["session"])
        free = [recording for recording, pinned in found if not pinned]
        if not found:
            raise Wrong(404, "this session has no videos")
        events = [VideoDeleteAsked(recording=recording, by=BY) for recording in free]
        return await self._ask(request, *events, more={"videos": len(free), "pinned": len(found) - len(free)})

    async def retention(self, request: Request) -> Response:
        wish = await body_of(request, Retention)
        for name in ("max_videos_per_session", "max_bytes", "max_age_days"):
            if (getattr(wish, name) or 0) < 0:
                raise Wrong(400, f"{name}: must be 0 (no limit) or more")
        return await self._ask(request, RetentionAsked(**msgspec.structs.asdict(wish), by=BY))

    # Sessions --------------------------------------------------------------------------------------------------------

    async def session(self, request: Request) -> Response:
        await body_of(request, Nothing)
        session, action = request.path_params["session"], request.path_params["action"]
        if action not in ("pause", "resume", "stop"):
            raise Wrong(404, "there is no such request")
        row = await self._tables.ask(_kind_of, session)
        if row is None:
            raise Wrong(404, "there is no such session")
        if not self._asking.kernel_runs:
            raise Wrong(409, "no kernel runs on this home, so there is nothing to pause, resume or stop")
        if row[0] != "runner":
            raise Wrong(409, "this is a training script's session: it runs as its script does")
        if row[1] is not None or not is_running(self._asking.home, session):
            raise Wrong(409, "this session is over")
        return await self._ask(request, SessionAsked(session=session, action=action, by=BY))

    # Their parts -----------------------------------------------------------------------------------------------------

    async def _standing(self, request: Request) -> dict[str, Any]:
        text = request.path_params["id"]
        if not (text.isascii() and text.isdecimal() and len(text) <= 18):
            raise Wrong(404, "this is no video's id")
        video = await self._tables.ask(video_row, int(text))
        if video is None or video["state"] != "available":
            raise Wrong(404, "there is no such video, or it does not stand any more")
        return video

    async def _ask(self, request: Request, *events: Event, more: Mapping[str, Any] | None = None) -> Response:
        await self._asking.say(*events)
        kernel = "running" if self._asking.kernel_runs else "none"
        asked = [type(event).__name__ for event in events]
        return await answer(request, {"accepted": True, "kernel": kernel, "asked": asked, **(more or {})}, status=202)


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return bytes(file.read(65536))
    except OSError:
        return None


def _videos_of(connection: sqlite3.Connection, session: str) -> list[tuple[str, bool]]:
    return connection.execute(
        "SELECT recording, pinned FROM videos WHERE session = ? AND state = 'available' ORDER BY id", (session,)
    ).fetchall()


def _kind_of(connection: sqlite3.Connection, session: str) -> tuple[str, str | None] | None:
    row: tuple[str, str | None] | None = connection.execute(
        "SELECT kind, outcome FROM sessions WHERE session = ?", (session,)
    ).fetchone()
    return row
