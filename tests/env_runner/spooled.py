"""What producers have left in a home's spool."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from kernel.event import Event, decode_batch
from plugins.recorder.spool import event_files, read_batches, spool_folder

if TYPE_CHECKING:
    from pathlib import Path

E = TypeVar("E", bound=Event)


def spooled(home: Path, kind: type[E]) -> list[E]:
    """The events of this type, producer by producer."""
    folder = spool_folder(home)
    producers = sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []
    return [
        event
        for producer in producers
        for file in event_files(producer)
        for batch in read_batches(file).whole
        for event in decode_batch(batch.events)
        if isinstance(event, kind)
    ]
