"""Power losses: whatever a disk keeps of what was not synced, what was said to be safe is, and recovery goes on.

60 states in an ordinary run; `--disk-states 2000` looks at so many. Each is looked at as it stands, one in twenty is
also served by a kernel to its end.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import aiosqlite
import pytest

from kernel import files
from kernel.checked import NotAsWritten
from kernel.config import LogOptions
from kernel.log import Log, last_seq, read
from plugins import catalogue
from plugins.collector.folder import ProducerFolder
from plugins.encoder_pool.handover import sha256_of
from plugins.events import (
    PruneIntended,
    RecordingSealed,
    VideoAvailable,
    VideoDeleteAsked,
    VideoFailed,
    VideoPruned,
)
from plugins.pruner import PrunerOptions
from plugins.recorder.spool import event_files, read_batches, spool_folder
from tests.faults.lives import Recorded, Served, record, say, serve
from tests.faults.power import Watch, build

if TYPE_CHECKING:
    from pathlib import Path

ABOUT = Served(
    log=LogOptions(segment_bytes=6000, keep_bytes=2_000_000),
    pruner=PrunerOptions(min_free_bytes=0, max_videos_per_session=2),
)
SERVED = 20
"""One state in so many is served."""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watch:
    """Two lives on one home: sessions with videos of one and of two chunks, replaced, removed by limit and by wish."""
    home = tmp_path_factory.mktemp("watched") / "home"
    home.mkdir()
    watch = Watch(home, passed_by=("stepreel.sqlite",))
    with pytest.MonkeyPatch.context() as patch, watch.watching():
        patch.setattr(aiosqlite.Connection, "execute", _noting(watch))
        # What this process would leave half written is its own to the lives that follow a power loss here.
        patch.setattr(files, "_mine", "1-gone")
        record(home, Recorded(lengths=(4, 4, 600)))
        serve(home, ABOUT)
        record(home, Recorded(session="20261122-062719-k3v9", lengths=(3, 3, 3)))
        said = [each.event.recording for each in read(home, VideoAvailable)]
        say(home, VideoDeleteAsked(recording=said[-1]))
        serve(home, ABOUT)
    return watch


def _noting(watch: Watch) -> Any:
    """Note each cursor that the tables commit, which SQLite puts on disk by itself."""
    real: Any = aiosqlite.Connection.execute
    cursor = 0

    def execute(connection: Any, sql: str, parameters: Any = None) -> Any:
        nonlocal cursor
        if sql.startswith("UPDATE cursor"):
            (cursor,) = parameters
        if sql == "COMMIT" and cursor:
            watch.note(cursor)
        return real(connection, sql, parameters)

    return execute


def test_every_state_after_a_power_loss_holds_what_was_said_to_be_safe(
    watched: Watch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    states = request.config.getoption("--disk-states") or 60
    seed = time.time_ns()
    print(f"seed {seed}, {len(watched.steps)} steps")  # noqa: T201 - shown where it fails
    chance = random.Random(seed)
    for number in range(states):
        crash = chance.randint(1, len(watched.steps))
        home = tmp_path / f"{number}-{crash}"
        build(watched.steps, crash, chance, home)
        cursor = max((cursor for place, cursor in watched.notes if place <= crash), default=0)
        look(home, cursor)
        if number % SERVED == 0:
            serve(home, ABOUT)
            look(home, cursor)
            ended(home)


def look(home: Path, cursor: int) -> None:
    """What holds in a home as a start finds it."""
    Log(home).close()  # repairs a torn end, and refuses what cannot be
    assert last_seq(home) >= cursor, "the tables are ahead of the log"
    removed = {each.event.recording for each in read(home, PruneIntended)}
    removed |= {each.event.recording for each in read(home, VideoPruned)}
    for each in read(home, VideoAvailable):
        video = each.event
        if video.recording not in removed:
            assert sha256_of(home / video.path) == video.sha256, f"{video.path} is not what was announced"
            assert catalogue.read_or_refuse(home, video.recording) is not None
    for recording in catalogue.recordings(home):
        try:
            catalogue.read_or_refuse(home, recording)
        except NotAsWritten as damage:
            pytest.fail(str(damage))
    said = nth_of(home)
    for folder in spool_folder(home).glob("[!.]*/"):
        producer = ProducerFolder(folder)
        producer.release()
        assert producer.next_nth <= said.get(folder.name, 0) + 1, "events left the spool that are not in the log"
        segments = event_files(folder)
        first = read_batches(segments[0]).whole[:1] if segments else []
        assert not first or first[0].first_nth <= said.get(folder.name, 0) + 1, "the same"


def nth_of(home: Path) -> dict[str, int]:
    return {each.source: each.nth for each in read(home)}


def ended(home: Path) -> None:
    """What holds behind a kernel's life: each recording has one end, and nothing half is left."""
    sealed = {each.event.recording for each in read(home, RecordingSealed)}
    ends = [each.event.recording for each in read(home, VideoAvailable)]
    ends += [each.event.recording for each in read(home, VideoFailed)]
    assert len(ends) == len(set(ends))
    assert sealed <= set(ends)
    # What a producer was building is removed by a start that finds it a minute old.
    half = [path for path in home.rglob(".*.tmp") if path.is_file() and not path.parent.name.endswith(".tmp")]
    assert not half
