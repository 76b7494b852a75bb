"""The server: uvicorn on a socket of ours, from the start to an end that nothing open holds up."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import getpass
import os
import secrets
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import uvicorn

from plugins.viewer.files import odd_file_in
from plugins.viewer.gate import Gate
from plugins.viewer.routes import Site
from plugins.viewer.settings import LOOPBACK, PORTS, Ready

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from plugins.viewer.settings import Settings

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT_BYTES = 32 * 1024 * 1024
"""The most that glibc takes."""
STOP_SECONDS = 0.3
"""How long an answer that is being sent may take when the viewer stops."""


class CannotServe(Exception):
    """The address or the home cannot be used. Its text says why, and the way out."""


class Server(uvicorn.Server):
    """Uvicorn, without its hands on the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def __init__(self, config: uvicorn.Config, site: Site) -> None:
        super().__init__(config)
        self._site = site

    def stop(self) -> None:
        """Stop, in a moment at most, whatever is being sent or made."""
        self.should_exit = True
        self._site.close()
        asyncio.get_running_loop().call_later(STOP_SECONDS, setattr, self, "force_exit", True)


async def serve(settings: Settings, ready: Callable[[Ready], None]) -> None:
    """Serve until a signal, or the end of a kernel's pipe. Raises `CannotServe`."""
    odd = odd_file_in(Path(settings.home))
    if odd is not None:
        raise CannotServe(f"{odd}: is no regular file, so this is no home that a kernel made")
    token = settings.token or secrets.token_urlsafe(24)
    _keep_freed_memory()
    with listen(settings) as listening:
        port = int(listening.getsockname()[1])
        site = Site(settings)
        config = uvicorn.Config(
            Gate(site.app(), settings, port, token),
            http="h11",
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            timeout_graceful_shutdown=1,
            ws_max_size=64 * 1024,
            ws_per_message_deflate=False,
            h11_max_incomplete_event_size=64 * 1024,
        )
        server = Server(config, site)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_obey_signals, server)
            if settings.follow_parent:
                tasks.start_soon(_follow_parent, server, site)
            tasks.start_soon(site.streams.run)
            ready(Ready(url=url_of(settings, port, token), ssh=ssh_of(port)))
            await server.serve(sockets=[listening])
            tasks.cancel_scope.cancel()
        await site.asking.close()


def _keep_freed_memory() -> None:
    """Where glibc is: use freed memory again. To be given fresh pages for each picture took a fifth of our time."""
    with contextlib.suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


@contextlib.contextmanager
def listen(settings: Settings) -> Iterator[socket.socket]:
    """A socket on the wished port, or where that is taken on one of the next. Raises `CannotServe`."""
    family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
    candidates = range(settings.port, settings.port + PORTS) if settings.port else (0,)
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for port in candidates:
            try:
                listening.bind((settings.address, port))
                listening.listen(128)
                listening.setblocking(False)
            except OSError as failure:
                if failure.errno != errno.EADDRINUSE:
                    raise CannotServe(f"{settings.address}:{port}: {failure.strerror}") from None
                continue
            yield listening
            return
    raise CannotServe(
        f"{settings.address}: the ports {settings.port} to {candidates[-1]} are all in use. Choose another `port`."
    )


def url_of(settings: Settings, port: int, token: str) -> str:
    """What to open in a browser."""
    address = LOOPBACK if settings.address in ("0.0.0.0", "::") else settings.address  # noqa: S104 - it is not bound here
    return f"http://{f'[{address}]' if ':' in address else address}:{port}/?token={token}"


def ssh_of(port: int) -> str:
    """The command for one's own machine, where this one is reached by ssh."""
    try:
        user = f"{getpass.getuser()}@"
    except (KeyError, OSError):
        user = ""
    return f"ssh -N -L {port}:{LOOPBACK}:{port} {user}{socket.gethostname()}"


async def _obey_signals(server: Server) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async for _ in signals:
            server.stop()


async def _follow_parent(server: Server, site: Site) -> None:
    """Take what the kernel alone knows; stop when it closes the pipe, or has died."""
    while True:
        await anyio.wait_readable(sys.stdin.fileno())
        received = os.read(sys.stdin.fileno(), 65536)
        if not received:
            server.stop()
            return
        with contextlib.suppress(ValueError):  # a line that was torn is one measurement less
            site.take_lag(float(received.split()[-1]))
