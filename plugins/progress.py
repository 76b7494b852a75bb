"""Progress: what the terminal shows during a run, and the summary at its end."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections import deque
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kernel.plugin import Options, Plugin, on
from kernel.terminal import shown
from plugins.events import (
    CaptureHeld,
    EpisodeEnded,
    EpisodeStarted,
    Probe,
    RecorderFailed,
    RecordingDiscarded,
    RecordingSealed,
    SessionEnded,
    SessionStarted,
    VideoAvailable,
    VideoFailed,
    WorkerEnded,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from kernel.event import Event

REFRESH_SECONDS = 0.25
LOOK_SECONDS = 1.0
LINE_SECONDS = 5.0
RATE_SECONDS = 5.0
NOTICES = 100
SESSIONS = 5
BAR_COLUMNS = 110
"""A narrower terminal shows the numbers without a bar."""


class ProgressOptions(Options):
    """How progress is shown."""

    live: bool = True
    """On a terminal, show a line that changes in place. Off, or in a pipe: a plain line every 5 s."""
    videos: int = 10
    """How many videos of each session the summary names."""


class Progress(Plugin[ProgressOptions]):
    """Shows how the sessions of this run go, on standard error, and sums them up on standard output at the end.

    It learns everything from events, and asks nobody.
    """

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self._view = view = View()
        self._live: Live | None = None
        if self.options.live and sys.stderr.isatty():
            # What others write to sys.stderr meanwhile goes through the console, which puts it above the line.
            console = Console(stderr=True)
            self._live = Live(console=console, get_renderable=lambda: bars(view), transient=True, auto_refresh=False)
        try:
            with self._live or nullcontext():
                yield
        finally:
            console = Console(soft_wrap=True, highlight=False, markup=False)
            for line in summary(view, self.home, self.options.videos):
                console.print(shown(line))

    @on(
        SessionStarted,
        SessionEnded,
        EpisodeStarted,
        EpisodeEnded,
        Probe,
        WorkerEnded,
        RecorderFailed,
        RecordingSealed,
        RecordingDiscarded,
        VideoAvailable,
        VideoFailed,
        CaptureHeld,
    )
    async def take_in(self, event: Event) -> None:
        """Keep count."""
        self._view.take_in(event, time.monotonic())

    async def run(self) -> None:
        """Keep the line moving; without one, write at most one a second."""
        if self._live is None:
            await self._write_lines()
        while self._live is not None:
            while self._view.notices:
                _write(self._view.notices.popleft())
            self._live.refresh()
            await anyio.sleep(REFRESH_SECONDS)

    async def _write_lines(self) -> None:
        """A notice when there is one; else how it goes, every 5 s, or when something went wrong since the last line."""
        last, last_at, last_troubles = "", -math.inf, ""
        while True:
            now = time.monotonic()
            tallies = self._view.open()
            line = " | ".join(in_words(tally, now) for tally in tallies)
            troubles = " ".join(word for tally in tallies for word in _troubles(tally, counted=False))
            due = now - last_at >= LINE_SECONDS or troubles != last_troubles
            if self._view.notices:
                _write(self._view.notices.popleft())
            elif line and line != last and due:
                _write(line)
                last, last_at, last_troubles = line, now, troubles
            await anyio.sleep(LOOK_SECONDS)


# What is counted -------------------------------------------------------------------------------------------------


class Mean:
    """A mean and a standard deviation that grow by one value at a time."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0

    def add(self, value: float) -> None:
        """Take a value in (Welford's way, which stays exact where a sum of squares does not)."""
        self.count += 1
        before = value - self.mean
        self.mean += before / self.count
        self._squares += before * (value - self.mean)

    @property
    def deviation(self) -> float:
        """Of the values themselves, not of the population they might stand for."""
        return math.sqrt(self._squares / self.count) if self.count else 0.0


