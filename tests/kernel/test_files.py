"""Files appear whole, and locks die with their process."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from kernel.files import acquire, write_all, write_whole
from tests.kernel.ticks import answer, line_of, python

if TYPE_CHECKING:
    from pathlib import Path

ACQUIRE = "import sys; from pathlib import Path; from kernel.files import acquire; lock = acquire(Path(sys.argv[1])); "


def held_elsewhere(file: Path) -> bool:
    """Whether another process finds the lock held."""
    return answer(python(ACQUIRE + "print(lock is None)", file)) == "True"


def in_a_fork(work: str, file: Path) -> str:
    """Take the lock, fork, and let the child do this work, before the parent says who holds the lock."""
    code = (
        ACQUIRE
        + f"""
import os, subprocess
child = os.fork()
if not child:
    {work}
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
look = "import sys; from pathlib import Path; from kernel.files import acquire; "
look += "print(acquire(Path(sys.argv[1])) is None)"
print(subprocess.run([sys.executable, "-c", look, sys.argv[1]], capture_output=True, text=True).stdout.strip())
"""
    )
    return answer(python(code, file))


@pytest.mark.parametrize("lasting", [True, False])
def test_a_reader_sees_the_old_content_or_the_new_and_nothing_between(tmp_path: Path, *, lasting: bool) -> None:
    file = tmp_path / "file"
    contents = [bytes([letter]) * 500_000 for letter in b"ab"]
    write_whole(file, contents[0], lasting=lasting)
    done = threading.Event()
    seen: set[bytes] = set()

    def look() -> None:
        while not done.is_set():
            seen.add(file.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    for round_ in range(40):
        write_whole(file, contents[round_ % 2], lasting=lasting)
    done.set()
    reader.join()
    assert seen <= set(contents)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
from kernel.files import write_whole
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_whole(Path(sys.argv[1]), bytes(5000), lasting=True)
except OSError as error:
    print(error.strerror)
"""
    (tmp_path / "file").write_bytes(b"old")
    assert answer(python(code, tmp_path / "file")) == "File too large"
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_write_all_goes_on_after_short_writes() -> None:
    reading, writing = os.pipe()
    content = os.urandom(1_000_000)  # a pipe takes 64 KiB at a time
    received: list[bytes] = []

    def drain() -> None:
        while block := os.read(reading, 10_000):
            received.append(block)

    reader = threading.Thread(target=drain)
    reader.start()
    write_all(writing, content)
    os.close(writing)
    reader.join()
    os.close(reading)
    assert b"".join(received) == content


def test_a_second_process_is_refused_until_the_first_releases(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    lock = acquire(file)
    assert lock is not None
    assert held_elsewhere(file)
    lock.release()
    assert not held_elsewhere(file)


def test_the_own_process_is_refused_without_losing_the_lock(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    lock = acquire(file)
    assert lock is not None
    (tmp_path / "sub").mkdir()
    assert acquire(file) is None
    assert acquire(tmp_path / "sub" / ".." / "lock") is None
    assert held_elsewhere(file)  # a second descriptor that was closed would have dropped it
    lock.release()


def test_release_twice_is_harmless(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    first = acquire(file)
    assert first is not None
    first.release()
    second = acquire(file)
    assert second is not None
    first.release()
    assert held_elsewhere(file)
    second.release()


def test_a_forked_child_does_not_hold_its_parents_lock(tmp_path: Path) -> None:
    code = (
        ACQUIRE
        + """
import os, time
if not os.fork():
    os.close(1)
    os.close(2)
    sys.stdin.read()  # until the test ends it
    os._exit(0)
print("forked", flush=True)
os.kill(os.getpid(), 9)
"""
    )
    parent = python(code, tmp_path / "lock")
    assert line_of(parent) == "forked"
    parent.wait(10)
    assert not held_elsewhere(tmp_path / "lock")
    parent.communicate()


@pytest.mark.parametrize(
    "work",
    [
        "pass",
        "lock.release()",
        "assert acquire(Path(sys.argv[1])) is None; import kernel.files; assert not kernel.files._held",
    ],
)
def test_nothing_that_a_forked_child_does_frees_its_parents_lock(tmp_path: Path, work: str) -> None:
    assert in_a_fork(work, tmp_path / "lock") == "True"


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    holder = python(ACQUIRE + "print(lock is not None, flush=True); sys.stdin.read()", file)
    assert line_of(holder) == "True"
    assert acquire(file) is None
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    lock = acquire(file)
    assert lock is not None
    lock.release()


def test_a_lock_whose_folder_was_renamed_is_known_by_its_new_path(tmp_path: Path) -> None:
    (tmp_path / ".building").mkdir()
    lock = acquire(tmp_path / ".building" / "lock")
    assert lock is not None
    (tmp_path / ".building").rename(tmp_path / "built")
    lock.moved(tmp_path / "built" / "lock")
    assert acquire(tmp_path / "built" / "lock") is None
    assert held_elsewhere(tmp_path / "built" / "lock")
    (tmp_path / ".building").mkdir()
    other = acquire(tmp_path / ".building" / "lock")
    assert other is not None
    other.release()
    lock.release()
    assert not held_elsewhere(tmp_path / "built" / "lock")


def test_a_lock_file_that_cannot_be_opened_is_an_error_and_no_refusal(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        acquire(tmp_path / "missing" / "lock")
