"""Installing: from then on, the recording wrappers of Gymnasium, Stable-Baselines3 and PettingZoo are ours.

`install()` does it in a script. In the Pythons that the script starts, and in those of `stepreel exec`, the start-up
file hooks/sitecustomize.py loads this module by its path and calls `watch()`. So each of them pays for what is imported
here, and nothing of `plugins` can be: the name may be the script's.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder

TYPE_CHECKING = False  # a name that type checkers know; importing typing would cost more than the rest of this module
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

SWITCH = "STEPREEL_INSTALL"
"""The environment variable that is 1 where the start-up file has something to do."""

HOOKS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "hooks")
"""The folder of the start-up file, for PYTHONPATH."""

WRAPPERS = {
    "gymnasium.wrappers.rendering": ("RecordVideo", "plugins.recorder.wrappers", "RecordVideo"),
    "gymnasium.wrappers.vector.rendering": ("RecordVideo", "plugins.recorder.vector", "RecordVideoVector"),
    "stable_baselines3.common.vec_env.vec_video_recorder": (
        "VecVideoRecorder",
        "plugins.recorder.sb3",
        "VecVideoRecorder",
    ),
    "pettingzoo.utils.wrappers.record_video": (
        "RecordVideo",
        "plugins.recorder.pettingzoo",
        "PettingZooRecordVideo",
    ),
    "pettingzoo.utils.wrappers.record_video_parallel": (
        "RecordVideoParallel",
        "plugins.recorder.pettingzoo",
        "PettingZooRecordVideoParallel",
    ),
}
"""The modules that define a recording wrapper: its name there; our module, and the name of ours in it."""

_OURS = {home for _, home, _ in WRAPPERS.values()}


def install() -> None:
    """Put our wrappers in the place of theirs: in this process, and in the Pythons that it starts from now on.

    What is imported already is replaced wherever its library offers it; what is imported later, then. No library is
    imported for it. What a script took before (by `from gymnasium.wrappers import RecordVideo`, or as the base of a
    class) stays theirs.
    """
    watch()
    _has_run.update(name for name in WRAPPERS if name in sys.modules)
    _replace()
    os.environ.update(environment())


def environment() -> dict[str, str]:
    """The variables by which a Python that starts with them does the same."""
    folders = os.environ.get("PYTHONPATH", "")
    if HOOKS not in folders.split(os.pathsep):
        folders = HOOKS + os.pathsep + folders if folders else HOOKS
    return {SWITCH: "1", "PYTHONPATH": folders}


def watch() -> None:
    """Replace each wrapper as soon as the module that defines it has run, and ours has."""
    if not any(isinstance(finder, WrapperFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, WrapperFinder())
        sys.meta_path.append(BesideNamesakes())


class WrapperFinder:
    """Finds the modules of `WRAPPERS` as the finders behind it do, and replaces a wrapper when its module has run.

    At that time the packages above it are half imported: their own `from … import RecordVideo` takes ours. Where ours
    is imported first and imports the library in its turn, it is not there yet; so the end of ours is watched, too.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in WRAPPERS and name not in _OURS:
            return None
        behind = sys.meta_path[sys.meta_path.index(self) + 1 :]
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in behind)), None)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_replace(module: ModuleType) -> None:
                run(module)
                if name in WRAPPERS:
                    _has_run.add(name)
                _replace()

            # On this one loader, which so stays of its kind for who asks it for the source.
            spec.loader.exec_module = run_and_replace  # type: ignore[method-assign]  # that is what is meant
        return spec


class BesideNamesakes:
    """Finds our modules where a script's own `plugins` or `kernel` is imported in the place of ours and lacks them.

    It is asked last, and theirs stays as it is: who lists the modules on its `__path__` sees none of ours.
    """

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, module = name.partition(".")
        if package not in ("kernel", "plugins") or not module or "." in module:
            return None
        from importlib.util import find_spec  # noqa: PLC0415 - not at the start of every Python

        stepreel = find_spec("stepreel")  # a Python of another environment may have none
        if stepreel is None or stepreel.origin is None:
            return None
        return PathFinder.find_spec(name, [os.path.join(os.path.dirname(stepreel.origin), package)], target)


_has_run: set[str] = set()
"""Modules whose wrapper is to be replaced: each of them once, so that what the script itself puts there later stays."""


def _replace() -> None:
    """Put ours in the place of theirs: in each module that has run, and in the packages above it that hand it on."""
    for defines in sorted(_has_run):
        name, home, ours = WRAPPERS[defines]
        if home in sys.modules and not hasattr(sys.modules[home], ours):  # half imported, and it comes here at its end
            continue
        _has_run.discard(defines)
        theirs = vars(sys.modules[defines]).get(name)
        wrapper = _ours(ours, f"{defines}.{name}") if theirs is not None else None  # an older version has none
        package = defines if wrapper is not None else ""
        while package:
            names = vars(sys.modules[package])
            if names.get(name) is theirs:
                names[name] = wrapper
            package = package.rpartition(".")[0]


def _ours(name: str, instead_of: str) -> type | None:
    try:
        import stepreel  # noqa: PLC0415 - not at the start of every Python; it refuses where a namesake hides us

        wrapper: type = getattr(stepreel, name)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with ours, the script's own import goes on
        if not (isinstance(error, ModuleNotFoundError) and error.name == "stepreel"):  # as in another environment
            _say_once(f"stepreel: {instead_of} stays as it is: {error}\n", str(error))
        return None
    return wrapper


_said: set[str] = set()


def _say_once(text: str, about: str) -> None:
    if about in _said:
        return
    _said.add(about)
    try:  # noqa: SIM105 - contextlib is not imported at the start of every Python
        sys.stderr.write(text)
    except (AttributeError, OSError, ValueError):  # there is none, or nobody reads it
        pass
