"""Requests: what users ask a running environment for, as its producer's `control.json` says it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from plugins.events import CaptureApplied, CaptureSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from plugins.recorder.line import Line


class Decision(NamedTuple):
    """Whether to capture an episode."""

    captured: bool
    why: str
    asked: bool
    """A user asked for this one, so it is kept whatever the policy says."""


class Requests:
    """What one environment has taken up of what users asked for."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._once = line.producer.outbox.control.once
        """A request for the next episode that was made before this environment began is not for it."""
        self._asked = 0

    def decide(
        self,
        episode: int,
        worker: int,
        own: CaptureSettings | Callable[[int], bool],
        due: Callable[[CaptureSettings | Callable[[int], bool]], tuple[bool, str]],
    ) -> Decision:
        """Whether to capture the episode, if it can be: by what users ask for, else by its `own` settings.

        `due` says of settings whether the episode is due by them, and why, or why not.
        """
        control = self._line.producer.outbox.control
        capture = control.settings or own
        captured, why = due(capture)
        once = control.once != self._once
        if once:
            captured, why = True, "asked"
        if captured and control.held:
            captured, why = False, "low disk"
        elif captured and self._line.fullness:
            captured, why = False, "spool full"
        applied = control.settings is not None and control.asked != self._asked
        once = once and captured  # one that cannot be now is honoured when it can
        if applied or once:
            settings = capture if isinstance(capture, CaptureSettings) else CaptureSettings(mode="manual")
            self._line.say(
                CaptureApplied(session=self._line.session, worker=worker, episode=episode, settings=settings, once=once)
            )
        self._asked = control.asked
        if once:
            self._once = control.once
        return Decision(captured, why, once)
