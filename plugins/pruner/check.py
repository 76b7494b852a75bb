"""The pruner's part of `check-home`: what is pinned stands, and what was to be removed is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel.checks import Finding, waiting
from kernel.log import read
from plugins import catalogue
from plugins.pruner.history import RETAINED, History

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def check(home: Path, live: bool) -> Iterator[Finding]:  # noqa: FBT001 - as all checks have it
    """Look at what the log says of pins and removals."""
    history = History()
    for record in read(home, *RETAINED):
        history.note(record.event)
    for recording, by in sorted(history.pinned.items()):
        if recording in history.available and catalogue.read(home, recording) is None:
            wrong = f"is pinned{f' by {by}' if by else ''}, and is not in the catalogue"
            yield Finding(f"recording {recording}", wrong, "Restore home/recordings and home/videos from a backup.")
    if not live:
        for recording, intent in sorted(history.intended.items()):
            yield waiting(str(home / intent.path), f"was to be removed ({intent.reason}), recording {recording}")
