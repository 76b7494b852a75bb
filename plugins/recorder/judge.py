"""The judge: which of an environment's episodes are kept, with a word where its policy can never keep any."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plugins.recorder.triggers import KeepPolicy, Verdict

if TYPE_CHECKING:
    from plugins.events import Keep
    from plugins.recorder.line import Line
    from plugins.recorder.telemetry import Episode

PATIENCE_EPISODES = 10
"""After so many episodes without `is_success` or `success`, a policy that keeps failures is warned about."""

KEPT = Verdict(kept=True, kept_for=[], why="")
"""No policy decides."""


class Judge:
    """Judges one environment's episodes."""

    def __init__(self, line: Line, keep: Keep) -> None:
        self.keep = keep
        self._line = line
        self._policy = KeepPolicy(keep)
        self._episodes = 0
        self._success_known = False

    @property
    def decides(self) -> bool:
        """Whether there is anything to decide; else every episode is kept."""
        return self._policy.decides

    def note(self, episode: Episode) -> None:
        """Take note of an episode that has come to its end, captured or not."""
        self._episodes += 1
        self._success_known = self._success_known or episode.success is not None
        if self._episodes == PATIENCE_EPISODES:
            self.warn_about_failures()

    def verdict(self, episode: Episode, *, aborted: bool) -> Verdict:
        """The verdict on a captured episode; its return counts from now on."""
        return self._policy.judge(
            episode=episode.index, total_reward=episode.total_reward, success=episode.success, aborted=aborted
        )

    def warn_about_failures(self) -> None:
        """Warn where failures are to be kept, and no episode says whether it was one."""
        if self.keep.failures and self._episodes and not self._success_known:
            self._line.warn_once(
                "failures",
                f"{self._line.env_id}: keep failures = true keeps nothing, as no episode's last info says is_success "
                "or success. Add one of them to the info in a wrapper, or keep episodes by best, worst or every.",
            )
