"""The tape: one environment's recordings, one at a time, from pictures to frames, chunks and events.

A recording has one file unless its pictures change their size or kind: then the rest goes into a part of its own, with
a recording id and a file of its own.
"""

from __future__ import annotations

from pathlib import PurePath
from time import monotonic, perf_counter, time
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from plugins.events import (
    ChunkSealed,
    FrameSizeChanged,
    Keep,
    RecordingDiscarded,
    RecordingSealed,
    RecordingStarted,
)
from plugins.recorder.frames import CHUNK_FRAMES, FrameRefused, layout_of, pack
from plugins.recorder.pictures import as_uint8, brightest, is_picture, on_host
from plugins.recorder.spool import ITEM_BYTES, Ending, Film, RecordingPlan, encode
from plugins.recorder.triggers import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plugins.recorder.frames import ChunkHeader
    from plugins.recorder.line import Line

COMPRESSION_BUDGET = 0.05
"""LZ4 goes easier on the step when compressing takes more than this part of it."""

CROWDED = 0.25
"""Past this part of the memory for what waits for the disk, frames are made smaller again: the disk is what is dear."""

ACCELERATIONS = (1, 4, 16, 64)
"""LZ4's acceleration, from the smallest frames to the fastest."""

MEASURED = 4
"""Of so many frames it is measured of one how long compressing took, as measuring is a part of the cost."""

JUDGED = 8
"""After so many measured frames it is judged whether compressing is too dear."""

MOST_PARTS = 64
"""An environment whose pictures change their size oftener in one recording is not recorded further."""

ENDED_SECONDS = 1.0
"""A recording whose episode has ended is sealed after so long, where nothing goes on with it."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A recording to be made, as it is known when it begins."""

    path: str
    """Where the MP4 will be (see `RecordingPlan.path`)."""
    fps: float
    episode: int
    why: str
    keep: Keep = Keep()
    wait_for_seal: bool = False
    frames: int | None = None
    """How many frames were asked for; None: to the end of the episode, or until somebody stops it."""
    max_videos: int = 0
    training_step: int | None = None


class Close(msgspec.Struct, frozen=True, kw_only=True):
    """How a recording ended."""

    verdict: Verdict
    last_episode: int | None
    """None: none has begun in it."""
    complete: bool = True
    because: str = ""
    """Why it is not complete."""
    total_reward: float | None = None
    path: str = ""
    """Where the video will be, where that is another place than was said when it began."""


class Shown(NamedTuple):
    """Which pictures a step shows."""

    recording: str | None
    frame: int | None
    frames: int


NOTHING_SHOWN = Shown(None, None, 1)
_new_tuple = tuple.__new__


class Take:
    """An open recording: what was wanted, and what there is of it."""

    __slots__ = ("ending", "films", "pictures", "recording", "refused", "wanted", "white")

    def __init__(self, wanted: Wanted, recording: str) -> None:
        self.wanted = wanted
        self.recording = recording
        """The id of the part that grows."""
        self.films: list[Film] = []
        self.pictures = 0
        """Captured since somebody asked what is shown."""
        self.white = 0.0
        """What stands for white in pictures that are not of uint8; 0 until there was one."""
        self.refused = False
        """Its first picture cannot be recorded, so there is nothing that the others could follow."""
        self.ending: Ending | None = None
        """It is sealed after a while by the writer thread, if nothing goes on with it."""


