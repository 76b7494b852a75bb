"""The home of a script: where it is, whether it can be used, and what to say of one on a network."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from kernel.files import holder, on_network

WAY_OUT = "Give `home=` another folder, or set STEPREEL_HOME to one."


class HomeUnusable(Exception):
    """This folder cannot be a script's home. Its text names the folder and the way out."""


def find_home(home: str | os.PathLike[str] | None) -> Path:
    """The argument, else `$STEPREEL_HOME`, else `./.stepreel`: an absolute path. Creates nothing."""
    return Path(home or os.environ.get("STEPREEL_HOME") or ".stepreel").expanduser().absolute()


def prepare_home(home: Path) -> None:
    """Make the folder where it is missing, for its user alone and out of git's sight. Raises `HomeUnusable`.

    Takes a fraction of a millisecond on a local disk.
    """
    try:
        if _make(home):
            (home / ".gitignore").write_text("*\n", encoding="ascii")
        elif not _is_mine(home):
            raise HomeUnusable(f"{home}: belongs to another user. {WAY_OUT}")
        if not os.access(home, os.W_OK | os.X_OK):
            raise HomeUnusable(f"{home}: is not writable for this user. {WAY_OUT}")
        _refuse_without_locks(home)
    except (FileExistsError, NotADirectoryError):
        (file, *_) = (place for place in (home, *home.parents) if place.exists())
        raise HomeUnusable(f"{home}: {file} is a file, and no folder. {WAY_OUT}") from None
    except OSError as error:
        raise HomeUnusable(f"{home}: {error.strerror}. {WAY_OUT}") from None


def network_warning(home: Path) -> str | None:
    """One sentence for the user of a home on a network file system; None where it is on none."""
    kind = on_network(home)
    if kind is None:
        return None
    return (
        f"{home} is on a network file system ({kind}): recording works there, more slowly, and its tables are kept "
        "without a write-ahead log. A folder on a local disk is better: give it as `home=`, or set STEPREEL_HOME."
    )


def _make(home: Path) -> bool:
    """Make the folder and those around it; False where it is there."""
    try:
        home.mkdir(mode=0o700)
    except FileNotFoundError:
        home.parent.mkdir(parents=True, exist_ok=True)
        return _make(home)
    except FileExistsError:
        if home.is_dir():
            return False
        raise
    return True


def _is_mine(home: Path) -> bool:
    owner = home.stat().st_uid
    if owner == os.geteuid():
        return True
    if not os.access(home, os.W_OK | os.X_OK):
        return False
    mine = home / f".whose.{os.getpid()}.tmp"  # a network may show all files as somebody else's, those we make, too
    try:
        mine.touch(exist_ok=False)
        return mine.stat().st_uid == owner
    finally:
        mine.unlink(missing_ok=True)


def _refuse_without_locks(home: Path) -> None:
    """Raise `HomeUnusable` where files cannot be locked, which tells the living from the dead."""
    (home / "start.lock").touch()
    try:
        holder(home / "start.lock")
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        raise HomeUnusable(f"{home}: its file system has no file locks ({error.strerror}). {WAY_OUT}") from None
