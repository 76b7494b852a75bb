"""The command `prune`: show what goes, and unless it is a dry run, let it go."""

from __future__ import annotations

import sys
import time
from pathlib import Path  # noqa: TC003 - the command line reads the annotations of a command
from typing import TYPE_CHECKING

import anyio
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kernel.config import LogOptions
from kernel.log import HomeRefused
from kernel.runtime import Kernel, Outcome, StartRefused
from kernel.terminal import shown
from kernel.wiring import Part, last_options
from plugins import catalogue
from plugins.pruner.pruner import Pruner, PrunerOptions, asked_options
from plugins.retention import asked_limits, displaced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plugins.retention import Removal

NO_TRIM = LogOptions(keep_bytes=2**62)
"""How long the log may be is for the configuration to say, and not for this command."""
DRAIN_SECONDS = 3600.0


def prune(
    home: Path,
    /,
    *,
    dry_run: bool = False,
    max_videos_per_session: int | None = None,
    max_bytes: int | None = None,
    max_age_days: float | None = None,
) -> int:
    """Remove the videos that are beyond the limits, as the pruner does during a run; --dry-run only shows them.

    A limit that is not given is that of the configuration that this home was last run with. Exit code 2: nothing was
    done, see the message.

    Parameters
    ----------
    home
        The folder of the kernel's data.
    dry_run
        Show what would be removed, and remove nothing. Works beside a running kernel.
    max_videos_per_session
        How many videos without a pin a session may have; 0: as many as come.
    max_bytes
        How many bytes all videos together may have; 0: no limit.
    max_age_days
        Remove videos that are older; 0: never.
    """
    if not (home / "home.json").is_file():
        return _complain(f"{home}: is no home of a kernel (it has no home.json); give the `home` of your configuration")
    limits = {
        "max_videos_per_session": max_videos_per_session,
        "max_bytes": max_bytes,
        "max_age_days": max_age_days,
    }
    try:
        options = asked_options(last_options(home, Pruner) or PrunerOptions(), asked_limits(home))
        options = msgspec.structs.replace(
            options, **{name: limit for name, limit in limits.items() if limit is not None}
        )
    except ValueError as error:
        return _complain(str(error))
    removals = displaced(catalogue.read_all(home), options.policy, time.time(), catalogue.unfinished(home))
    _show(removals)
    if dry_run or not removals:
        return 0
    try:
        return int(anyio.run(_run_pruner, home, options))
    except (HomeRefused, StartRefused) as refused:
        return _complain(f"{refused} (The pruner of a running kernel keeps to that kernel's configuration.)")


async def _run_pruner(home: Path, options: PrunerOptions) -> Outcome:
    """A kernel with nothing but the pruner; it ends by itself when all is done."""
    parts = [Part("pruner", PruneOnce, options, required=True)]
    return await Kernel(home, parts, log=NO_TRIM, drain_seconds=DRAIN_SECONDS).run()


class PruneOnce(Pruner):
    """The pruner as a source that has nothing to wait for: what its start finds to remove is all."""

    source = True

    async def run(self) -> None:
        return


def _show(removals: Sequence[Removal]) -> None:
    """A table for people; lines with tabs where it is piped."""
    if not sys.stdout.isatty():
        for removal in removals:
            entry = removal.entry
            columns = (entry.recording, entry.path, str(entry.identity.size_bytes), removal.policy, removal.reason)
            sys.stdout.write("\t".join(map(shown, columns)) + "\n")
        return
    table = Table("recording", "episodes", "bytes", "limit", "because", box=None, pad_edge=False)
    for removal in removals:
        entry = removal.entry
        episodes = f"{entry.first_episode}"
        if entry.last_episode != entry.first_episode:
            episodes += f"-{entry.last_episode}"
        row = (entry.recording, episodes, str(entry.identity.size_bytes), removal.policy, removal.reason)
        table.add_row(*(Text(shown(cell)) for cell in row))
    console = Console()
    if removals:
        console.print(table)
    console.print(f"{len(removals)} videos, {sum(removal.entry.identity.size_bytes for removal in removals)} bytes")


def _complain(line: str) -> int:
    _say(line)
    return int(Outcome.refused)


def _say(line: str) -> None:
    sys.stderr.write(f"{shown(line)}\n")