class Tally:
    """The counts of one session."""

    def __init__(self, started: SessionStarted) -> None:
        self.started = started
        self.outcome = ""
        # A script's configuration are its wrapper's arguments: how many episodes it will play, nobody knows.
        self.episodes_wanted = int(started.configuration.get("episodes") or 0) if started.kind == "runner" else 0
        self.episodes = 0
        self.aborted = 0
        self.captured = 0
        self.returns = Mean()
        self.lengths = Mean()
        self.without_return = 0
        self.successes = 0
        self.judged = 0
        self.stepping: dict[int, tuple[int, float]] = {}
        """Of each worker, the steps and the seconds of its episodes."""
        self.recent: deque[tuple[float, int]] = deque()
        """When a probe came, and the steps it told of."""
        self.encoding: set[str] = set()
        self.videos: list[VideoAvailable] = []
        self.videos_failed = 0
        self.frames_dropped = 0
        self.steps_dropped = 0
        self.workers_lost = 0
        self.workers_failed = 0
        self._episode_of: dict[int, int] = {}

    def end_episode(self, ended: EpisodeEnded) -> None:
        """One of these comes for each agent of an episode."""
        if self._episode_of.get(ended.worker) != ended.episode:
            self._episode_of[ended.worker] = ended.episode
            self.episodes += 1
            self.aborted += ended.outcome == "aborted"
            steps, seconds = self.stepping.get(ended.worker, (0, 0.0))
            self.stepping[ended.worker] = steps + ended.steps, seconds + ended.seconds
        if ended.outcome == "aborted":
            return
        self.lengths.add(ended.steps)
        if ended.total_reward is None:
            self.without_return += 1
        else:
            self.returns.add(ended.total_reward)
        if ended.success is not None:
            self.judged += 1
            self.successes += ended.success

    def rate(self, now: float) -> float:
        """Steps a second, of late."""
        while self.recent and self.recent[0][0] < now - RATE_SECONDS:
            self.recent.popleft()
        if not self.recent:
            return 0.0
        return sum(steps for _, steps in self.recent) / min(RATE_SECONDS, now - self.recent[0][0] + 1.0)

    @property
    def mean_rate(self) -> float:
        """Steps a second while episodes were at play, of all workers together."""
        return sum(steps / seconds for steps, seconds in self.stepping.values() if seconds)


class View:
    """What is known of the sessions that began in this run."""

    def __init__(self) -> None:
        self.tallies: dict[str, Tally] = {}
        self.notices: deque[str] = deque(maxlen=NOTICES)
        """What a user should read at once; the oldest give way when there are more than 100."""
        self.earlier_videos = 0
        """Videos of sessions that an earlier run had left unfinished."""

    def open(self) -> list[Tally]:
        """The sessions that still go on, or whose videos are not all there; the last few of them."""
        return [tally for tally in self.tallies.values() if not tally.outcome or tally.encoding][-SESSIONS:]

    def take_in(self, event: Event, now: float) -> None:  # noqa: C901, PLR0912 - one case for each type of event
        """Count an event in."""
        if isinstance(event, SessionStarted):
            self.tallies[event.session] = Tally(event)
            return
        if isinstance(event, CaptureHeld):
            self.notices.append(
                f"the disk has {_size(event.free_bytes)} left, less than min_free_bytes: no new episode is captured"
                if event.held
                else f"the disk has room again ({_size(event.free_bytes)}): episodes are captured"
            )
            return
        if isinstance(event, VideoFailed):
            kept = f"; its frames are kept in {event.frames_kept_in}" if event.frames_kept_in else ""
            self.notices.append(f"video {event.recording} could not be made: {event.reason}{kept}")
        tally = self.tallies.get(getattr(event, "session", ""))
        if tally is None:
            self.earlier_videos += isinstance(event, VideoAvailable)
            return
        match event:
            case EpisodeStarted():
                tally.captured += event.captured
            case EpisodeEnded():
                tally.end_episode(event)
            case Probe():
                tally.recent.append((now, event.steps))
                tally.frames_dropped += event.frames_dropped
                tally.steps_dropped += event.steps_dropped
            case RecordingSealed():
                tally.encoding.add(event.recording)
            case RecordingDiscarded():
                tally.encoding.discard(event.recording)
            case VideoAvailable():
                tally.encoding.discard(event.recording)
                tally.videos.append(event)
            case VideoFailed():
                tally.encoding.discard(event.recording)
                tally.videos_failed += 1
            case RecorderFailed():
                self.notices.append(f"worker {event.worker} is not recorded any more: {event.error}")
            case WorkerEnded():
                tally.workers_lost += event.outcome == "lost"
                tally.workers_failed += event.outcome == "failed"
            case SessionEnded():
                tally.outcome = event.outcome
                tally.frames_dropped = event.frames_dropped
                tally.steps_dropped = event.steps_dropped


