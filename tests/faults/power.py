"""Power losses in a model: what code did to a folder is watched, and each state that a power loss may leave is built.

The watch notes what changes between any two of the code's calls that make, rename, remove, truncate or sync files, be
it written by Python, by ffmpeg or in C. What the model takes for safe is only what was asked for:

- the content of a file, as it was when `fsync` was called on it;
- a name in a folder, made, renamed or removed, once `fsync` was called on the folder.

Everything else may be there or not: a file's content may be the one that was synced last, the newest, a part of what
was added since, or zeros in its place; names may be new or old, each by itself, in any order across files. A rename
happens whole or not at all.
"""

from __future__ import annotations

import os
import stat
import threading
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

WATCHED = ("open", "close", "rename", "replace", "unlink", "remove", "mkdir", "rmdir", "truncate", "ftruncate", "write")


class Change(NamedTuple):
    """One step: `data` and `synced` are of a file, the others of names in a folder."""

    kind: str
    file: int = 0
    content: bytes = b""
    names: tuple[str, ...] = ()
    """Of a rename the old and the new one, relative to the watched folder."""
    is_folder: bool = False


class Watch:
    """What happens in a folder, step by step."""

    def __init__(self, folder: Path, passed_by: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.steps: list[Change] = []
        self.notes: list[tuple[int, Any]] = []
        """What a test has noted, each with the number of steps before it."""
        self._passed_by = passed_by
        self._turn = threading.RLock()
        self._names: dict[str, tuple[int, bool]] = {}
        self._files = count(1)
        self._known: dict[int, int] = {}
        """The number of each file, by its inode, which another file may have once it is gone."""
        self._stamps: dict[int, tuple[int, int, int]] = {}
        self._contents: dict[int, bytes] = {}
        self._real: dict[str, Callable[..., Any]] = {}

    def note(self, what: Any) -> None:
        """Remember this, as having happened by now."""
        with self._turn:
            self._look()
            self.notes.append((len(self.steps), what))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the block lasts. Nothing is really synced: the model knows what was asked for."""
        self._real = {name: getattr(os, name) for name in (*WATCHED, "fsync")}
        self._look()
        try:
            for name in WATCHED:
                setattr(os, name, self._around(self._real[name]))
            setattr(os, "fsync", self._fsync)  # noqa: B010 - its own type says more than it takes
            yield
        finally:
            for name, function in self._real.items():
                setattr(os, name, function)
            self._look()

    def _around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **keywords: Any) -> Any:
            with self._turn:
                self._look()
                try:
                    return function(*arguments, **keywords)
                finally:
                    self._look()

        return watched

    def _fsync(self, descriptor: int) -> None:
        with self._turn:
            self._look()
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                place = os.path.relpath(Path(f"/proc/self/fd/{descriptor}").readlink(), self.folder)
                self.steps.append(Change("names synced", names=(place,)))
            elif status.st_ino in self._known:
                file = self._known[status.st_ino]
                self.steps.append(Change("synced", file, self._contents.get(file, b"")))

    def _look(self) -> None:
        """Note what is new since the last look."""
        found: dict[str, tuple[int, bool]] = {}
        self._walk("", found)
        still = {file for file, _ in found.values()}
        self._known = {inode: file for inode, file in self._known.items() if file in still}
        gone = {name: was for name, was in self._names.items() if found.get(name, (0,))[0] != was[0]}
        new = {name: now for name, now in found.items() if self._names.get(name, (0,))[0] != now[0]}
        moved = {was[0]: name for name, was in gone.items()}
        for name in sorted(new, key=lambda each: each.count("/")):
            file, is_folder = new.get(name, (0, False))
            old = moved.get(file)
            if name not in new:
                continue  # it came along with its folder
            if old is not None and old in gone:
                self.steps.append(Change("rename", file, names=(old, name), is_folder=is_folder))
                gone.pop(name, None)  # what had the name before is replaced in the same step
                for each in (*gone, *new):
                    if each == old or each.startswith((f"{old}/", f"{name}/")):
                        gone.pop(each, None)
                        new.pop(each, None)
            else:
                self.steps.append(Change("make", file, names=(name,), is_folder=is_folder))
        for name in sorted(gone, key=lambda each: -each.count("/")):
            if name not in found:
                self.steps.append(Change("remove", gone[name][0], names=(name,), is_folder=gone[name][1]))
        self._names = found

    def _walk(self, prefix: str, found: dict[str, tuple[int, bool]]) -> None:
        try:
            entries = sorted(os.scandir(self.folder / prefix), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            name = f"{prefix}{entry.name}"
            if entry.name.startswith(self._passed_by):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            is_folder = stat.S_ISDIR(status.st_mode)
            file = self._known.get(status.st_ino) or next(self._files)
            self._known[status.st_ino] = file
            found[name] = (file, is_folder)
            if is_folder:
                self._walk(f"{name}/", found)
            else:
                self._read(name, file, status)

    def _read(self, name: str, file: int, status: os.stat_result) -> None:
        stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if self._stamps.get(file) == stamp:
            return
        try:
            content = (self.folder / name).read_bytes()
        except FileNotFoundError:
            return
        self._stamps[file] = stamp
        if self._contents.get(file) != content:
            self._contents[file] = content
            self.steps.append(Change("data", file, content))


class _Tree:
    """Names, as a disk may have them."""

    def __init__(self) -> None:
        self.names: dict[str, tuple[int, bool]] = {}

    def apply(self, step: Change) -> None:
        """Do one step, as far as what it needs is there."""
        *_, name = step.names
        parent = name.rpartition("/")[0]
        if parent and not self.names.get(parent, (0, False))[1]:
            return
        if step.kind == "remove":
            if not any(each.startswith(f"{name}/") for each in self.names):
                self.names.pop(name, None)
            return
        if step.kind == "make":
            self.names[name] = (step.file, step.is_folder)
            return
        old = step.names[0]
        if self.names.get(old, (0,))[0] == step.file:
            for each in [each for each in self.names if each.startswith(f"{old}/")]:
                self.names[name + each[len(old) :]] = self.names.pop(each)
            del self.names[old]
        self.names[name] = (step.file, step.is_folder)


def build(steps: list[Change], crash: int, chance: random.Random, target: Path) -> None:
    """Build one of the states that a power loss behind so many steps may leave.

    `chance` also says how much of what was not synced got through: all of it, nothing, or some.
    """
    through = chance.choice((0.0, 0.2, 0.5, 0.8, 1.0))
    tree = _Tree()
    for step in _names_left(steps[:crash], chance, through):
        tree.apply(step)
    synced: dict[int, bytes] = {}
    newest: dict[int, bytes] = {}
    for step in steps[:crash]:
        if step.kind == "data":
            newest[step.file] = step.content
        elif step.kind == "synced":
            synced[step.file] = step.content
    target.mkdir(parents=True)
    for name, (file, is_folder) in sorted(tree.names.items()):
        place = target / name
        if is_folder:
            place.mkdir(exist_ok=True)
        elif place.parent.is_dir():
            place.write_bytes(_content_left(synced.get(file, b""), newest.get(file, b""), chance, through))


def _names_left(steps: list[Change], chance: random.Random, through: float) -> Iterator[Change]:
    """The steps of names that are on disk: those whose folders were synced behind them, and some of the others.

    One that is not keeps back all later ones of the same names, as long as their folder was not synced behind it.
    """
    safe_until = {step.names[0]: place for place, step in enumerate(steps) if step.kind == "names synced"}
    held_back: set[str] = set()
    for place, step in enumerate(steps):
        if step.kind not in ("make", "rename", "remove"):
            continue
        # A rename is on disk where its new name is; the old one may still be there, too, until its folder was synced.
        old, new = (name.rpartition("/")[0] or "." for name in (step.names[0], step.names[-1]))
        safe = safe_until.get(new, -1) > place
        if not safe and (held_back.intersection(step.names) or chance.random() >= through):
            held_back.update(step.names)
            continue
        both = step.kind == "rename" and old != new and not step.is_folder and safe_until.get(old, -1) < place
        yield step._replace(kind="make", names=step.names[1:]) if both and chance.random() >= through else step


def _content_left(synced: bytes, newest: bytes, chance: random.Random, through: float) -> bytes:
    if synced == newest or chance.random() < through:
        return newest
    common = next((place for place, (a, b) in enumerate(zip(synced, newest, strict=False)) if a != b), len(synced))
    common = min(common, len(newest))
    cut = chance.randint(common, len(newest))
    kept = newest[: chance.choice((common, cut))]
    return chance.choice((synced, newest[:cut], kept + bytes(len(newest) - len(kept))))
