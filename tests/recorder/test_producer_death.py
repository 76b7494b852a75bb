"""A producer that is killed: what it leaves is whole, and is all but its last moment."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from kernel.event import Event, decode_batch
from kernel.files import acquire
from plugins.events import ChunkSealed, RecordingSealed, RecordingStarted, StepRecorded
from plugins.recorder.frames import ChunkReader, seal_part
from plugins.recorder.spool import event_files, read_batches

if TYPE_CHECKING:
    from pathlib import Path

# Each step notes its number and time in a side file before the next one begins: one unbuffered write, which a kill
# cannot take back. Picture k of an episode shows k.
PRODUCER = """
import os, sys, time
from pathlib import Path
import numpy as np
from plugins.recorder.recorder import Recorder
from plugins.recorder.spool import Producer
home = Path(sys.argv[1])
side = os.open(home / "side", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
recorder = Recorder(Producer(home, "s"), env_id="E", fps=30.0, video_path=str)
recorder.start()
picture = np.zeros((40, 50, 3), np.uint8)
def show(k):
    picture[0, :4, 0] = np.frombuffer(k.to_bytes(4, "little"), np.uint8)
    picture[1:] = np.random.default_rng(k).integers(0, 256, 50 * 3).reshape(50, 3)
    return picture
total = episode = 0
while True:
    recorder.reset(None, {}, seed=None, episode=episode)
    recorder.capture_frame(show(0))
    for step in range(1, 701):
        total += 1
        recorder.step(total, None, 1.0, step == 700, False, {}, show(step), 0.001)
        os.write(side, b"%d %.6f\\n" % (total, time.time()))
        time.sleep(0.0005)
    episode += 1
"""


def kill_at_some_moment(home: Path, seconds: float) -> None:
    home.mkdir()
    with subprocess.Popen([sys.executable, "-c", PRODUCER, str(home)]) as process:
        deadline = time.monotonic() + 30
        while not (home / "side").exists():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(seconds)
        assert process.poll() is None, "it still steps when it is killed"
        process.kill()


def left_behind(folder: Path) -> list[Event]:
    """What is on the disk, as a whole prefix of what was said."""
    events: list[Event] = []
    for file in event_files(folder):
        for batch in read_batches(file).whole:
            assert batch.first_nth == len(events) + 1
            events += decode_batch(batch.events)
    return events


def shown(folder: Path) -> dict[str, list[int]]:
    """The numbers of the pictures of each recording, after its parts are sealed as a collector does."""
    recordings: dict[str, list[int]] = {}
    for recording in sorted(path for path in folder.iterdir() if path.is_dir()):
        for part in recording.glob("*.part"):
            seal_part(part)
        numbers = recordings[recording.name] = []
        for chunk in sorted(recording.glob("*.chunk")):
            with ChunkReader(chunk) as reader:
                numbers += [int.from_bytes(bytes(frame[:12:3]), "little") for frame in reader]
    return recordings


def test_a_killed_producer_leaves_a_whole_prefix_and_loses_its_last_moment_at_most(tmp_path: Path) -> None:
    losses = []
    for attempt in range(6):
        home = tmp_path / str(attempt)
        kill_at_some_moment(home, random.uniform(0.05, 1.5))
        taken = [line.split() for line in (home / "side").read_text().splitlines()]
        folders = [path for path in (home / "spool").iterdir() if not path.name.startswith(".")]
        if not folders:  # killed within its first 40 ms
            losses.append(float(taken[-1][1]) - float(taken[0][1]))
            continue
        (folder,) = folders
        lock = acquire(folder / "lock")
        assert lock is not None, "its lock died with it"
        lock.release()

        events = left_behind(folder)
        steps = [event for event in events if isinstance(event, StepRecorded)]
        assert [step.action for step in steps] == list(range(1, len(steps) + 1)), "no step is missing before the last"
        last = steps[-1].action if steps else 0
        lost = [float(when) for number, when in taken if int(number) > last]
        losses.append(lost[-1] - lost[0] if lost else 0.0)

        for sealed in [event for event in events if isinstance(event, ChunkSealed)]:
            assert (folder.parent / sealed.file).is_file(), "a chunk stands before the event that says so"
        for began in [event for event in events if isinstance(event, RecordingStarted)]:
            assert (folder / began.recording / "recording.json").is_file()
        recordings = shown(folder)
        assert all(numbers == list(range(len(numbers))) for numbers in recordings.values()), "frame k is frame k"
        for step in steps:
            assert step.frame == step.step
            assert step.frame < len(recordings[f"{folder.name}-{step.episode:04d}"]), "each step's frame is there"
        for film in [event for event in events if isinstance(event, RecordingSealed)]:
            assert len(recordings[film.recording]) == film.frames == 701
    losses.sort()
    assert losses[len(losses) // 2] <= 0.1, "seconds between the first and the last step that were lost"
    assert losses[-1] <= 0.5, "even where the machine was busy with other things"
