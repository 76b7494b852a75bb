"""What steps show: the video of each step's frame, from memory; where memory does not know, the tables do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plugins.events import EpisodeStarted, RecordingStarted, SessionEnded

if TYPE_CHECKING:
    from kernel.event import Record
    from plugins.events import StepRecorded

RECORDINGS = 1000
"""How many recordings are remembered, those that began last. At a time as many are open as there are environments."""


class Shown:
    """Remembers which recordings began and which one each open episode's start names.

    It begins empty at each start of the sink, and may forget: a step that it cannot place is placed by the statements
    `_STEP_PLACED` and `_STEP_SHOWN`, at a few times the cost.
    """

    def __init__(self) -> None:
        self._video_ids: dict[str, int] = {}
        self._open: dict[tuple[str, int], tuple[int, str | None]] = {}
        """Of each worker, its episode and the recording that its start names."""
        self._told: dict[tuple[str, int], tuple[int, str]] = {}
        """Of each worker, the episode and the recording that the tables have heard of last."""

    def follow(self, record: Record[Any]) -> None:
        """Take an event in, in the log's order."""
        event = record.event
        if type(event) is RecordingStarted:
            self._video_ids[event.recording] = record.seq
            if len(self._video_ids) > RECORDINGS:
                del self._video_ids[next(iter(self._video_ids))]
        elif type(event) is EpisodeStarted:
            self._open[event.session, event.worker] = event.episode, event.recording
        elif type(event) is SessionEnded:
            for memory in (self._open, self._told):
                for worker in [worker for worker in memory if worker[0] == event.session]:
                    del memory[worker]

    def place(self, step: StepRecorded) -> tuple[int | None, bool]:
        """The video of a step that has a frame, and whether the tables have to hear of the step for that.

        They have where the video is not known here, and at the first step of an episode that a recording shows.
        """
        # 0.3 µs.
        worker = step.session, step.worker
        recording = step.recording
        if recording is None:
            episode, recording = self._open.get(worker, _NOTHING)
            if episode != step.episode:
                return None, True
        video_id = None if recording is None else self._video_ids.get(recording)
        if video_id is None or recording is None:
            return None, True
        told = step.episode, recording
        if self._told.get(worker) == told:
            return video_id, False
        self._told[worker] = told
        return video_id, True


_NOTHING = (-1, None)
