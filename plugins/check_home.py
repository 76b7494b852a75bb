"""The command `check-home`: asks the log and each installed plugin what is wrong in a home, and mends what is safe."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path  # noqa: TC003 - the command line reads the annotations of a command
from typing import TYPE_CHECKING

from kernel.checks import CHECKS, Finding
from kernel.files import holder
from kernel.log import HomeHeld, HomeRefused, Log, salvage
from kernel.wiring import entry_points

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kernel.checks import Check

CLEAN, WRONG, CANNOT_LOOK = 0, 1, 2
"""Exit codes."""
LOOK_AGAIN_SECONDS = 1.5
KEEP_BYTES = 2**62
"""How long the log may be is for the configuration to say, and not for this command."""


def check_home(home: Path, /, *, repair: bool = False) -> int:
    """Look whether all that a home should hold is there and whole: log, spool, videos, tables, pins.

    One line for each thing that is wrong: what, and what mends it. Exit code 0: nothing is wrong; 1: something is, or
    was before it was repaired; 2: nothing could be looked at, see the message.

    Parameters
    ----------
    home
        The folder of the kernel's data; a training script's is .stepreel. Works beside a running kernel.
    repair
        Mend what can be mended without a loss, and say what was done. Not beside a running kernel.
    """
    if not (home / "home.json").is_file():
        return _complain(f"{home}: is no home of a kernel (it has no home.json); give the `home` of your configuration")
    try:
        live = _is_live(home)
        found = _show(mend(home) if repair else ((finding, "") for finding in look(home)))
    except HomeHeld:
        return _complain(f"{home}: a kernel is running on this home. Stop it to repair; only to look, it may go on.")
    except HomeRefused as refused:
        return _complain(str(refused))
    except OSError as error:
        return _complain(f"{error.filename or home}: {error.strerror}")
    wrong = sum(not finding.waits for finding in found)
    words = f"{wrong} wrong" if wrong else "nothing is wrong"
    if wrong < len(found):
        words += f", {len(found) - wrong} left for the next start"
    if live:
        words += "; a kernel runs on it, and what it has in hand was passed by"
    _say(f"{home}: {words}")
    return WRONG if wrong else CLEAN


def look(home: Path) -> list[Finding]:
    """All that the checks of the installed plugins find in a home; changes nothing. Blocks.

    Beside a running kernel it is what they find twice, some time apart, so that nothing is told that was just being
    done. Empty: nothing is wrong, and nothing is left to do.
    """
    found = list(_ask(home, live=_is_live(home)))
    if found and _is_live(home):
        time.sleep(LOOK_AGAIN_SECONDS)
        again = {(finding.place, finding.wrong) for finding in _ask(home, live=True)}
        found = [finding for finding in found if (finding.place, finding.wrong) in again]
    return found


def mend(home: Path) -> Iterator[tuple[Finding, str]]:
    """Each thing that is found, and what was done about it; empty where nothing was, or could safely be, done.

    Has the home for itself meanwhile. Raises `HomeRefused` where that, or its log, cannot be had.
    """
    try:
        log = Log(home, keep_bytes=KEEP_BYTES)
    except HomeHeld:
        raise
    except HomeRefused as refused:  # damaged in the midst
        lost = salvage(home)
        yield Finding(str(home / "log"), "is damaged", str(refused)), f"{lost} damaged events were set aside"
        log = Log(home, keep_bytes=KEEP_BYTES)
    try:
        if log.repaired is not None:
            log.append("kernel", log.last_nth("kernel") + 1, [log.repaired])
        for finding in _ask(home, live=False):
            yield finding, finding.repair(log) if finding.repair is not None else ""
    finally:
        log.close()


def _ask(home: Path, *, live: bool) -> Iterator[Finding]:
    for path in sorted(entry_points(CHECKS).values()):
        module, _, name = path.partition(":")
        check: Check = getattr(importlib.import_module(module), name)
        try:
            yield from list(check(home.absolute(), live))
        except HomeRefused as refused:  # of which the log's own check has said where
            yield Finding(path, "could not look any further", str(refused))


def _is_live(home: Path) -> bool:
    return holder(home / "lock") is not None


def _show(pairs: Iterator[tuple[Finding, str]]) -> list[Finding]:
    found = []
    for finding, done in pairs:
        found.append(finding)
        _say(f"{finding.place}: {finding.wrong}. {finding.remedy}")
        if done:
            _say(f"  repaired: {done}.")
    return found


def _say(line: str) -> None:
    # What a home tells may hold what would move a terminal's cursor, or worse.
    plain = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)
    sys.stdout.write(f"{plain}\n")


def _complain(line: str) -> int:
    sys.stderr.write(f"{line}\n")
    return CANNOT_LOOK
