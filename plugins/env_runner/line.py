"""A worker's line to the runner: a thread that reads what is asked and writes what is answered."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from plugins.env_runner.messages import (
    Begin,
    Episodes,
    Examine,
    FromWorker,
    HandBack,
    HandedBack,
    Inbox,
    NoMore,
    Pause,
    Resume,
    Stop,
    ToWorker,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

GRACE_SECONDS = 20.0
"""Of a worker that is not told another one in `Begin`."""


class Line:
    """Tells the stepping thread what to do next, and when to stop, without ever making it wait for the runner.

    The stepping thread looks at `stop` after each step. The end of the runner, seen by the end of its pipe, is a
    reason to stop, and so is the deadline of `Begin`.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self.stop = False
        self._episodes: deque[int] = deque()
        self._no_more = False
        self._paused = False
        self._news = threading.Event()
        self._commands = commands
        self._answers = answers
        self._inbox = Inbox(ToWorker)
        self._outbox: deque[bytes] = deque()
        self._unsent = b""
        self._sending = threading.Lock()
        self._closing = False
        self._deadline: float | None = None
        self._grace_seconds = GRACE_SECONDS
        self._wake_read, self._wake_write = os.pipe()
        for descriptor in (answers, self._wake_read, self._wake_write):
            os.set_blocking(descriptor, False)
        self._thread = threading.Thread(target=self._serve, name="line to the runner", daemon=True)

    @classmethod
    def on_standard_streams(cls) -> Line:
        """Take standard input and output over. What anything else prints goes to standard error from now on."""
        commands, answers = os.dup(0), os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr] # it is a text stream, and nobody replaced it yet
        return cls(commands, answers)

    # The stepping thread's side ----------------------------------------------------------------------------------

    def first(self) -> Begin | Examine | None:
        """The first message; None where the runner was gone before it said anything."""
        received: list[Begin | Examine | Episodes] = []
        while not received:
            chunk = os.read(self._commands, 65536)
            if not chunk:
                return None
            received = self._inbox.feed(chunk)
        first, *others = received
        assert isinstance(first, Begin | Examine)
        if isinstance(first, Begin):
            self._deadline = first.deadline
            self._grace_seconds = first.grace_seconds
        self._obey(others)
        self._thread.start()
        return first

    def next_episode(self) -> int | None:
        """The next episode to step; None where it is time to end. Waits while there is none, or during a pause."""
        while not self.stop:
            self._news.clear()
            no_more = self._no_more  # looked at first: what was dealt before it was said is then in hand
            if not self._paused:
                try:
                    return self._episodes.popleft()
                except IndexError:
                    if no_more:
                        return None
            self._news.wait()
        return None

    def say(self, message: FromWorker) -> None:
        """Write a message, if the pipe takes it at once; else, the other thread does it when there is room.

        What was said before the environment is stepped is heard, even if that step is the end of the process.
        """
        self._outbox.append(encode(message))
        if not self._send():
            self._wake()

    def close(self, within_seconds: float = 5.0) -> None:
        """Return when everything that was said is written, or the runner is gone."""
        self._closing = True
        self._wake()
        self._thread.join(within_seconds)

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # it is full, so the thread is about to wake anyway
            os.write(self._wake_write, b"\0")

    # The thread's side -------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        patience_ends: float | None = None
        """When the process is killed, with all that it has started, as its runner is gone and it has not ended."""
        while True:
            sent = self._send()
            if self._closing and sent:
                return
            watched = [self._wake_read] + ([self._commands] if patience_ends is None else [])
            readable, _, _ = select.select(
                watched, [] if sent else [self._answers], [], self._seconds_to_wait(patience_ends)
            )
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._deadline = None
                self._stop()
            if patience_ends is not None and time.monotonic() >= patience_ends:
                os.killpg(os.getpgrp(), signal.SIGKILL)
            if self._wake_read in readable:
                os.read(self._wake_read, 4096)
            if self._commands in readable and not self._hear():
                patience_ends = time.monotonic() + self._grace_seconds
                self._stop()

    def _seconds_to_wait(self, patience_ends: float | None) -> float | None:
        coming = [moment for moment in (self._deadline, patience_ends) if moment is not None]
        return max(0.0, min(coming) - time.monotonic()) if coming else None

    def _hear(self) -> bool:
        """Read what the runner has said; False where it is gone."""
        try:
            chunk = os.read(self._commands, 65536)
        except ConnectionResetError:
            chunk = b""
        self._obey(self._inbox.feed(chunk))
        return bool(chunk)

    def _obey(self, messages: Iterable[object]) -> None:
        for message in messages:
            match message:
                case Episodes(indices):
                    self._episodes.extend(indices)
                case HandBack(count):
                    self.say(HandedBack(self._take_last(count)))
                case NoMore():
                    self._no_more = True
                case Pause():
                    self._paused = True
                case Resume():
                    self._paused = False
                case Stop():
                    self.stop = True
        self._news.set()

    def _take_last(self, count: int) -> list[int]:
        taken: list[int] = []
        while len(taken) < count and self._episodes:
            try:
                taken.append(self._episodes.pop())
            except IndexError:  # the stepping thread was quicker
                break
        return taken

    def _stop(self) -> None:
        self.stop = True
        self._news.set()

    # Either thread's ---------------------------------------------------------------------------------------------

    def _send(self) -> bool:
        """Write what the pipe takes; whether nothing is left. Does nothing where the other thread is at it."""
        if not self._sending.acquire(blocking=False):
            return False
        try:
            while self._unsent or self._outbox:
                self._unsent = self._unsent or self._outbox.popleft()
                self._unsent = self._unsent[os.write(self._answers, self._unsent) :]
        except BlockingIOError:
            return False
        except OSError:  # the runner is gone: nobody listens any more
            self._unsent = b""
            self._outbox.clear()
        finally:
            self._sending.release()
        return True
