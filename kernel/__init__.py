"""A microkernel on asyncio: it appends typed events to a log and routes them between plugins.

The names below are resolved when they are used, so that `import kernel.event` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernel.event import Event as Event
    from kernel.event import Record as Record
    from kernel.event import UnknownEvent as UnknownEvent
    from kernel.log import follow as follow
    from kernel.log import read as read
    from kernel.plugin import Options as Options
    from kernel.plugin import Plugin as Plugin
    from kernel.plugin import Refused as Refused
    from kernel.plugin import on as on
    from kernel.plugin import on_batch as on_batch

_HOMES = {
    "Event": "kernel.event",
    "Record": "kernel.event",
    "UnknownEvent": "kernel.event",
    "follow": "kernel.log",
    "read": "kernel.log",
    "Options": "kernel.plugin",
    "Plugin": "kernel.plugin",
    "Refused": "kernel.plugin",
    "on": "kernel.plugin",
    "on_batch": "kernel.plugin",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kernel' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
