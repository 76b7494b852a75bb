"""Triggers: when to capture an episode, and which captured episodes to keep."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING, Any

import msgspec

from plugins.events import CaptureSettings, Keep

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def due(capture: CaptureSettings | Callable[[int], bool], episode: int, *, evaluation: bool) -> tuple[bool, str]:
    """Whether to capture the episode, and why, or why not, in a few words for the log."""
    if not isinstance(capture, CaptureSettings):
        return (True, "trigger") if capture(episode) else (False, "not due")
    if capture.mode == "every":
        if capture.every < 1:
            return False, "off"
        return (True, f"every {capture.every}") if episode % capture.every == 0 else (False, "not due")
    if capture.mode == "cubic":
        return (True, "cubic") if cubic(episode) else (False, "not due")
    if capture.mode == "eval":
        return (True, "evaluation") if evaluation else (False, "no evaluation")
    return False, ("on request only" if capture.mode == "manual" else "off")


def cubic(episode: int) -> bool:
    """Gymnasium's default schedule: episodes 0, 1, 8, 27, … up to 729, and from 1000 on each thousandth."""
    if episode >= 1000:
        return episode % 1000 == 0
    root: int = round(episode ** (1 / 3))
    return root**3 == episode


def success_of(info: Any) -> bool | None:
    """What an episode's last info says under `is_success` or `success`; None where it has neither."""
    if not isinstance(info, dict):
        return None
    for key in ("is_success", "success"):
        said = info.get(key)
        if said is not None:
            try:
                return bool(said)
            except (TypeError, ValueError):  # an array of several
                return None
    return None


class Verdict(msgspec.Struct, frozen=True):
    """What becomes of a captured episode."""

    kept: bool
    kept_for: list[str]
    """Of `best`, `worst`, `failure`, `every`; empty where no policy decides."""
    why: str
    """Why it is not kept."""


class KeepPolicy:
    """Decides, when an episode has ended, whether its recording becomes a video; remembers one worker's best and worst.

    An episode ranks among the best N when fewer than N have ended before it, or when its return is higher than the
    lowest of them; of equal returns the earlier stays. What it displaces is kept already: the pruner holds the session
    to N. An aborted episode has no return that could be compared, and no last info that could be believed: it is kept
    where it is due by `every`, and else discarded. A return that is not finite ranks nowhere.
    """

    def __init__(self, keep: Keep) -> None:
        self.keep = keep
        self.decides = keep != Keep()
        """False: all are kept, and nothing waits for the verdict."""
        self._best: list[float] = []
        self._worst: list[float] = []

    def judge(self, *, episode: int, total_reward: float | None, success: bool | None, aborted: bool) -> Verdict:
        """The verdict on a captured episode; its return counts from now on."""
        if not self.decides:
            return Verdict(kept=True, kept_for=[], why="")
        reasons = []
        if not aborted:
            if total_reward is not None:
                if _ranks(self._best, total_reward, self.keep.best):
                    reasons.append("best")
                if _ranks(self._worst, -total_reward, self.keep.worst):
                    reasons.append("worst")
            if self.keep.failures and success is False:
                reasons.append("failure")
        if self.keep.every > 0 and episode % self.keep.every == 0:
            reasons.append("every")
        if reasons:
            return Verdict(kept=True, kept_for=reasons, why="")
        return Verdict(kept=False, kept_for=[], why="aborted, and not due by every" if aborted else self._none_of())

    def _none_of(self) -> str:
        asked: Mapping[str, Any] = msgspec.structs.asdict(self.keep)
        words = [name if value is True else f"{name} {value}" for name, value in asked.items() if value]
        return f"not among {', '.join(words)}"


def _ranks(highest: list[float], value: float, size: int) -> bool:
    """Take the value in among the `size` highest; False where it is not one of them."""
    if size < 1:
        return False
    if len(highest) == size:
        if bisect_left(highest, value) == 0:  # no higher than the lowest
            return False
        del highest[0]
    insort(highest, value)
    return True
