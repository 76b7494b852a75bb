"""The home of a script: where it is, how it is made, and which folders are refused."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import plugins.recorder.home
from plugins.recorder.home import HomeUnusable, find_home, network_warning, prepare_home

if TYPE_CHECKING:
    from collections.abc import Callable

NOBODY = 65534
ROOT = os.geteuid() == 0


def as_nobody(work: Callable[[], None]) -> str:
    """What is raised where a user without any rights does this; empty where nothing is."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        text = ""
        try:
            if ROOT:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            work()
        except Exception as error:  # noqa: BLE001 - the parent looks at it
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        text = said.read()
    os.waitpid(child, 0)
    return text


@pytest.fixture
def open_path(tmp_path: Path) -> Path:
    """A folder that everybody may look into and write to."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    everybodys = tmp_path / "everybodys"
    everybodys.mkdir()
    everybodys.chmod(0o777)
    return everybodys


def test_the_argument_comes_before_the_variable_and_that_before_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STEPREEL_HOME", raising=False)
    assert find_home(None) == tmp_path / ".stepreel"
    monkeypatch.setenv("STEPREEL_HOME", "runs/home")
    assert find_home(None) == tmp_path / "runs" / "home"
    assert find_home("mine") == tmp_path / "mine"
    assert find_home(tmp_path / "other") == tmp_path / "other"
    monkeypatch.setenv("STEPREEL_HOME", "")
    assert find_home(None) == tmp_path / ".stepreel"
    assert list(tmp_path.iterdir()) == [], "nothing is created"


def test_a_new_home_is_its_users_alone_and_out_of_gits_sight(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    home = repository / "runs" / ".stepreel"
    prepare_home(home)
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / ".gitignore").read_text() == "*\n"
    git = shutil.which("git")
    assert git is not None
    subprocess.run([git, "init", "-q", str(repository)], check=True)
    status = subprocess.run([git, "-C", str(repository), "status", "--porcelain"], capture_output=True, check=True)
    assert status.stdout == b""


def test_a_folder_that_is_there_is_used_as_it_is(tmp_path: Path) -> None:
    home = tmp_path / "data"
    home.mkdir(mode=0o755)
    (home / "mine.txt").write_text("mine")
    prepare_home(home)
    prepare_home(home)
    assert home.stat().st_mode & 0o777 == 0o755
    assert not (home / ".gitignore").exists()
    assert (home / "mine.txt").read_text() == "mine"


def test_many_that_come_at_once_all_find_it_made(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b" / ".stepreel"
    errors: list[Exception] = []
    begin = threading.Barrier(16)

    def work() -> None:
        begin.wait()
        try:
            prepare_home(home)
        except Exception as error:  # noqa: BLE001 - the main thread looks at it
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert (home / ".gitignore").exists()


@pytest.mark.parametrize("home", ["file", "file/.stepreel", "file/deep/er/.stepreel"])
def test_a_file_in_its_place_is_named(tmp_path: Path, home: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HomeUnusable, match=rf"{re.escape(str(tmp_path / 'file'))} is a file.*home=.*STEPREEL_HOME"):
        prepare_home(tmp_path / home)


def test_a_folder_that_cannot_be_written_is_refused(open_path: Path) -> None:
    home = open_path / ".stepreel"

    def work() -> None:
        home.mkdir()
        home.chmod(0o500)
        prepare_home(home)

    said = as_nobody(work)
    assert said.startswith(f"HomeUnusable: {home}: is not writable for this user.")
    assert "STEPREEL_HOME" in said


def test_a_home_that_cannot_be_made_is_refused(open_path: Path) -> None:
    open_path.chmod(0o555)
    home = open_path / "runs" / ".stepreel"
    said = as_nobody(lambda: prepare_home(home))
    assert said.startswith(f"HomeUnusable: {home}: Permission denied.")


@pytest.mark.skipif(not ROOT, reason="only root can give a folder away")
@pytest.mark.parametrize("mode", [0o700, 0o777])
def test_a_home_of_another_user_is_never_used(open_path: Path, mode: int) -> None:
    home = open_path / ".stepreel"
    home.mkdir()
    home.chmod(mode)
    said = as_nobody(lambda: prepare_home(home))
    assert said.startswith(f"HomeUnusable: {home}: belongs to another user."), "also where everybody may write to it"
    os.chown(home, NOBODY, NOBODY)
    with pytest.raises(HomeUnusable, match="belongs to another user"):
        prepare_home(home)  # root could, and would leave files there that its user cannot remove
    assert list(home.iterdir()) == []
    assert as_nobody(lambda: prepare_home(home)) == "", "its own user may"


def test_a_file_system_that_shows_all_files_as_anothers_is_not_refused_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network does that maps its users: what this user makes is shown as the same stranger's."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    (tmp_path / "home").mkdir()
    prepare_home(tmp_path / "home")
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["start.lock"]


def test_a_network_is_told_and_a_local_disk_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert network_warning(tmp_path) is None
    monkeypatch.setattr(plugins.recorder.home, "on_network", lambda _: "nfs4")
    sentence = network_warning(tmp_path)
    assert sentence is not None
    assert f"{tmp_path} is on a network file system (nfs4)" in sentence
    assert "STEPREEL_HOME" in sentence
