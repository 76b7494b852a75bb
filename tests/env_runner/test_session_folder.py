from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kernel.files import acquire
from plugins.recorder.sessions import open_session, read_owner, sessions_folder

ROOT = Path(__file__).parents[2]

OTHER_PROCESS = """
import sys
from pathlib import Path
from kernel.files import acquire
from plugins.recorder.sessions import open_session
home, what = Path(sys.argv[1]), sys.argv[2]
if what == "look":
    print(acquire(home / "sessions" / "s1" / "lock") is not None)
else:
    open_session(home, "s1", "script")
    import os
    os.kill(os.getpid(), 9)
"""


def another_process(home: Path, what: str) -> str:
    command = [sys.executable, "-c", OTHER_PROCESS, str(home), what]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False).stdout.strip()


def test_an_open_session_is_locked_until_its_owner_says_how_it_ended(home: Path) -> None:
    session = open_session(home, "s1", "runner")
    owner = read_owner(session.folder)
    assert owner is not None
    assert (owner.session, owner.kind, owner.outcome) == ("s1", "runner", None)
    assert another_process(home, "look") == "False"
    assert acquire(session.folder / "lock") is None
    session.end("stopped")
    session.end("failed")
    owner = read_owner(session.folder)
    assert owner is not None
    assert owner.outcome == "stopped"
    assert another_process(home, "look") == "True"


def test_the_session_of_a_killed_owner_has_no_outcome_and_no_lock(home: Path) -> None:
    another_process(home, "be killed")
    folder = sessions_folder(home) / "s1"
    owner = read_owner(folder)
    assert owner is not None
    assert owner.outcome is None
    lock = acquire(folder / "lock")
    assert lock is not None
    lock.release()


def test_a_session_is_begun_once(home: Path) -> None:
    open_session(home, "s1", "runner").end("finished")
    with pytest.raises(FileExistsError, match="the session s1 was begun before"):
        open_session(home, "s1", "runner")
