"""A script's part in a home: one producer, one place in a session, and one watch over its videos, for each process.

All that is here begins at the first `reset` of a wrapped environment, and ends at the script's end.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import structs

from plugins.recorder import weights_and_biases
from plugins.recorder.home import network_warning, prepare_home
from plugins.recorder.line import warn
from plugins.recorder.sessions import claim_worker, join_session
from plugins.recorder.spool import Producer, new_session_id
from plugins.recorder.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from plugins.events import SessionStarted
    from plugins.recorder.watch import Awaited

ROOT = "STEPREEL_SESSION"
"""The environment variable by which the processes of one script know that they belong together."""

PATIENCE_SECONDS = 1.0
"""Waiting for longer is shown."""

LINE_SECONDS = 10.0
"""Between two lines of progress where there is no terminal."""


class Filmed(Protocol):
    """What a script holds of each environment that is wrapped."""

    def end(self) -> None:
        """Seal what is open."""


def announce_root() -> None:
    """Let the processes that this one starts from now on belong to its session."""
    os.environ.setdefault(ROOT, new_session_id())


class Script:
    """What this process has in a home."""

    def __init__(self, home: Path) -> None:
        """Raises `OSError` or `HomeUnusable` where nothing can be recorded there."""
        prepare_home(home)
        network = network_warning(home)
        if network:
            warn(network)
        announce_root()
        self.home = home
        self.session, self._owned = join_session(home, os.environ[ROOT])
        self.producer = Producer(home, self.session)
        self.watch = Watch(home)
        self._filmed: weakref.WeakSet[Filmed] = weakref.WeakSet()
        self._said = False
        self._ended = False
        self._begun_in = os.getpid()
        self.producer.start()
        # Behind the producer's, so it runs before it. A child of multiprocessing ends without atexit.
        atexit.register(self.end)
        if "multiprocessing.process" in sys.modules:
            _at_the_end_of_a_worker(self.end)
        self.watch.start()

    def begin_session(self, about: SessionStarted) -> None:
        """Say what the session is, where this process began it; the first of its environments says it."""
        if self._owned is not None and not self._said:
            self._said = True
            self.producer.say(structs.replace(about, session=self.session))

    def be_first_at_exit(self) -> None:
        """Where W&B is loaded, see that its run ends behind our end: what is registered last comes first."""
        if "wandb" in sys.modules:
            atexit.unregister(self.end)
            atexit.register(self.end)

    def take_part(self, filmed: Filmed) -> int:
        """Add an environment; its index in the session."""
        self._filmed.add(filmed)
        return claim_worker(self.home, self.session)

    def wait_for(self, awaited: Sequence[Awaited], timeout_seconds: float | None = None) -> bool:
        """Wait until these videos stand, have failed, or cannot be made; False where the time was over before."""
        return wait_for(self.watch, awaited, timeout_seconds)

    def end(self) -> None:
        """At the script's end: seal everything, wait for the videos, and end the session."""
        if self._ended or os.getpid() != self._begun_in:
            return
        self._ended = True
        atexit.unregister(self.end)
        for filmed in list(self._filmed):
            filmed.end()
        self.producer.flush()
        if self._owned is not None:
            with suppress(OSError):  # then it ends as lost, which says no less than it is
                self._owned.end(_outcome())
        with suppress(KeyboardInterrupt):
            self.wait_for(self.watch.open())
        self.watch.end()
        weights_and_biases.end()
        self.producer.close()
        _scripts.pop(self.home, None)


def script_in(home: Path) -> Script:
    """This process's part in the home; begun where it is new. Raises as `Script` does."""
    script = _scripts.get(home)
    if script is None:
        script = _scripts[home] = Script(home)
    return script


_scripts: dict[Path, Script] = {}


def wait_for(watch: Watch, awaited: Sequence[Awaited], timeout_seconds: float | None = None) -> bool:
    """Wait for videos, with a line on stderr about it where it takes long."""
    began = time.monotonic()
    progress = _Progress()
    watch.hurry()
    try:
        while left := sum(not (each.done or each.withdrawn) for each in awaited):
            waited = time.monotonic() - began
            if timeout_seconds is not None and waited >= timeout_seconds:
                return False
            if not watch.served.can_be_made:
                return True  # its warning says so
            if waited >= PATIENCE_SECONDS:
                progress.show(left, waited)
            time.sleep(0.01 if waited < PATIENCE_SECONDS else 0.1)
    except KeyboardInterrupt:
        progress.clear()
        sys.stderr.write("stepreel: not waiting any longer; the videos that are left are finished all the same\n")
        raise
    finally:
        watch.relax()
        progress.clear()
    return True


class _Progress:
    """One line on a terminal, or a plain line now and then."""

    def __init__(self) -> None:
        self._next_line = 0.0
        self._width = 0
        self._terminal = sys.stderr is not None and sys.stderr.isatty()

    def show(self, videos: int, waited: float) -> None:
        text = f"stepreel: waiting for {videos} video{'s' if videos > 1 else ''} to be encoded ({waited:.0f} s)"
        with suppress(OSError, ValueError, AttributeError):  # stderr is closed, or there is none
            if self._terminal:
                sys.stderr.write(f"\r{text:{self._width}}")
                sys.stderr.flush()
                self._width = len(text)
            elif waited >= self._next_line:
                self._next_line = waited + LINE_SECONDS
                sys.stderr.write(f"{text}\n")

    def clear(self) -> None:
        if self._width:
            with suppress(OSError, ValueError, AttributeError):
                sys.stderr.write(f"\r{' ' * self._width}\r")
                sys.stderr.flush()
            self._width = 0


def _outcome() -> Literal["finished", "stopped", "failed"]:
    """How the script ends, as far as the interpreter knows at its exit."""
    kind = getattr(sys, "last_type", None)
    if kind is None:
        return "finished"
    return "stopped" if issubclass(kind, KeyboardInterrupt) else "failed"


def _at_the_end_of_a_worker(end: Callable[[], None]) -> None:
    from multiprocessing import process, util  # noqa: PLC0415 - only where it is loaded already

    if process.parent_process() is not None:
        util.Finalize(None, end, exitpriority=100)


def _forget_parent() -> None:
    _scripts.clear()


os.register_at_fork(after_in_child=_forget_parent)
