"""A kernel that makes way leaves its home to another one at once; ordinary kernels refuse each other."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import anyio
import pytest

from kernel.event import KernelStarted, KernelStopped
from kernel.files import acquire, holder
from kernel.log import HomeHeld, Log, makes_way, read, refuse_unusable
from kernel.plugin import Options
from kernel.testing import running
from tests.kernel.little_plugins import Echo
from tests.kernel.ticks import answer, line_of, python, stepreel

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

pytestmark = pytest.mark.anyio

# Its plugin has work that never ends, so that a drain would not either; its source never returns.
GUEST = """
import math, sys
from pathlib import Path
import anyio
from kernel.config import LogOptions
from kernel.plugin import Options, Plugin
from kernel.runtime import Kernel, run_until_signalled
from kernel.wiring import Part

class Busy(Plugin[Options]):
    source = True
    async def run(self):
        print("at work", flush=True)
        await anyio.sleep_forever()
    async def drain(self):
        await anyio.sleep_forever()

async def main():
    parts = [Part("busy", Busy, Options(), True)]
    kernel = Kernel(Path(sys.argv[1]), parts, log=LogOptions(), drain_seconds=math.inf, makes_way=sys.argv[2] == "True")
    outcome = await run_until_signalled(kernel)
    print(outcome.name, kernel.made_way, flush=True)

anyio.run(main)
"""


def guest(home: Path, *, makes_way: bool = True) -> subprocess.Popen[str]:
    process = python(GUEST, home, makes_way)
    assert line_of(process) == "at work"
    return process


async def test_a_kernel_that_makes_way_leaves_its_home_to_another_one(home: Path) -> None:
    process = guest(home)
    assert makes_way(home)
    begun = time.monotonic()
    async with running(home, {"echo": (Echo, Options())}) as kernel:
        assert time.monotonic() - begun < 20, "it does not drain first"
        assert kernel.said == [
            f"{home}: is in use by a process that makes way; it is taken over as soon as that has left"
        ]
        assert not makes_way(home)
        assert answer(process) == "undrained True"
        assert not (home / "wanted").exists()
    kernels = [type(record.event).__name__ for record in read(home, KernelStarted, KernelStopped)]
    assert kernels == ["KernelStarted", "KernelStopped"] * 2


async def test_the_command_line_takes_a_home_over_in_one_calm_line(home: Path, tmp_path: Path) -> None:
    process = guest(home)
    config = tmp_path / "config.toml"
    config.write_text(f'home = "{home}"\n[plugins.count]\nuse = "tests.kernel.little_plugins:Count"\ncount = 3\n')
    check = stepreel("check", config)
    assert "ready to run" in check.communicate(timeout=60)[0]
    assert process.poll() is None, "a check displaces nobody"
    run = stepreel(config)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 0
    assert len(err.splitlines()) == 1
    assert "is taken over" in err
    assert answer(process) == "undrained True"


async def test_ordinary_kernels_refuse_each_other(home: Path) -> None:
    process = guest(home, makes_way=False)
    assert not makes_way(home)
    with pytest.raises(HomeHeld, match="another kernel is running"):
        refuse_unusable(home)
    with pytest.raises(HomeHeld, match="another kernel is running"):
        async with running(home, {"echo": (Echo, Options())}):
            pass
    assert not (home / "wanted").exists()
    process.send_signal(signal.SIGKILL)
    process.communicate()


async def test_a_kernel_that_makes_way_does_not_ask_another_to(home: Path) -> None:
    process = guest(home)
    other = python(GUEST, home, True)
    assert "HomeHeld" in other.communicate(timeout=60)[1]
    assert process.poll() is None
    process.kill()
    process.communicate()


async def test_of_two_kernels_that_take_over_one_gets_the_home_and_the_other_is_refused(home: Path) -> None:
    process = guest(home)
    others = [python(GUEST, home, False) for _ in range(2)]
    assert answer(process) == "undrained True"
    with anyio.fail_after(60):
        while all(other.poll() is None for other in others):
            await anyio.sleep(0.05)
    (refused,) = [other for other in others if other.poll() is not None]
    (winner,) = [other for other in others if other is not refused]
    assert "another kernel is running on this home" in refused.communicate()[1]
    assert line_of(winner) == "at work"
    assert holder(home / "lock") == winner.pid
    winner.kill()
    winner.communicate()


async def test_a_file_called_wanted_that_nobody_holds_displaces_nobody(home: Path) -> None:
    """Such as one that a kernel left, which was killed while it waited."""
    process = guest(home)
    (home / "wanted").touch()
    await anyio.sleep(1)
    assert process.poll() is None
    wanted = acquire(home / "wanted")
    assert wanted is not None
    assert answer(process) == "undrained True"
    wanted.release()


async def test_a_home_that_a_killed_kernel_would_have_left_is_an_ordinary_one_again(home: Path) -> None:
    process = guest(home)
    process.kill()
    process.communicate()
    assert not makes_way(home)
    log = Log(home)
    assert (home / "lock").stat().st_size == 0, "the note of the dead one is gone"
    log.close()
