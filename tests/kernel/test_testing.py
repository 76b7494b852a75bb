"""The harness for plugin authors is the real kernel, and its failures are plain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from kernel.plugin import Options, Plugin, on
from kernel.runtime import Outcome
from kernel.testing import running
from tests.kernel.little_plugins import Count, CountOptions, Echo
from tests.kernel.ticks import Tick, Tock, numbers, ticks

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_a_test_publishes_settles_and_looks_at_plugins_and_records(home: Path) -> None:
    async with running(home, {"echo": (Echo, Options())}) as kernel:
        await kernel.publish(*ticks(1, 3))
        await kernel.relay("producer", 1, ticks(4, 5))
        await kernel.relay("producer", 1, ticks(4, 5))
        await kernel.settle()
        assert numbers(kernel.records(Tock)) == [1, 2, 3, 4, 5]
        assert {record.source for record in kernel.records(Tick)} == {"test", "producer"}
        assert [record.seq for record in kernel.records()] == list(range(1, len(kernel.records()) + 1))
        assert isinstance(kernel.plugins["echo"], Echo)
    assert kernel.outcome is Outcome.drained
    assert kernel.plugins == {}


async def test_a_failing_assertion_in_the_block_arrives_as_it_was_raised(home: Path) -> None:
    with pytest.raises(AssertionError, match="as expected"):
        async with running(home, {"echo": (Echo, Options())}):
            raise AssertionError("as expected")
    async with running(home, {"echo": (Echo, Options())}):  # and the home is free
        pass


async def test_settle_raises_where_a_plugin_does_not_come_to_rest(home: Path) -> None:
    class Stuck(Plugin[Options]):
        @on(Tick)
        async def wait(self, tick: Tick) -> None:
            await anyio.sleep_forever()

    async with running(home, {"it": (Stuck, Options())}, drain_seconds=0.1) as kernel:
        await kernel.publish(Tick(n=1))
        with pytest.raises(TimeoutError):
            await kernel.settle(0.1)
    assert kernel.outcome is Outcome.undrained


async def test_a_kernel_that_ends_by_itself_ends_the_block_in_good_order(home: Path) -> None:
    async with running(home, {"source": (Count, CountOptions(count=3)), "echo": (Echo, Options())}) as kernel:
        with anyio.fail_after(20):
            while kernel.plugins:
                await anyio.sleep(0.01)
        assert numbers(kernel.records(Tock)) == [1, 2, 3]
    assert kernel.outcome is Outcome.drained
