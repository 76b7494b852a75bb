"""How one viewer process is set up: what its plugin, or its command line, tells it."""

from __future__ import annotations

import msgspec

PORT = 8642
PORTS = 20
"""Where the port is taken, one of the next so many is used."""
LOOPBACK = "127.0.0.1"
TOKEN = "STEPREEL_VIEWER_TOKEN"  # noqa: S105 - the name of an environment variable
"""Says what the URL's token is to be, so that it stays the same from one start to the next."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a viewer process has to know."""

    home: str
    """An absolute path."""
    database: str = "stepreel.sqlite"
    """Relative to the home, or absolute."""
    address: str = LOOPBACK
    port: int = PORT
    """0: any that is free."""
    hosts: list[str] = []
    """Names, beside those of the loopback, under which a browser may reach it."""
    folders: list[str] = []
    """Folders outside of the home whose videos may be shown; absolute."""
    frame_cache: int = 5
    """How many of a worker's last pictures are kept, while somebody watches it."""
    token: str = ""
    """What the URL must say; empty: one is drawn at the start."""
    follow_parent: bool = False
    """It belongs to a kernel: it ends when its standard input does, and reads there what only the kernel knows."""


class Ready(msgspec.Struct, frozen=True):
    """What a viewer process says on standard output as soon as it listens, in one line of JSON."""

    url: str
    ssh: str
    """A command for one's own machine that makes the URL work there."""
    refused: str = ""
    """Why it cannot listen; then there is nothing else."""
