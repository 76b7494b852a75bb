"""The viewer as a process of its own: `python -m plugins.viewer HOME`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import cyclopts
import msgspec

from plugins.viewer.settings import LOOPBACK, PORT, TOKEN, Ready, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

MISSING = 'the viewer needs more than the core has: pip install "stepreel[viewer]"'

NICE = 5
"""Beside a kernel: pages wait for the environments, and not the other way round."""

app = cyclopts.App(name="python -m plugins.viewer", version_flags=[], help_format="plaintext")


@app.default
def main(
    home: Path,
    /,
    *,
    port: int = PORT,
    address: str = LOOPBACK,
    host: list[str] | None = None,
    folder: list[Path] | None = None,
    database: Path = Path("stepreel.sqlite"),
    frame_cache: int = 5,
) -> int:
    """Show a home in the browser: beside a kernel that runs on it, or when nothing does.

    Prints the URL to open, and the ssh command for one's own machine where this one is far away. Ctrl-C ends it.

    Parameters
    ----------
    home
        The folder of the kernel's data, or a script's .stepreel.
    port
        Where to listen; the next free one where it is taken. 0: any.
    address
        Where to listen: the loopback, unless you know who else can reach the machine.
    host
        A name, beside localhost, under which the browser reaches it, such as a proxy's. May be repeated.
    folder
        A folder outside of the home whose videos may be shown. May be repeated.
    database
        The tables, relative to the home.
    frame_cache
        How many of a worker's last live pictures can be looked at again.
    """
    if not (home / "home.json").is_file():
        return _complain(f"{home}: is no home of a kernel (it has no home.json); give the `home` of your configuration")
    settings = Settings(
        home=str(home.resolve()),
        database=str(database),
        address=address,
        port=port,
        hosts=host or [],
        folders=[str(each.resolve()) for each in folder or []],
        frame_cache=frame_cache,
        token=os.environ.get(TOKEN, ""),
    )
    return run(settings, show, _complain)


def run(settings: Settings, ready: Callable[[Ready], None], refuse: Callable[[str], int]) -> int:
    """Serve, and return the exit code."""
    try:
        from plugins.viewer.server import CannotServe, serve  # noqa: PLC0415 - for the word where it is not installed
    except ImportError as missing:
        return refuse(f"{MISSING} ({missing})")
    try:
        anyio.run(serve, settings, ready)
    except CannotServe as refused:
        return refuse(str(refused))
    return 0


def show(ready: Ready) -> None:
    """For people."""
    sys.stdout.write(f"{ready.url}\nFrom another machine, first: {ready.ssh}\n")
    sys.stdout.flush()


def _tell(ready: Ready) -> None:
    """For the plugin; it may have ended by now, as a kernel does whose run was short."""
    with suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), msgspec.json.encode(ready) + b"\n")


def _tell_refusal(sentence: str) -> int:
    _tell(Ready("", "", sentence))
    return 2


def _first_line() -> bytes:
    """What the kernel says first, and not a byte more: what follows is for the server to read."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(sys.stdin.fileno(), 1)):
        line += byte
    return line


def _complain(line: str) -> int:
    sys.stderr.write(f"{line}\n")
    return 2


if __name__ == "__main__":
    if sys.argv[1:] == ["--for-kernel"]:  # see `plugin`
        os.nice(NICE)
        sys.exit(run(msgspec.json.decode(_first_line(), type=Settings), _tell, _tell_refusal))
    sys.exit(app())
