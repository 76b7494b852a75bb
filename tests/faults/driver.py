"""A process that has everything imported, and forks a life at a time for a test to kill: 10 ms where a start takes 400.

A line of JSON in is an `Order`; a line out is its `End`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from kernel import fail_points
from kernel.files import clear_up
from kernel.salvage import salvage
from plugins.recorder import process
from tests.faults.lives import Recorded, Said, Served, record, say, serve

if TYPE_CHECKING:
    from types import TracebackType

ROOT = Path(__file__).parent.parent.parent


class Salvaged(msgspec.Struct, frozen=True, tag=True):
    """The command `salvage`."""


class Noted(msgspec.Struct, frozen=True, tag=True):
    """A recorder process that notes how it stands, as `RecorderProcess` leaves it to be found."""


Life = Recorded | Served | Said | Salvaged | Noted


class Order(msgspec.Struct, frozen=True):
    """A life, and where it is to end; empty: nowhere."""

    home: str
    life: Life
    fail_at: str = ""
    list_points: bool = False
    wait: bool = True
    """Answer when it has ended; else as soon as it has begun."""


class End(msgspec.Struct, frozen=True):
    """How a life ended."""

    status: int
    points: list[str] = []
    """All points that it came to, in their order, where that was asked for."""
    pid: int = 0

    @property
    def killed(self) -> bool:
        return self.status == fail_points.EXIT_CODE


class Driver:
    """The process, for a test; a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.driver"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def live(self, home: Path, life: Life, fail_at: str = "", *, list_points: bool = False) -> End:
        """Live this life to its end. One that ends neither in good order nor at a fail point is an error."""
        end = self._ask(Order(str(home), life, fail_at, list_points))
        assert end.status in (0, fail_points.EXIT_CODE), f"{life} ended with {end.status}: see stderr"
        return end

    def start(self, home: Path, life: Life) -> int:
        """Begin a life that only a kill ends; its pid. Once killed it is a zombie, until `wait`."""
        return self._ask(Order(str(home), life, wait=False)).pid

    def wait(self, pid: int) -> int:
        """How a life that was begun has ended: -9 where it was killed."""
        return self._ask(pid).status

    def _ask(self, what: Order | int) -> End:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(what) + b"\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._process.stdout.readline(), type=End)


def main() -> None:
    # The answers go where no life writes.
    answers = os.dup(1)
    os.dup2(2, 1)
    for line in sys.stdin:
        order = msgspec.json.decode(line, type=Order | int)
        if isinstance(order, int):
            _, status = os.waitpid(order, 0)
            os.write(answers, msgspec.json.encode(End(os.waitstatus_to_exitcode(status))) + b"\n")
            continue
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _live(order, writing)
        os.close(writing)
        if not order.wait:
            os.close(reading)
            os.write(answers, msgspec.json.encode(End(0, pid=pid)) + b"\n")
            continue
        with os.fdopen(reading) as points:
            names = points.read().split()
        _, status = os.waitpid(pid, 0)
        os.write(answers, msgspec.json.encode(End(os.waitstatus_to_exitcode(status), names)) + b"\n")


def _live(order: Order, points: int) -> None:
    status = 1
    try:
        if order.list_points:
            fail_points._wanted = ("*",)
            fail_points._reach = lambda name: os.write(points, f"{name}\n".encode()) and None  # type: ignore[assignment]
        else:
            fail_points.arm(order.fail_at)
        home = Path(order.home)
        match order.life:
            case Recorded() as about:
                record(home, about)
            case Served() as about:
                serve(home, about)
            case Said(events=events):
                say(home, *events)
            case Salvaged():
                salvage(home)
            case Noted():
                clear_up(home, process.LIFE)
                process.write_life(home, process.Life(state="at work"))
        status = 0
    except BaseException:  # noqa: BLE001 - the test is told
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