# How it is shown -------------------------------------------------------------------------------------------------


def in_words(tally: Tally, now: float) -> str:
    """How a session goes, in one line."""
    return f"{tally.started.env_id}: {_episodes(tally)}, {', '.join(_counts(tally, now))}"


def bars(view: View) -> Group:
    """How the sessions go, for a terminal: a line each."""
    now = time.monotonic()
    lines = []
    for tally in view.open():
        line = Table.grid(padding=(0, 1))
        for _ in range(4):
            line.add_column(no_wrap=True)
        bar = ProgressBar(total=tally.episodes_wanted or None, completed=tally.episodes, width=20, pulse=False)
        counts = " · ".join(_counts(tally, now))
        has_room = shutil.get_terminal_size().columns >= BAR_COLUMNS
        line.add_row(
            Text(shown(tally.started.env_id)),
            bar if tally.episodes_wanted and has_room else "",
            _episodes(tally),
            counts,
        )
        lines.append(line)
    return Group(*lines)


def summary(view: View, home: Path, videos: int) -> Iterator[str]:
    """What there is to say at the end, line by line."""
    for tally in view.tallies.values():
        started = tally.started
        label = f" · {started.label}" if started.label else ""
        yield f"{started.env_id}{label} · session {started.session} {tally.outcome or 'goes on'}"
        yield f"  {'; '.join(_results(tally))}"
        troubles = list(_troubles(tally))
        if troubles:
            yield f"  {'; '.join(troubles)}"
        if tally.encoding:
            yield f"  {_some(len(tally.encoding), 'video')} still to be encoded; the next start does it"
        if tally.videos:
            yield f"  {_some(len(tally.videos), 'video')}:"
            for video in sorted(tally.videos, key=lambda video: video.first_episode)[:videos]:
                yield f"    {_from_here(home / video.path)}"
            if len(tally.videos) > videos:
                yield f"    and {len(tally.videos) - videos} more"
    if view.earlier_videos:
        were = "was" if view.earlier_videos == 1 else "were"
        yield f"{_some(view.earlier_videos, 'video')} of earlier sessions {were} finished, too"


def _episodes(tally: Tally) -> str:
    wanted = f"/{tally.episodes_wanted}" if tally.episodes_wanted else ""
    return f"{tally.episodes}{wanted} episodes"


def _counts(tally: Tally, now: float) -> Iterator[str]:
    playing = not tally.episodes_wanted or tally.episodes < tally.episodes_wanted
    if playing and (rate := tally.rate(now)):
        yield f"{rate:,.0f} steps/s"
    yield f"{tally.captured} captured"
    yield f"{len(tally.encoding)} encoding"
    yield _some(len(tally.videos), "video")
    yield from _troubles(tally)


def _results(tally: Tally) -> Iterator[str]:
    yield _some(tally.episodes, "episode") + (f" ({tally.aborted} aborted)" if tally.aborted else "")
    if tally.returns.count:
        yield f"return {tally.returns.mean:.4g} ± {tally.returns.deviation:.4g}"
    if tally.without_return:
        yield f"{tally.without_return} without a finite return"
    if tally.lengths.count:
        yield f"length {tally.lengths.mean:.4g}"
    if tally.judged:
        yield f"success {tally.successes / tally.judged:.0%} of {tally.judged}"
    if tally.mean_rate:
        yield f"{tally.mean_rate:,.0f} steps/s"


def _troubles(tally: Tally, *, counted: bool = True) -> Iterator[str]:
    for count, thing, what in (
        (tally.frames_dropped, "frame", "dropped"),
        (tally.steps_dropped, "step", "dropped"),
        (tally.workers_lost, "worker", "died"),
        (tally.workers_failed, "worker", "failed"),
        (tally.videos_failed, "video", "could not be made"),
    ):
        if count:
            yield f"{_some(count, thing) if counted else thing} {what}"


def _write(line: str) -> None:
    sys.stderr.write(f"{shown(line)}\n")
    sys.stderr.flush()


def _some(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1024**3:.1f} GiB" if size_bytes >= 1024**3 else f"{size_bytes / 1024**2:.0f} MiB"


def _from_here(path: Path) -> str:
    """A path as one would type it, where that is shorter."""
    here = Path.cwd()
    return os.fspath(path.relative_to(here) if path.is_relative_to(here) else path)
