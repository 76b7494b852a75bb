from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from kernel.event import decode_batch
from kernel.files import acquire, write_whole
from plugins.events import CaptureSettings, VideoPinned
from plugins.recorder.frames import ChunkHeader, GrowingFile
from plugins.recorder.spool import (
    EVENT_FILE_BYTES,
    Control,
    Film,
    Outbox,
    Producer,
    ProducerFile,
    Writer,
    append_batch,
    encode,
    event_files,
    folder_bytes,
    gather,
    new_producer_id,
    new_session_id,
    pack_batch,
    read_batches,
    stepping,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def pin(name: str) -> VideoPinned:
    return VideoPinned(recording=name)


def packed(*names: str) -> list[bytes]:
    return [encode(pin(name)) for name in names]


def until(happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


# Event files


@pytest.fixture
def sample(tmp_path: Path) -> tuple[Path, list[int]]:
    """An event file of three batches, and where each ends."""
    batches = [pack_batch(1, packed("a", "b")), pack_batch(3, packed("c")), pack_batch(4, packed("d", "e", "f"))]
    path = tmp_path / "events-000001.bin"
    path.write_bytes(b"".join(batches))
    return path, [sum(map(len, batches[: number + 1])) for number in range(3)]


def test_batches_come_back_as_they_were_written(sample: tuple[Path, list[int]]) -> None:
    path, ends = sample
    batches = read_batches(path)
    assert [(batch.first_nth, batch.end_offset) for batch in batches.whole] == list(zip([1, 3, 4], ends, strict=True))
    assert not batches.rest
    assert decode_batch(batches.whole[2].events) == [pin("d"), pin("e"), pin("f")]
    assert read_batches(path, ends[0]).whole == batches.whole[1:]
    assert read_batches(path, ends[2]).whole == []


def test_an_event_file_cut_at_any_byte_gives_its_whole_batches(sample: tuple[Path, list[int]]) -> None:
    path, ends = sample
    content = path.read_bytes()
    for size in range(len(content) + 1):
        path.write_bytes(content[:size])
        batches = read_batches(path)
        assert [batch.end_offset for batch in batches.whole] == [end for end in ends if end <= size]
        assert batches.rest == ("" if size in (0, *ends) else "incomplete")


def test_every_flipped_bit_of_an_event_file_is_noticed(sample: tuple[Path, list[int]]) -> None:
    path, ends = sample
    content = bytearray(path.read_bytes())
    for bit in range(len(content) * 8):
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        batches = read_batches(path)
        assert [batch.end_offset for batch in batches.whole] == [end for end in ends if end <= bit // 8]
        assert batches.rest in ("incomplete", "damaged")
        content[bit // 8] ^= 1 << bit % 8


def test_who_takes_over_a_producer_goes_on_in_its_event_file(sample: tuple[Path, list[int]]) -> None:
    path, ends = sample
    append_batch(path, 7, [pin("g")])
    batches = read_batches(path, ends[2])
    assert [(batch.first_nth, decode_batch(batch.events)) for batch in batches.whole] == [(7, [pin("g")])]


def test_ids_tell_when_and_never_come_twice() -> None:
    session = new_session_id()
    assert re.fullmatch(r"\d{8}-\d{6}-[a-z0-9]{4}", session)
    ids = {new_producer_id(session) for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(session + r"-[a-z0-9]{8}", producer) for producer in ids)


# A producer's folder


def test_nothing_is_on_the_disk_before_something_is_said(tmp_path: Path) -> None:
    producer = Producer(tmp_path / "home", "s")
    assert producer.close()
    assert not list(tmp_path.iterdir())


def test_a_producers_folder_says_whose_it_is_and_is_locked(tmp_path: Path, producer: Producer, said: Any) -> None:
    producer.say(pin("a"))
    assert producer.flush()
    folder = tmp_path / "spool" / producer.id
    assert [path.name for path in (tmp_path / "spool").iterdir()] == [producer.id], "the temporary name is gone"
    about = msgspec.json.decode((folder / "producer.json").read_bytes(), type=ProducerFile)
    assert (about.producer, about.session, about.pid) == (producer.id, producer.session, os.getpid())
    assert stepping(tmp_path) == [os.getpid()]
    (folder / "producer.json").write_text("{")
    assert not stepping(tmp_path)
    assert said() == [pin("a")]
    try_lock = (
        "import sys; from pathlib import Path; from kernel.files import acquire; "
        f"sys.exit(acquire(Path({str(folder / 'lock')!r})) is None)"
    )
    assert subprocess.run([sys.executable, "-c", try_lock], check=False).returncode == 1, "another process gets no lock"
    assert producer.close()
    assert subprocess.run([sys.executable, "-c", try_lock], check=False).returncode == 0
    assert folder.exists(), "the folder stays for the collector"
    assert producer.close(), "twice is harmless"
    producer.say(pin("b"))
    assert said() == [pin("a")], "after close nothing is taken"


def test_a_closed_producers_lock_can_be_had_by_its_own_process(tmp_path: Path, producer: Producer) -> None:
    producer.say(pin("a"))
    producer.close()
    lock = acquire(tmp_path / "spool" / producer.id / "lock")
    assert lock is not None
    lock.release()


def test_event_files_roll_and_the_count_goes_on(tmp_path: Path, producer: Producer, said: Any) -> None:
    names = [f"{index}-" + "x" * 50_000 for index in range(250)]
    for name in names:
        producer.say(pin(name))
    assert producer.close()
    files = event_files(tmp_path / "spool" / producer.id)
    assert [file.name for file in files] == [f"events-{number:06d}.bin" for number in range(1, len(files) + 1)]
    assert len(files) >= 3
    for file in files[:-1]:
        assert EVENT_FILE_BYTES <= file.stat().st_size < EVENT_FILE_BYTES + 2 * 1024 * 1024
    assert said() == [pin(name) for name in names]


def test_many_threads_may_speak_at_once_and_each_keeps_its_order(producer: Producer, said: Any) -> None:
    def speak(thread: int) -> None:
        for index in range(2000):
            producer.say(pin(f"{thread}/{index}"))

    threads = [threading.Thread(target=speak, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert producer.close()
    assert producer.outbox.unsent_bytes() == 0
    names = [event.recording for event in said()]
    assert len(names) == 8000
    for number in range(4):
        assert [name for name in names if name.startswith(f"{number}/")] == [f"{number}/{i}" for i in range(2000)]


# A disk that refuses


@contextmanager
def files_up_to(size_bytes: int) -> Iterator[None]:
    """Every write beyond so many bytes of a file comes back short, and then as an error: like a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_append_that_fails_leaves_nothing_half_and_may_be_tried_again(tmp_path: Path) -> None:
    file = GrowingFile(tmp_path / "file")
    with files_up_to(1000):
        file.append(b"a" * 900)
        with pytest.raises(OSError, match="too large"):
            file.append(b"b" * 900)
        assert file.path.read_bytes() == b"a" * 900
        file.append(b"c" * 100)
    file.append(b"d" * 900)
    file.close()
    assert file.path.read_bytes() == b"a" * 900 + b"c" * 100 + b"d" * 900


def test_what_a_full_disk_refuses_is_written_once_there_is_room(tmp_path: Path, producer: Producer, said: Any) -> None:
    names = [f"{index}-" + "x" * 1000 for index in range(300)]
    with files_up_to(100_001):
        for name in names[:150]:
            producer.say(pin(name))
            time.sleep(0.0005)
        until(lambda: producer.outbox.trouble)
        for name in names[150:]:
            producer.say(pin(name))
        assert "File too large" in producer.outbox.trouble
        assert not producer.flush(0.3)
        events = said()
        assert events == [pin(name) for name in names[: len(events)]], "a whole prefix, and nothing half"
    assert producer.flush()
    assert producer.outbox.trouble == ""
    assert said() == [pin(name) for name in names]
    assert producer.outbox.unsent_bytes() == 0


def test_a_home_that_cannot_be_made_is_tried_again(tmp_path: Path, producer: Producer, said: Any) -> None:
    (tmp_path / "spool").write_text("in the way")
    producer.say(pin("a"))
    until(lambda: producer.outbox.trouble)
    (tmp_path / "spool").unlink()
    assert producer.flush()
    assert said() == [pin("a")]


def test_close_comes_back_in_time_when_the_disk_takes_nothing(tmp_path: Path) -> None:
    producer = Producer(tmp_path, "s")
    (tmp_path / "spool").write_text("in the way")
    producer.say(pin("a"))
    assert not producer.close(timeout_seconds=0.2)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("spool")]


# What the kernel says


def test_control_is_read_from_the_home_until_the_folder_has_its_own(tmp_path: Path, producer: Producer) -> None:
    capture = tmp_path / "capture.json"
    write_whole(capture, b'{"asked":3,"settings":{"mode":"cubic"}}', lasting=False)
    producer.start()
    assert producer.outbox.control == Control(asked=3, settings=CaptureSettings(mode="cubic")), "known before a reset"
    producer.say(pin("a"))
    producer.flush()
    write_whole(capture, b'{"asked":4}', lasting=False)
    until(lambda: producer.outbox.control == Control(asked=4))
    own = tmp_path / "spool" / producer.id / "control.json"
    write_whole(own, b'{"once":5}', lasting=False)
    until(lambda: producer.outbox.control == Control(once=5))
    write_whole(own, b"not JSON", lasting=False)
    write_whole(capture, b'{"asked":6}', lasting=False)
    time.sleep(0.6)
    assert producer.outbox.control == Control(once=5), "what cannot be read changes nothing"
    write_whole(own, b'{"held":true}', lasting=False)
    until(lambda: producer.outbox.control == Control(held=True))


# Parts


def test_an_event_is_never_taken_without_the_frame_that_came_before_it(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, "s", 1000, 1000)
    film = Film(None, ChunkHeader(width=1, height=1, channels=1))  # type: ignore[arg-type] # the plan is not looked at

    class Interrupted(list[Any]):
        """A list with a stepping thread that takes a step whenever the writer thread has emptied it."""

        def __delitem__(self, some: Any) -> None:
            super().__delitem__(some)
            outbox.frames.append((film, b"frame"))
            outbox.events.append(b"event")

    outbox.events, outbox.frames = Interrupted(), Interrupted()
    outbox.frames.append((film, b"frame"))
    outbox.events.append(b"event")
    writer = Writer(outbox)
    for _ in range(3):
        writer._take()
        frames = sum(len(write.payloads) for write in writer._writes)
        assert 0 < len(writer._events) <= frames


def test_frames_are_put_together_by_film_in_their_order() -> None:
    header = ChunkHeader(width=1, height=1, channels=1)
    one, two = Film(None, header), Film(None, header)  # type: ignore[arg-type] # the plan is not looked at
    big = b"x" * 2**20
    writes = gather(
        [(one, b"1"), (two, b"2"), (one, b"3"), (one, None), (two, big), (one, b"4"), (two, None), (two, b"5")]
    )
    assert [(write.film is one, write.payloads, write.seal) for write in writes] == [
        (True, [b"1", b"3"], True),
        (False, [b"2", big], False),
        (True, [b"4"], False),
        (False, [], True),
        (False, [b"5"], False),
    ]


def test_the_size_of_a_spool_counts_every_file(tmp_path: Path) -> None:
    assert folder_bytes(tmp_path / "missing") == 0
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(bytes(10))
    (tmp_path / "a" / "file").write_bytes(bytes(5))
    assert folder_bytes(tmp_path) == 15


def test_the_recorder_brings_no_asyncio_and_nothing_heavy() -> None:
    program = (
        "import sys, json; import plugins.recorder.recorder, plugins.recorder.spool, plugins.recorder.frames; "
        "print(json.dumps(sorted(sys.modules)))"
    )
    modules = json.loads(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout)
    heavy = {"asyncio", "anyio", "aiosqlite", "gymnasium", "kernel.log", "kernel.bus", "kernel.runtime", "rich"}
    assert not heavy & set(modules)
