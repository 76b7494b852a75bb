"""Lives: a small producer and a small kernel on one home, from start to end, for a test to run or to kill."""

from __future__ import annotations

import os
import time
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import msgspec

from kernel.config import LogOptions
from kernel.log import first_seq, segments
from kernel.runtime import Kernel, Outcome
from kernel.wiring import Part
from plugins.collector import Collector, CollectorOptions
from plugins.encoder_pool import EncoderPool, EncoderPoolOptions
from plugins.events import CaptureAsked, Keep, SessionStarted, VideoDeleteAsked, VideoPinned
from plugins.pruner import Pruner, PrunerOptions
from plugins.recorder.recorder import Recorder
from plugins.recorder.sessions import claim_worker, open_session
from plugins.recorder.spool import Producer
from plugins.sqlite_sink import SqliteSink, SqliteSinkOptions
from tests.environments.bars import draw

if TYPE_CHECKING:
    from kernel.event import Event

SIZE = (32, 64)
EVERY = 100
PACE_SECONDS = 0.004
DRAIN_SECONDS = 600.0
PATIENT = EncoderPoolOptions(jobs=2, stall_seconds=300.0)
"""On a machine that is busy with other tests, an ffmpeg may have to wait for its turn."""


class Recorded(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """What a producer is to do."""

    session: str = "20261122-062718-k3v9"
    lengths: tuple[int, ...] = (5, 5)
    """Steps of each episode."""
    captured: tuple[int, ...] | None = None
    """Episodes that are recorded, counted anew every 100; None: all."""
    keep: Keep = Keep()
    path: str = ""
    """Where the videos will be, with `{}` for the episode; empty: in the session's own folder."""
    endless: bool = False
    """The episodes come again and again, at a leisurely pace."""
    side: str = ""
    """A folder where each step's time is noted, in a file named by the pid, before the next step: a kill's witness."""
    open_end: bool = False
    """The last episode is left open, and nothing is closed: the process is to be killed then."""


def record(home: Path, about: Recorded) -> None:
    """A training script's life: a session, an environment, its episodes, and their ends. Picture k shows k."""
    home.mkdir(parents=True, exist_ok=True)
    session = open_session(home, about.session, "script")
    claim_worker(home, about.session)
    producer = Producer(home, about.session)
    producer.say(SessionStarted(session=about.session, kind="script", env_id="Bars-v0", workers=1))
    captured = about.captured
    recorder = Recorder(
        producer,
        env_id="Bars-v0",
        fps=30,
        video_path=(about.path or f"videos/{about.session}/rl-video-episode-{{}}.mp4").format,
        capture=lambda episode: captured is None or episode % EVERY in captured,
        keep=about.keep,
    )
    side = os.open(Path(about.side) / str(os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_APPEND) if about.side else -1
    for episode, length in enumerate(cycle(about.lengths) if about.endless else about.lengths):
        recorder.reset(None, {}, seed=episode, episode=episode)
        if recorder.recording:
            recorder.capture_frame(draw(0, *SIZE))
        for step in range(1, length + 1):
            picture = draw(step, *SIZE) if recorder.recording else None
            over = step == length and not (about.open_end and episode == len(about.lengths) - 1)
            recorder.step(0, None, 1.0, over, False, {}, picture, 0.001)
            if about.endless:
                if side >= 0:
                    os.write(side, b"%.6f\n" % time.time())
                time.sleep(PACE_SECONDS)
    producer.flush()
    if not about.open_end:
        recorder.close()
        session.end("finished")
        producer.close()


def say(home: Path, *events: Event) -> None:
    """Hand events in, as `emit` does."""
    producer = Producer(home, "emit")
    for event in events:
        producer.say(event)
    producer.close()


class Said(msgspec.Struct, frozen=True, tag=True):
    """What `emit` hands in."""

    events: list[VideoPinned | VideoDeleteAsked | CaptureAsked]


class Served(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """How a kernel is to serve."""

    log: LogOptions = LogOptions()
    encoder: EncoderPoolOptions = PATIENT
    pruner: PrunerOptions = PrunerOptions(min_free_bytes=0)
    endless: bool = False
    """It does not stop by itself."""
    until_trimmed: bool = False
    """It stops no sooner than its log was trimmed."""


def parts(about: Served = Served()) -> list[Part]:  # noqa: B008 - frozen
    """The plugins of a kernel that brings all to its end."""
    return [
        Part("collector", Collector, CollectorOptions(poll_seconds=0.01, silent_seconds=0.01), required=True),
        Part("encoder", EncoderPool, about.encoder, required=True),
        Part("sqlite", SqliteSink, SqliteSinkOptions(), required=True),
        Part("pruner", Pruner, about.pruner, required=True),
    ]


def serve(home: Path, about: Served = Served()) -> None:  # noqa: B008 - frozen
    """A kernel's life: it takes in all that there is, finishes all work, and stops."""
    said: list[str] = []

    async def live() -> Outcome:
        kernel = Kernel(home, parts(about), log=about.log, drain_seconds=DRAIN_SECONDS, say=said.append)

        async def stop_when_running() -> None:
            await kernel.running.wait()
            while about.until_trimmed and first_seq(segments(home / "log")[0]) == 1:
                await anyio.sleep(0.01)
            if not about.endless:
                kernel.stop()

        outcome = Outcome.failed
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop_when_running)
            outcome = await kernel.run()
            tasks.cancel_scope.cancel()
        return outcome

    outcome = anyio.run(live)
    assert outcome is Outcome.drained, said
