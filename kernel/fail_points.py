"""Fail points: the places before and after each step that changes what is on disk, where a test has the process killed.

    STEPREEL_FAIL_AT=log.append.after     end the process where it comes there first, as `kill -9` would
    STEPREEL_FAIL_AT=log.append.after#3   where it comes there for the third time
    STEPREEL_FAIL_AT=log.roll.*,log.seal.*   where it comes first to one of several

Without the variable a point costs the call of a function that finds nothing to do: 0.04 µs, beside a call of the file
system's.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase

EXIT_CODE = 86
"""Of a process that was ended at a fail point."""


def fail_point(name: str) -> None:
    """End the process here, if that is wanted. `name` is a literal, and no other point has it."""
    if _wanted:
        _reach(name)


def arm(wanted: str) -> None:
    """Want what STEPREEL_FAIL_AT would say."""
    global _wanted, _left
    names, _, number = wanted.partition("#")
    _wanted, _left = tuple(filter(None, names.split(","))), int(number or 1)


def _reach(name: str) -> None:
    global _left  # noqa: PLW0603 - see `arm`
    if any(fnmatchcase(name, wanted) for wanted in _wanted):
        _left -= 1
        if _left == 0:
            os.write(2, f"ended at the fail point {name}\n".encode())
            os._exit(EXIT_CODE)


_wanted: tuple[str, ...] = ()
_left = 0
arm(os.environ.get("STEPREEL_FAIL_AT", ""))
