"""Who holds a lock is seen without taking it, and the threads of one process refuse each other, too."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from kernel.files import acquire, file_system, holder, note_of, on_network
from tests.kernel.ticks import answer, line_of, python

ACQUIRE = "import sys; from pathlib import Path; from kernel.files import *; lock = acquire(Path(sys.argv[1])); "
LOOK = "import sys; from pathlib import Path; from kernel.files import *; file = Path(sys.argv[1]); "


def test_the_holder_is_seen_while_it_lives_and_not_afterwards(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    assert holder(file) is None
    process = python(ACQUIRE + "lock.note(b'busy'); print('held', flush=True); sys.stdin.read()", file)
    assert line_of(process) == "held"
    assert holder(file) == process.pid
    assert note_of(file) == b"busy"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert holder(file) is None
    assert note_of(file) == b"busy", "a note outlives its writer: ask for the holder, too"


def test_a_look_refuses_nobody(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    file.touch()
    looking = python(LOOK + "print('looks', flush=True)\nwhile True: assert holder(file) in (None, int(sys.argv[2]))",
                     file, os.getpid())  # fmt: skip
    assert line_of(looking) == "looks"
    for _ in range(2000):
        lock = acquire(file)
        assert lock is not None
        lock.release()
    looking.kill()
    assert "AssertionError" not in looking.communicate()[1]


def test_a_process_that_looks_at_its_own_lock_keeps_it(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    lock = acquire(file)
    assert lock is not None
    lock.note(b"mine")
    assert holder(file) == os.getpid()
    assert note_of(file) == b""
    assert answer(python(LOOK + "print(holder(file), note_of(file).decode())", file)) == f"{os.getpid()} mine"
    lock.release()
    assert answer(python(LOOK + "print(holder(file))", file)) == "None"


def test_a_shorter_note_leaves_nothing_of_the_longer_one(tmp_path: Path) -> None:
    lock = acquire(tmp_path / "lock")
    assert lock is not None
    lock.note(b"makes way")
    lock.note(b"no")
    assert (tmp_path / "lock").stat().st_size == 2
    lock.note(b"")
    lock.release()
    assert note_of(tmp_path / "lock") == b""


def test_a_forked_child_sees_its_parent_as_the_holder(tmp_path: Path) -> None:
    code = (
        ACQUIRE
        + """
import os
parent = os.getpid()
if not os.fork():
    print(holder(Path(sys.argv[1])) == parent, flush=True)
    os._exit(0)
os.wait()
"""
    )
    assert answer(python(code, tmp_path / "lock")) == "True"


def test_of_many_threads_that_want_a_lock_one_gets_it(tmp_path: Path) -> None:
    code = """
import sys, threading
from pathlib import Path
from kernel.files import *
sys.setswitchinterval(1e-6)
file = Path(sys.argv[1])
for _ in range(300):
    begin, locks = threading.Barrier(8), []
    def work():
        begin.wait()
        locks.append(acquire(file))
        holder(file)
    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    (lock,) = [lock for lock in locks if lock is not None]
    lock.release()
print("one each time")
"""
    assert answer(python(code, tmp_path / "lock")) == "one each time"


def test_a_look_of_one_thread_does_not_lose_the_lock_that_another_takes(tmp_path: Path) -> None:
    """A look opens and closes the file, and a close would drop a lock that was taken in between."""
    file = tmp_path / "lock"
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            holder(file)
            note_of(file)

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for thread in lookers:
        thread.start()
    try:
        probing = python(LOOK + "\nfor line in sys.stdin: print(holder(file) == int(line), flush=True)", file)
        for _ in range(200):
            lock = acquire(file)
            assert lock is not None
            assert probing.stdin is not None
            probing.stdin.write(f"{os.getpid()}\n")
            probing.stdin.flush()
            assert line_of(probing) == "True"
            lock.release()
    finally:
        done.set()
        for thread in lookers:
            thread.join()
        probing.communicate()


def test_a_fork_in_the_middle_of_a_look_leaves_the_child_able_to_look(tmp_path: Path) -> None:
    code = """
import os, sys, threading
from pathlib import Path
from kernel.files import *
file = Path(sys.argv[1])
file.touch()
def look():
    while True:
        holder(file)
for _ in range(4):
    threading.Thread(target=look, daemon=True).start()
for _ in range(200):
    child = os.fork()
    if not child:
        assert holder(file) is None
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
print("each child has looked")
os._exit(0)
"""
    process = python(code.replace("os._exit(0)\n", "sys.stdout.flush(); os._exit(0)\n"), tmp_path / "lock")
    assert process.communicate(timeout=60)[0].strip() == "each child has looked"


MOUNTS = r"""22 28 0:21 / /proc rw,nosuid shared:14 - proc proc rw
28 1 259:2 / / rw,relatime shared:1 - ext4 /dev/root rw
40 28 0:44 / /home rw,relatime shared:22 - nfs4 server:/home rw,vers=4.2
41 40 0:45 / /home/me/scratch\040disk rw - lustre 10.0.0.1@tcp:/scratch rw
42 40 8:1 / /home/me/local rw - xfs /dev/sda1 rw
43 28 0:46 / /mnt/shared rw - ext4 /dev/sdb1 rw
44 28 0:47 / /mnt/shared rw master:3 propagate_from:2 - fuse.sshfs me@host:/data rw
a line that means nothing
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/runs", "ext4"),
        ("/home", "nfs4"),
        ("/home/me/.stepreel", "nfs4"),
        ("/home/me/scratch disk/runs", "lustre"),
        ("/home/me/scratch", "nfs4"),
        ("/home/me/local/runs", "xfs"),
        ("/homework", "ext4"),
        ("/mnt/shared/x", "fuse.sshfs"),
    ],
)
def test_the_deepest_and_latest_mount_tells_the_file_system(path: str, kind: str) -> None:
    assert file_system(Path(path), MOUNTS) == kind


def test_a_table_without_the_root_tells_nothing() -> None:
    assert file_system(Path("/x"), "") == ""


def test_a_local_disk_is_no_network_and_needs_not_exist_yet(tmp_path: Path) -> None:
    assert on_network(tmp_path / "not" / "there") is None
    if Path("/proc/self/mountinfo").exists():
        assert on_network(Path("/proc/self")) is None
        assert file_system(Path("/proc/self"), Path("/proc/self/mountinfo").read_text()) == "proc"
