"""Descriptions: environments, spaces and sessions in plain words, for the event that begins a session."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from plugins.events import Space
from plugins.recorder.values import small

LOADED = ("ale_py", "Box2D", "mujoco", "pettingzoo", "pygame", "stable_baselines3", "torch")
"""Their versions are told where a script has loaded them."""


def in_words(space: Any) -> Space | None:
    """A Gymnasium space; None for what is none."""
    if space is None or not hasattr(space, "contains"):
        return None
    return Space(
        kind=type(space).__name__,
        shape=None if space.shape is None else [int(length) for length in space.shape],
        dtype=None if space.dtype is None else str(space.dtype),
        description=repr(space)[:1024],
    )


def env_id_of(env: Any) -> str:
    """The environment's id, else the name of its innermost class."""
    spec = getattr(env, "spec", None)
    if spec is not None and getattr(spec, "id", None):
        return str(spec.id)
    name = getattr(env, "metadata", {}).get("name")  # PettingZoo's
    return str(name) if name else type(getattr(env, "unwrapped", env)).__name__


def plain_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments as a session tells them: numbers and texts as they are, functions and objects by their names."""
    named: dict[str, Any] = {}
    for key, value in arguments.items():
        named[key] = getattr(value, "__name__", "function") if callable(value) else small(value, key, {})
    return named


def script_label() -> str:
    """What to call the running script: the name of its file."""
    first = sys.argv[0] if sys.argv else ""
    return "" if first in ("", "-c", "-m") else Path(first).name


def versions() -> dict[str, str]:
    """What a script runs with."""
    known = {"python": sys.version.split()[0]}
    for name in ("stepreel", "gymnasium", "numpy", *(name for name in LOADED if name in sys.modules)):
        with suppress(PackageNotFoundError):
            known[name] = version(name)
    return known
