"""The echo: what workers print, passed on to the terminal; each line once, and not too many of them."""

from __future__ import annotations

import sys
import time

LINES_A_SECOND = 50
LINES_REMEMBERED = 10_000


class Echo:
    """Writes lines to standard error, with the name of who said them.

    A line that somebody said before is left out. Of others, 50 a second are shown, and the rest is counted.
    """

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._second = 0.0
        self._shown = 0
        self._left_out = 0

    def hear(self, who: str, line: str) -> None:
        """Show a line of somebody's, or not."""
        if line in self._seen:
            return
        if len(self._seen) >= LINES_REMEMBERED:
            self._seen.clear()
        self._seen.add(line)
        if time.monotonic() - self._second >= 1:
            self.say_what_was_left_out()
            self._second, self._shown = time.monotonic(), 0
        if self._shown == LINES_A_SECOND:
            self._left_out += 1
            return
        self._shown += 1
        say(f"{who}: {line}")

    def say_what_was_left_out(self) -> None:
        """To be called at the end, too."""
        if self._left_out:
            say(f"the workers printed {self._left_out} more lines, which are not shown")
            self._left_out = 0


def say(text: str) -> None:
    """Write a line to standard error, whatever stands behind that name at the moment: progress may have replaced it."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
