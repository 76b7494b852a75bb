"""Loading what a configuration names as "module:name", and saying in a sentence what was wrong with it."""

from __future__ import annotations

import difflib
import importlib
import traceback
from pathlib import Path
from typing import Any


class Unusable(Exception):
    """The environment or the policy cannot be used as the options ask. Its text begins with the key to mend."""


def load(key: str, path: str) -> Any:
    """What "module:name" means. Raises `Unusable` for the option `key` where it means nothing."""
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise Unusable(f'{key}: "{path}" is not written as "module:name"')
    found: Any = import_module(key, module_name)
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=1)
            meant = f' (did you mean "{near[0]}"?)' if near else ""
            raise Unusable(f'{key}: there is no "{part}" in {module_name}{meant}')
        found = getattr(found, part)
    return found


def import_module(key: str, name: str) -> Any:
    """Import a module for the option `key`. Raises `Unusable` where that fails."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Unusable(
            f'{key}: there is no module "{error.name}" to import for "{name}"; install it, or correct the name'
        ) from None
    except Exception as error:
        raise Unusable(f'{key}: importing "{name}" raised {said(error)}') from error


def said(error: BaseException) -> str:
    """An error in one line: its class, its text, and the place in the file that raised it."""
    text = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"
