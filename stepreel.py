"""The import name for training scripts: the recording wrappers, `Keep`, and `install()`.

Each name is resolved when it is used: `import stepreel` costs next to nothing, and a library is only asked for by the
wrapper that needs it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plugins.events import Keep
    from plugins.recorder.install import install
    from plugins.recorder.pettingzoo import PettingZooRecordVideo, PettingZooRecordVideoParallel
    from plugins.recorder.sb3 import VecVideoRecorder
    from plugins.recorder.vector import RecordVideoVector
    from plugins.recorder.wrappers import RecordVideo

__all__ = [
    "Keep",
    "PettingZooRecordVideo",
    "PettingZooRecordVideoParallel",
    "RecordVideo",
    "RecordVideoVector",
    "VecVideoRecorder",
    "install",
]

_HOMES = {
    "Keep": "plugins.events",
    "PettingZooRecordVideo": "plugins.recorder.pettingzoo",
    "PettingZooRecordVideoParallel": "plugins.recorder.pettingzoo",
    "RecordVideo": "plugins.recorder.wrappers",
    "RecordVideoVector": "plugins.recorder.vector",
    "VecVideoRecorder": "plugins.recorder.sb3",
    "install": "plugins.recorder.install",
}

_LIBRARIES = {
    "plugins.recorder.pettingzoo": ("pettingzoo", "PettingZoo", "pip install pettingzoo"),
    "plugins.recorder.sb3": ("stable_baselines3", "Stable-Baselines3", "pip install stable-baselines3"),
}
"""What a module needs beside Gymnasium: its import name, its name, and the way to it."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'stepreel' has no attribute {name!r}")
    home = _HOMES[name]
    if home in _LIBRARIES:
        library, spoken, way = _LIBRARIES[home]
        if importlib.util.find_spec(library) is None:
            raise ImportError(f"stepreel.{name} needs {spoken}, which is not installed here: {way}")
    _refuse_namesakes()
    found = globals()[name] = getattr(importlib.import_module(home), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


def _refuse_namesakes() -> None:
    """Say in one sentence where another `kernel` or `plugins` is found before ours, and the way out.

    Under `stepreel exec` a finder (plugins/recorder/install.py) finds in ours what theirs lacks, so theirs may stand
    first there, unless it is a single file or has a module of the same name as one of ours.
    """
    for package in ("kernel", "plugins"):
        ours = Path(__file__).resolve().parent / package
        try:
            spec = importlib.util.find_spec(package)
        except ValueError:
            raise ImportError(f'a module "{package}" made by hand hides Stepreel\'s: give it another name') from None
        folders = list(spec.submodule_search_locations or ()) if spec else []
        if spec is None or any(Path(folder).resolve() == ours for folder in folders):
            continue
        modules = {file.stem for file in ours.iterdir() if file.suffix in (".py", "") and file.name[0] != "_"}
        same = [found for name in sorted(modules) if (found := PathFinder.find_spec(name, folders))]
        both = bool(folders) and not same
        if both and any(type(finder).__name__ == "BesideNamesakes" for finder in sys.meta_path):
            continue
        way = 'rename it, or start the script with "stepreel exec", which finds both' if both else "rename it"
        raise ImportError(f'{folders[0] if folders else spec.origin} hides Stepreel\'s own package "{package}": {way}')


_refuse_namesakes()
