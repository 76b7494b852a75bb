from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kernel.event import decode_batch
from plugins.recorder.spool import Producer, event_files, new_session_id, read_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kernel.event import Event


@pytest.fixture
def producer(tmp_path: Path) -> Iterator[Producer]:
    producer = Producer(tmp_path, new_session_id())
    yield producer
    producer.close()


@pytest.fixture
def said(tmp_path: Path) -> Callable[..., list[Event]]:
    """What is in the event files of the home's one producer, or of the one that is named; the count has no gap."""

    def read(producer: str = "*") -> list[Event]:
        folders = list((tmp_path / "spool").glob(producer))
        assert len(folders) == 1, folders
        events: list[Event] = []
        for file in event_files(folders[0]):
            batches = read_batches(file)
            assert not batches.rest
            for batch in batches.whole:
                assert batch.first_nth == len(events) + 1
                events += decode_batch(batch.events)
        return events

    return read
