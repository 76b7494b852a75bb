"""Weights & Biases: where the script's run has `monitor_gym` on, its videos go into the run by themselves.

A run is rows, whose step only grows. A video is there some time after its first frame, when rows of later steps are
written; so it brings its own step (`videos_step`, the x-axis of `videos`), and goes into whichever row is open. A row
of its own would use up a step of W&B's, and a script that counts them itself (`run.log(…, step=n)`) would find its next
rows dropped. A row has room for one video: the next one waits for the next row, or for the end of the run.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from plugins.recorder.line import warn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from plugins.events import VideoAvailable


def upload(video: VideoAvailable, home: Path, env_steps: int | None = None) -> bool:
    """Hand a video to the script's run; False where there is none that wants it. Raises nothing.

    Its step is the training's own, else `env_steps`: the environment's steps before its first frame.
    """
    run = active_run()
    if run is None:
        return False
    step = env_steps if video.training_step is None else video.training_step
    shown = _Shown(home / video.path, step, video.total_reward)
    return _harmlessly(run, lambda: _feed_of(run, video.worker).add(shown))


def go_on() -> None:
    """Hand over what waited for a row. To be called now and then; it costs nothing where nothing waits."""
    feed = _feed
    if feed is not None and feed.waiting:
        _harmlessly(feed.run, feed.go_on)


def end() -> None:
    """Hand over all that waits, as the script logs no more. The end of the run does the same."""
    feed = _feed
    if feed is not None:
        _harmlessly(feed.run, feed.end)


def active_run() -> Any:
    """The run that wants this process's videos; None where there is none."""
    wandb = sys.modules.get("wandb")  # whoever has a run has imported it; importing it here would take a second
    run = getattr(wandb, "run", None)
    patched = getattr(wandb, "patched", None)  # what `monitor_gym` leaves behind, the one trace of it
    if run is None or not isinstance(patched, dict) or not patched.get("gym") or getattr(run, "disabled", False):
        return None
    return run


class _Shown(NamedTuple):
    """A video, as W&B will show it."""

    path: Path
    step: int | None
    total_reward: float | None

    def caption(self) -> str:
        words = [self.path.stem]
        if self.step is not None:
            words.append(f"step {self.step}")
        if self.total_reward is not None:
            words.append(f"return {self.total_reward:g}")
        return ", ".join(words)


class _Feed:
    """One process's videos on their way into one run."""

    def __init__(self, run: Any, worker: int) -> None:
        self.run = run
        self.waiting: deque[_Shown] = deque()
        self._forked = getattr(run, "_init_pid", os.getpid()) != os.getpid()
        # A forked child writes into the rows of its parent, so there it is a column of its own.
        self._key = f"videos_w{worker}" if self._forked else "videos"
        self._full_row = -1
        """The step of the latest row that may have a video."""
        self._latest: _Shown | None = None
        # A child's part of the script tells us of its end; the run's own end comes before the script's.
        self._can_wait = self._forked or _call_before_finish(run, lambda: _harmlessly(run, self.end))
        run.define_metric(f"{self._key}_step", hidden=True, summary="none")
        run.define_metric(self._key, step_metric=f"{self._key}_step")

    def add(self, shown: _Shown) -> None:
        self.waiting.append(shown)
        self.go_on()

    def go_on(self) -> None:
        """Hand over what there is room for."""
        while self.waiting:
            if not self._can_wait or _counts_steps_itself(self.run):
                self._log([self.waiting.popleft()], commit=True)
            elif self.run.step > self._full_row:
                self._latest = self.waiting.popleft()
                self._log([self._latest], commit=False)
                self._full_row = self.run.step  # asked again, as the script's thread may have gone on in between
            else:
                return

    def end(self) -> None:
        """Hand over everything: in rows of their own, or from a child, whose parent goes on, together in one."""
        if not self.waiting:
            return
        open_row_is_full = self.run.step <= self._full_row
        if self._forked:
            again = [self._latest] if open_row_is_full and self._latest is not None else []
            self._log([*again, *self.waiting], commit=False)
            self.waiting.clear()
        else:
            if open_row_is_full:
                self.run.log({}, commit=True)
            while self.waiting:
                self._log([self.waiting.popleft()], commit=True)

    def _log(self, shown: list[_Shown], *, commit: bool) -> None:
        # One that was pruned or replaced while it waited is not wanted any more.
        shown = [each for each in shown if each.path.is_file()]
        if not shown:
            return
        show = sys.modules["wandb"].Video
        videos = [show(str(each.path), caption=each.caption(), format="mp4") for each in shown]
        row = {self._key: videos if len(videos) > 1 else videos[0]}
        if shown[-1].step is not None:
            row[f"{self._key}_step"] = shown[-1].step
        self.run.log(row, commit=commit)


def _counts_steps_itself(run: Any) -> bool:
    """Whether W&B alone numbers the rows: it reads TensorBoard's files, or gathers the rows of several hosts."""
    return bool(sys.modules["wandb"].patched.get("tensorboard")) or getattr(run.settings, "mode", "") == "shared"


def _call_before_finish(run: Any, call: Callable[[], object]) -> bool:
    """Have something called when the run is about to finish; False where this version of W&B knows no such thing."""
    module = sys.modules.get(type(run).__module__)
    try:
        run._teardown_hooks.append(module.TeardownHook(call, module.TeardownStage.EARLY))  # type: ignore[union-attr]  # noqa: SLF001 - W&B offers no other way, and without it we do not wait
    except AttributeError:
        return False
    return True


_lock = threading.RLock()
_feed: _Feed | None = None
_warned = False


def _feed_of(run: Any, worker: int) -> _Feed:
    global _feed  # noqa: PLW0603 - a process has one active run, and so one of these
    if _feed is None or _feed.run is not run:
        _feed = _Feed(run, worker)
    return _feed


def _harmlessly(run: Any, do: Callable[[], object]) -> bool:
    """Whether it went well. W&B may be away, or change; the video stands in its folder all the same."""
    global _warned  # noqa: PLW0603 - once for each process
    try:
        with _lock:
            do()
    except Exception as error:  # noqa: BLE001 - see above
        if active_run() is run and not _warned:  # otherwise it has been finished in the meantime
            _warned = True
            warn(f"videos cannot be uploaded to Weights & Biases ({type(error).__name__}: {error})")
        return False
    return True


def _forget_parent() -> None:
    global _lock, _feed  # noqa: PLW0603 - its threads are not here, nor what they hold
    _lock = threading.RLock()
    _feed = None


os.register_at_fork(after_in_child=_forget_parent)
