"""The watchdog: who keeps the event loop from running is named, with the place."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import anyio
import pytest

from kernel.event import LoopBlocked
from kernel.plugin import Options, Plugin, on
from kernel.testing import running
from tests.kernel.ticks import Tick, ended, line_of, python

if TYPE_CHECKING:
    from pathlib import Path

    from kernel.testing import RunningKernel

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel.watchdog.BLOCKED_SECONDS", 0.3)
    monkeypatch.setattr("kernel.watchdog.LOOK_SECONDS", 0.02)


async def blocked(kernel: RunningKernel) -> LoopBlocked:
    """The first block that is said of this test's plugin; a busy machine may bring others."""
    with anyio.fail_after(20):
        while not (found := [r.event for r in kernel.records(LoopBlocked) if "tests/kernel" in r.event.where]):
            await anyio.sleep(0.02)
    return found[0]


async def test_a_handler_that_blocks_is_named_with_its_plugin_and_its_place(home: Path) -> None:
    class Blocking(Plugin[Options]):
        @on(Tick)
        async def block(self, tick: Tick) -> None:
            time.sleep(1.0)

    async with running(home, {"other": (Plugin, Options()), "it": (Blocking, Options())}) as kernel:
        await kernel.publish(Tick(n=1))
        event = await blocked(kernel)
    assert event.plugin == "it"
    assert event.seconds > 0.3
    assert "tests/kernel/test_watchdog.py:" in event.where
    assert event.where.endswith("Blocking.block")
    (line,) = [line for line in kernel.said if "Blocking.block" in line]
    assert line.startswith("[plugins.it] blocks the kernel's event loop at /")


async def test_a_task_of_a_plugins_own_and_a_library_that_it_calls_are_told_by_its_code(home: Path) -> None:
    class Blocking(Plugin[Options]):
        async def run(self) -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.work)

        async def work(self) -> None:
            never = threading.Event()
            never.wait(1.0)

    async with running(home, {"it": (Blocking, Options())}) as kernel:
        event = await blocked(kernel)
    assert event.plugin == "it"
    assert "Blocking.work, which calls Condition.wait" in event.where


STOPPED = """
import sys
from pathlib import Path
import anyio
from kernel.event import LoopBlocked
from kernel.testing import running
from kernel import watchdog
watchdog.BLOCKED_SECONDS, watchdog.LOOK_SECONDS = 0.3, 0.02

async def main():
    async with running(Path(sys.argv[1]), {}) as kernel:
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        await anyio.sleep(0.2)
        print(len(kernel.records(LoopBlocked)), flush=True)

anyio.run(main)
"""


async def test_a_loop_that_only_waits_for_its_turn_is_not_taken_for_a_blocked_one(home: Path) -> None:
    process = python(STOPPED, home)
    try:
        assert line_of(process) == "ready"
        for _ in range(3):
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(0.4)
            os.kill(process.pid, signal.SIGCONT)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert line_of(process) == "0"
    finally:
        process.kill()
        process.communicate()


def test_the_watchdogs_word_is_an_event_that_users_can_tail() -> None:
    code, out, _ = ended("events")
    assert code == 0
    assert "LoopBlocked" in out
