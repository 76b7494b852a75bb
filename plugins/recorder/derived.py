"""What classes that users derive from our wrappers do themselves: they were written for the library's own.

Many draw into the pictures, or do something with the file behind the end of a recording. Some have a copy of the
library's code in them, which encodes `recorded_frames` itself.
"""

from __future__ import annotations

from types import CodeType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OURS = "plugins.recorder."
FRAMES = "recorded_frames"
ADDING = ("append", "extend")


def has_own(wrapper: type, method: str) -> bool:
    """Whether a derived class has this method of ours itself."""
    return any(method in names for names in _own_names(wrapper))


def reads_frames(wrapper: type) -> bool:
    """Whether a derived class looks at `recorded_frames`, as who encodes or counts them does.

    One that only adds pictures to them, or empties them, does not.
    """
    for names in _own_names(wrapper):
        for value in names.values():
            function = getattr(value, "fget", value)  # of a property
            while hasattr(function, "__wrapped__"):  # of a decorator
                function = function.__wrapped__
            code = getattr(function, "__code__", None)
            if isinstance(code, CodeType) and _reads(code):
                return True
    return False


def _own_names(wrapper: type) -> Iterator[Mapping[str, Any]]:
    """What each class in front of the first of ours has in it."""
    for base in wrapper.__mro__:
        if base.__module__.startswith(OURS):
            break
        yield vars(base)


def _reads(code: CodeType) -> bool:
    from dis import get_instructions  # noqa: PLC0415 - needed for derived classes alone

    had: Any = None
    for instruction in get_instructions(code):
        if had == FRAMES and instruction.argval not in ADDING:
            return True
        had = instruction.argval if instruction.opname.startswith("LOAD") else None
    return any(_reads(inner) for inner in code.co_consts if isinstance(inner, CodeType))
