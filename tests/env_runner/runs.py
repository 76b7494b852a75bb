"""Sessions of the runner in a real kernel, on the environments of `envs`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from kernel.config import convert
from kernel.testing import running
from plugins.collector import Collector, CollectorOptions
from plugins.env_runner import EnvRunner, EnvRunnerOptions
from plugins.events import SessionEnded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from kernel.testing import RunningKernel


def options(**table: Any) -> EnvRunnerOptions:
    """Options as a configuration would give them; `Count-v0`, seed 0 and no capture unless said otherwise."""
    problems: list[str] = []
    table = {"env": "Count-v0", "import": ["envs"], "seed": 0, "capture": {"off": True}, **table}
    read = convert(table, EnvRunnerOptions, "[plugins.runner]", problems)
    assert read is not None, problems
    return read


@asynccontextmanager
async def session(home: Path, **table: Any) -> AsyncIterator[RunningKernel]:
    """A kernel with a collector and a runner that has begun its session."""
    plugins = {"collector": (Collector, CollectorOptions()), "runner": (EnvRunner, options(**table))}
    async with running(home, plugins) as kernel:
        yield kernel


async def whole_session(home: Path, **table: Any) -> RunningKernel:
    """A kernel whose session has ended by itself."""
    async with session(home, **table) as kernel:
        await the_end(kernel)
    return kernel


async def the_end(kernel: RunningKernel) -> None:
    """Return when the session has ended, and all that is to say of it is in the log."""
    await until(lambda: kernel.records(SessionEnded))


async def until(true: Callable[[], Any], within_seconds: float = 30.0) -> None:
    """Return when it is true. Raises `TimeoutError` when that takes longer."""
    with anyio.fail_after(within_seconds):
        while not true():
            await anyio.sleep(0.02)