class Tape:
    """The recordings of one environment. One thread at a time uses it."""

    def __init__(self, line: Line, *, env_id: str) -> None:
        self.line = line
        self.worker = -1
        """Whose recordings they are; to be set when the environment begins."""
        self.env_id = env_id
        self.take: Take | None = None
        self.acceleration = 0
        self.measures_next = True
        """Whether `add` wants to know how long the step of the next picture took."""
        self._packed = 0
        self._pack_seconds = 0.0
        self._packed_step_seconds = 0.0

    @property
    def open(self) -> bool:
        """Whether a recording is open, and pictures are wanted."""
        take = self.take
        return take is not None and not take.refused and (take.ending is None or take.ending.waits)

    def begin(self, wanted: Wanted) -> str:
        """Open a recording; its id. Nothing is said of it before its first picture."""
        self.take = Take(wanted, self._new_recording())
        return self.take.recording

    def add(self, picture: Any, step_seconds: float = 0.0) -> int | None:
        """Compress and append a picture; its index, or None where it was dropped.

        `step_seconds` is how long it took to step and render, for the budget of compressing; 0: that is not known.
        """
        take = self.take
        if take is None or take.refused:
            return None
        line = self.line
        meter = line.meter
        films = take.films
        film = films[-1] if films else None
        if film is not None and (line.fullness or meter.handed_bytes > line.look_at) and line.full():
            film.dropped += 1
            meter.frames_dropped += 1
            return None
        measured = self.measures_next and step_seconds
        began = perf_counter() if measured else 0.0
        try:
            if film is None:
                raise FrameRefused  # noqa: TRY301 - a first frame is as one of another kind
            payload = pack(picture, film.header, ACCELERATIONS[self.acceleration])
        except FrameRefused:
            try:
                film, payload = self._pack_anew(take, picture)
            except FrameRefused as refusal:
                if films:
                    films[-1].dropped += 1
                else:
                    take.refused = True
                meter.frames_dropped += 1
                line.warn_once("frame", f"{self.env_id}: a frame was left out of the video: {refusal}")
                return None
        if measured:
            self._adapt(perf_counter() - began, step_seconds)
        if payload == film.last:
            payload = b""  # a repeat
        else:
            film.last = payload
        line.append_frame((film, payload))
        meter.handed_bytes += len(payload) + ITEM_BYTES
        frames = film.frames = film.frames + 1
        take.pictures += 1
        self.measures_next = not frames % MEASURED
        if frames == 1:
            self._announce(take, film)
        if not frames % CHUNK_FRAMES:
            line.append_frame((film, None))
            meter.handed_bytes += ITEM_BYTES
            film.last = b""  # each chunk can be read alone, so none begins with a repeat
            line.say(_chunk_sealed(film))
        return frames - 1

    def shown(self) -> Shown:
        """The pictures that were captured since the last call."""
        take = self.take
        if take is None or not take.pictures:
            return NOTHING_SHOWN
        # In half of the time that Shown(…) takes.
        shown = _new_tuple(Shown, (take.recording, take.films[-1].frames - 1, take.pictures))
        take.pictures = 0
        return shown

    # How a recording ends --------------------------------------------------------------------------------------------

    def close(self, close: Close) -> list[Film]:
        """Seal the open recording, or discard it by the verdict. Its parts that will become videos."""
        take, self.take = self.take, None
        if take is None:
            return []
        if take.ending is not None and not take.ending.claim():
            return []  # the writer thread was first
        for item in _last_frames(take):
            self.line.append_frame(item)
            self.line.meter.handed_bytes += ITEM_BYTES
        for packed in self._last_words(take, close):
            self.line.meter.handed_bytes += len(packed) + ITEM_BYTES
            self.line.say_packed(packed)
        return take.films[:] if close.verdict.kept else []

    def close_soon(self, close: Close) -> list[Film]:
        """Let the writer thread seal the recording in a second, unless it is closed or goes on before."""
        take = self.take
        if take is None:
            return []
        take.ending = Ending(monotonic() + ENDED_SECONDS, _last_frames(take), self._last_words(take, close))
        self.line.producer.outbox.endings.append(take.ending)
        return take.films[:] if close.verdict.kept else []

    def go_on(self) -> bool:
        """Go on with a recording that was to be closed soon; False where it is closed."""
        take = self.take
        if take is None:
            return False
        if take.ending is not None:
            if not take.ending.claim():
                self.take = None
                return False
            take.ending = None
        return True

    def _last_words(self, take: Take, close: Close) -> list[bytes]:
        """What is said of each part at the end, in bytes."""
        words = []
        for number, film in enumerate(take.films):
            recording = film.plan.recording
            if film.frames % CHUNK_FRAMES:
                words.append(encode(_chunk_sealed(film)))
            if not close.verdict.kept:
                discarded = RecordingDiscarded(recording=recording, session=film.plan.session, why=close.verdict.why)
                words.append(encode(discarded))
                continue
            words.append(
                encode(
                    RecordingSealed(
                        recording=recording,
                        session=film.plan.session,
                        worker=self.worker,
                        first_episode=take.wanted.episode,
                        last_episode=take.wanted.episode if close.last_episode is None else close.last_episode,
                        chunks=-(-film.frames // CHUNK_FRAMES),
                        frames=film.frames,
                        frames_dropped=film.dropped,
                        complete=close.complete,
                        incomplete_because=close.because,
                        total_reward=close.total_reward,
                        kept_for=close.verdict.kept_for,
                        path=_part(close.path, number) if close.path else "",
                        training_step=take.wanted.training_step,
                    )
                )
            )
        return words

    # Its parts -------------------------------------------------------------------------------------------------------

    def _pack_anew(self, take: Take, picture: Any) -> tuple[Film, bytes]:
        """Pack a picture that is not as the film's frames are; in a part of its own where it cannot be as they are."""
        if type(picture) is not np.ndarray or picture.dtype != np.uint8:
            picture = self._converted(take, picture)
        film = take.films[-1] if take.films else None
        if film is None or not _of_kind(picture, film.header):
            film = self._next_film(take, picture)
        return film, pack(picture, film.header, ACCELERATIONS[self.acceleration])

    def _converted(self, take: Take, picture: Any) -> Any:
        """A picture of numbers other than uint8, or of another library, as an array of uint8."""
        if not is_picture(picture):
            layout_of(picture)  # refuses it, with the words for it
        picture = on_host(picture)
        if picture.dtype == "uint8":
            return picture
        if picture.dtype.kind not in "buif":
            layout_of(picture)
        if not take.white:
            take.white = brightest(picture)
            self.line.warn_once(
                "converted",
                f"{self.env_id}: frames are of {picture.dtype}; they are recorded with {take.white:g} as white. "
                "Let render() return uint8 from 0 to 255 to be sure of their colours.",
            )
        return as_uint8(picture, take.white)

    def _next_film(self, take: Take, picture: Any) -> Film:
        """The first part of a recording, or the next one, for pictures like this one."""
        header = layout_of(picture)
        if take.films:
            if len(take.films) == MOST_PARTS:
                raise FrameRefused(f"its size changed {MOST_PARTS} times in one recording; a video has one size")
            take.recording = self._new_recording()
            take.pictures = 0  # what this step showed before is in another recording
        film = Film(self._plan(take, header), header)
        take.films.append(film)
        return film

    def _announce(self, take: Take, film: Film) -> None:
        """Say that a part has begun; its first frame was handed over before, and so is on the disk before."""
        plan = film.plan
        if len(take.films) > 1:
            self.line.say(
                FrameSizeChanged(
                    session=plan.session,
                    worker=self.worker,
                    recording=take.films[-2].plan.recording,
                    continued_as=plan.recording,
                    width=plan.width,
                    height=plan.height,
                )
            )
        self.line.say(
            RecordingStarted(
                recording=plan.recording,
                session=plan.session,
                worker=plan.worker,
                episode=plan.episode,
                env_id=plan.env_id,
                path=plan.path,
                fps=plan.fps,
                width=plan.width,
                height=plan.height,
                frames_wanted=take.wanted.frames,
            )
        )

    def _plan(self, take: Take, header: ChunkHeader) -> RecordingPlan:
        wanted = take.wanted
        return RecordingPlan(
            recording=take.recording,
            session=self.line.session,
            worker=self.worker,
            episode=wanted.episode,
            env_id=self.env_id,
            path=_part(wanted.path, len(take.films)),
            fps=wanted.fps,
            width=header.width,
            height=header.height,
            keep=wanted.keep,
            wait_for_seal=wanted.wait_for_seal,
            started=time(),
            capture=wanted.why,
            max_videos=wanted.max_videos,
        )

    def _new_recording(self) -> str:
        outbox = self.line.producer.outbox
        return f"{outbox.producer}-{next(outbox.recordings):04d}"

    def _adapt(self, pack_seconds: float, step_seconds: float) -> None:
        self._packed += 1
        self._pack_seconds += pack_seconds
        self._packed_step_seconds += step_seconds
        if self._packed < JUDGED:
            return
        outbox = self.line.producer.outbox
        if outbox.unsent_bytes() > CROWDED * outbox.memory_bytes:
            self.acceleration = max(0, self.acceleration - 1)
        elif self._pack_seconds > COMPRESSION_BUDGET * self._packed_step_seconds:
            self.acceleration = min(self.acceleration + 1, len(ACCELERATIONS) - 1)
        self._packed = 0
        self._pack_seconds = self._packed_step_seconds = 0.0


def _last_frames(take: Take) -> Sequence[tuple[Film, None]]:
    """What seals the last chunk of each part."""
    return [(film, None) for film in take.films if film.frames % CHUNK_FRAMES]


def _chunk_sealed(film: Film) -> ChunkSealed:
    """What is said of a film's newest chunk."""
    chunk = (film.frames - 1) // CHUNK_FRAMES
    recording = film.plan.recording
    return ChunkSealed(
        recording=recording,
        chunk=chunk,
        file=f"{recording.rpartition('-')[0]}/{recording}/{chunk:05d}.chunk",
        frames=film.frames - chunk * CHUNK_FRAMES,
    )


def _of_kind(picture: Any, header: ChunkHeader) -> bool:
    shape = picture.shape
    channels = 1 if len(shape) == 2 else shape[-1]
    return shape[:2] == (header.height, header.width) and channels == header.channels


def _part(path: str, number: int) -> str:
    """The path of a recording's part; the first has the name as it is."""
    return path if not number else str(PurePath(path).with_stem(f"{PurePath(path).stem}-part{number + 1}"))
