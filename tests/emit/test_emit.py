from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest

from kernel.testing import running
from plugins.collector import Collector, CollectorOptions
from plugins.events import CaptureAsked, VideoPinned
from plugins.recorder.spool import spool_folder

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


def emit(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "kernel", "emit", *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


async def test_an_event_reaches_the_bus_of_a_running_kernel(home: Path) -> None:
    async with running(home, {"collector": (Collector, CollectorOptions())}) as kernel:
        code, out, err = await anyio.to_thread.run_sync(
            lambda: emit(str(home), "CaptureAsked", 'settings={"mode": "every", "every": 7}', "once=true", "by=me")
        )
        assert (code, out, err) == (0, "CaptureAsked was handed in\n", "")
        with anyio.fail_after(10):
            while not kernel.records(CaptureAsked):
                await anyio.sleep(0.02)
        (record,) = kernel.records(CaptureAsked)
        await kernel.settle()
    assert record.source.startswith("emit-")
    assert (record.event.settings.every, record.event.once, record.event.by) == (7, True, "me")
    assert not list(spool_folder(home).iterdir())


async def test_without_a_kernel_the_next_one_takes_the_event_in(home: Path) -> None:
    async with running(home, {}):
        pass
    code, out, _ = emit(str(home), "VideoPinned", "recording=a-0000")
    assert code == 0
    assert "no kernel runs" in out
    async with running(home, {"collector": (Collector, CollectorOptions())}) as kernel:
        await kernel.settle()
        assert [record.event.recording for record in kernel.records(VideoPinned)] == ["a-0000"]


async def test_what_cannot_be_handed_in_is_refused_with_the_reason_and_leaves_nothing(home: Path) -> None:
    assert emit(str(home), "VideoPinned", "recording=x")[2] == f"{home}: is no home of a kernel (it has no home.json)\n"
    async with running(home, {}):
        pass
    for arguments, said in (
        (("Nothing",), 'no event type is called "Nothing"'),
        (("VideoPinned", "recordng=x"), "its fields are: recording, by"),
        (("VideoPinned", "recording=x", "why=me"), "it has no field why; its fields are: recording, by"),
        (("VideoPinned", "recording"), '"recording" is no key=value'),
        (("LoopLag", "seconds=1"), "is not logged"),
    ):
        code, out, err = emit(str(home), *arguments)
        assert (code, out) == (2, "")
        assert said in err
        assert "Traceback" not in err
    assert not spool_folder(home).exists()
