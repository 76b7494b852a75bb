"""A kernel in a process of its own, for a test to kill: python killed_kernel.py HOME.

The recordings that wait in the spool are said to it as a collector would: what the log does not have yet.
"""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import msgspec

from plugins.encoder_pool import EncoderPoolOptions
from plugins.events import ChunkSealed, RecordingSealed
from tests.encoder_pool.pools import encoding, say


async def main(home: Path) -> None:
    said = msgspec.json.decode((home / "said.json").read_bytes(), type=list[ChunkSealed | RecordingSealed])
    async with encoding(home, EncoderPoolOptions(jobs=2)) as kernel:
        print("running", flush=True)  # noqa: T201 - the test waits for it
        logged = [record.event for record in kernel.records(ChunkSealed, RecordingSealed)]
        for event in said:
            if event not in logged:
                await say(kernel, event)
        await kernel.settle()
        print("settled", flush=True)  # noqa: T201 - the test waits for it


anyio.run(main, Path(sys.argv[1]))
