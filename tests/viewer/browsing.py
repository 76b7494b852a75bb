"""A viewer's process, and a client that asks it as the page does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

TOKEN = "test-token"  # noqa: S105 - it opens nothing but a test's own server
DEADLINE_SECONDS = 60.0
ENVIRONMENTS = Path(__file__).parent.parent / "environments"


class Browser:
    """What is known to somebody who opened the URL with the token."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = httpx.Client(base_url=url, timeout=DEADLINE_SECONDS)
        answer = self.client.get("/", params={"token": TOKEN})
        assert answer.status_code == 303, answer.text
        self.cookie = "; ".join(f"{name}={value}" for name, value in self.client.cookies.items())

    def close(self) -> None:
        self.client.close()

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        return self.client.get(path, params=parameters or None)

    def json(self, path: str, **parameters: Any) -> Any:
        answer = self.get(path, **parameters)
        assert answer.status_code == 200, (answer.status_code, answer.text)
        return answer.json()

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return self.client.request(method, path, json=body or {}, headers={"Origin": self.url, **headers})

    def columns(self, path: str, **parameters: Any) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
        """The header of a binary answer, and its columns by name."""
        content = self.get(path, **parameters).content
        assert content[:4] == b"SRC1", content[:200]
        length = int.from_bytes(content[4:8], "little")
        header = json.loads(content[8 : 8 + length])
        kinds = {"f64": "<f8", "i32": "<i4", "u8": "u1"}
        found = {}
        for column in header["columns"]:
            assert column["offset"] % 8 == 0
            found[column["name"]] = np.frombuffer(content, kinds[column["kind"]], column["length"], column["offset"])
        return header, found

    @contextmanager
    def stream(self, after: int | None = None) -> Iterator[Stream]:
        address = self.url.replace("http", "ws") + "/ws"
        with connect(
            address, additional_headers={"Cookie": self.cookie}, origin=Origin(self.url), close_timeout=0.5
        ) as socket:
            stream = Stream(socket)
            stream.say(type="subscribe", after=after)
            yield stream


class Stream:
    """A page's WebSocket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.hello = json.loads(socket.recv(DEADLINE_SECONDS))

    def say(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def messages(self) -> Iterator[Any]:
        """What comes, for ever: dicts, and pictures as (header, JPEG)."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            received = self.socket.recv(deadline - time.monotonic())
            if isinstance(received, str):
                yield json.loads(received)
            else:
                length = int.from_bytes(received[:4], "little")
                yield json.loads(received[4 : 4 + length]), received[4 + length :]
        raise TimeoutError

    def events(self, count: int) -> list[dict[str, Any]]:
        """The next so many events."""
        found: list[dict[str, Any]] = []
        for message in self.messages():
            if isinstance(message, dict) and message["type"] == "events":
                found += message["records"]
                if len(found) >= count:
                    return found
        raise AssertionError("no end")

    def first(self, wanted: Callable[[Any], bool]) -> Any:
        """The first message that is wanted."""
        return next(message for message in self.messages() if wanted(message))


@contextmanager
def served(home: Path, *arguments: str, prefix: Sequence[str] = ()) -> Iterator[Browser]:
    """`python -m plugins.viewer HOME`, and who looks at it."""
    port = () if "--port" in arguments else ("--port", "0")
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "plugins.viewer", str(home), *port, *arguments],
        env={**os.environ, "STEPREEL_VIEWER_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        with closing(Browser(process.stdout.readline().partition("/?token=")[0])) as browser:
            yield browser
    finally:
        process.kill()
        process.communicate()


CONFIG = """
home = "{home}"
[plugins.collector]
use = "plugins.collector:Collector"
poll_seconds = 0.02
[plugins.encoder]
use = "plugins.encoder_pool:EncoderPool"
[plugins.sqlite]
use = "plugins.sqlite_sink:SqliteSink"
[plugins.pruner]
use = "plugins.pruner:Pruner"
[plugins.viewer]
use = "plugins.viewer:Viewer"
port = 0
[plugins.runner]
use = "plugins.env_runner:EnvRunner"
env = "Bars-v0"
import = ["bars"]
workers = 1
episodes = 0
seed = 1
env_kwargs = {{ length = 200, step_seconds = 0.005 }}
capture = {{ mode = "off" }}
"""


class Run:
    """A kernel with the viewer on, and who looks at it."""

    def __init__(self, home: Path, process: subprocess.Popen[str], browser: Browser) -> None:
        self.home = home
        self.process = process
        self.browser = browser


@contextmanager
def running_kernel(folder: Path, config: str = CONFIG) -> Iterator[Run]:
    """A kernel that steps Bars until it is stopped; its home is `folder/home`."""
    file = folder / "run.toml"
    file.write_text(config.format(home=folder / "home"))
    errors = folder / "errors"
    with errors.open("w") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "kernel", str(file)],
            env={**os.environ, "PYTHONPATH": str(ENVIRONMENTS), "STEPREEL_VIEWER_TOKEN": TOKEN},
            stdout=subprocess.DEVNULL,
            stderr=written,
            text=True,
        )
    try:
        until(lambda: "viewer: http" in errors.read_text() or process.poll() is not None)
        said = errors.read_text()
        assert "viewer: http" in said, said
        with closing(Browser(said.partition("viewer: ")[2].partition("/?token=")[0])) as browser:
            yield Run(folder / "home", process, browser)
    finally:
        process.kill()
        process.wait()


def until(holds: Callable[[], Any], seconds: float = DEADLINE_SECONDS) -> Any:
    """Wait until something holds, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)
    return found
