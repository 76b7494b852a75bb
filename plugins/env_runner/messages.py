"""What the runner and its workers say to each other over their pipes: u32le length, and a msgpack map with its type.

The runner writes to a worker's standard input: an `Examine` or a `Begin` first, and what follows it. The worker writes
to what was its standard output. Where the pipe ends, the other one is gone. (JSON would turn the infinities and dates
that TOML allows in a user's arguments into something else.)
"""

from __future__ import annotations

import struct
from typing import Any, Literal

import msgspec

from plugins.events import CaptureSettings, Keep, Space

# From the runner -------------------------------------------------------------------------------------------------


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """An environment and its policy, as the options ask for them."""

    table: str
    """Where the options stand in the configuration: `plugins.runner`."""
    env: str
    env_kwargs: dict[str, Any]
    imports: list[str]
    wrappers: list[str | dict[str, Any]]
    max_episode_steps: int | None
    policy: dict[str, Any]
    pictures: bool
    """Whether it must be able to draw."""


class Examine(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Make the environment and the policy, try both, answer with `Examined` or `Unusable`, and end."""

    python_path: list[str]
    """The runner's `sys.path`, so that a user's modules are found."""
    spec: Spec


class Begin(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Make the environment and the policy, and step the one with the other."""

    python_path: list[str]
    spec: Spec
    home: str
    session: str
    worker: int
    seed: int
    eval_every: int
    steps: int | None
    """Steps that this process may take; None: no limit."""
    deadline: float | None
    """When to end, on the clock of `time.monotonic`, which all processes share."""
    grace_seconds: float
    """How long it may take to seal what it has once the runner is gone, before it ends itself by force."""
    videos: str
    """The folder for the videos: posix, relative to the home, or absolute outside it."""
    name_prefix: str
    fps: float
    capture: CaptureSettings
    keep: Keep
    telemetry: Literal["all", "captured", "episodes"]
    values: Literal["small", "all", "none"]
    memory_bytes: int
    spool_bytes: int


class Episodes(msgspec.Struct, frozen=True, tag=True):
    """Further episodes to step, behind those in hand."""

    indices: list[int]


class HandBack(msgspec.Struct, frozen=True, tag=True):
    """Another worker has nothing to do: give up to this many of your last episodes back."""

    count: int


class NoMore(msgspec.Struct, frozen=True, tag=True):
    """End when the episodes in hand are done."""


class Pause(msgspec.Struct, frozen=True, tag=True):
    """Begin no further episode."""


class Resume(msgspec.Struct, frozen=True, tag=True):
    """Go on."""


class Stop(msgspec.Struct, frozen=True, tag=True):
    """End at the next step: abort the open episode and seal what there is."""


ToWorker = Examine | Begin | Episodes | HandBack | NoMore | Pause | Resume | Stop

# From a worker ---------------------------------------------------------------------------------------------------


class Examined(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The environment and the policy work."""

    env_id: str
    """In full: `CartPole-v1` where `CartPole` was asked for."""
    observation_space: Space
    action_space: Space
    render_modes: list[str]
    render_fps: float | None
    frame_shape: list[int] | None
    """Of the picture after a reset: height, width, channels; None where none was drawn."""
    versions: dict[str, str]


class Unusable(msgspec.Struct, frozen=True, tag=True):
    """The environment or the policy does not work, for this reason."""

    reason: str
    """A sentence that begins with the key of the options to mend."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The environment is made; from here on the worker's events are on their way to the log."""


class Began(msgspec.Struct, frozen=True, tag=True):
    """An episode is about to be reset. The next ones are wanted."""

    episode: int


class Ended(msgspec.Struct, frozen=True, tag=True):
    """An episode was terminated or truncated."""

    episode: int
    seconds: float
    steps: int
    """Environment steps of this process so far."""


class HandedBack(msgspec.Struct, frozen=True, tag=True):
    """These episodes were not begun, and will not be begun here."""

    indices: list[int]


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The environment or the policy raised. The worker ends."""

    episode: int | None
    error: str
    """One line."""
    steps: int


class Done(msgspec.Struct, frozen=True, tag=True):
    """Everything is sealed. The worker ends."""

    steps: int


FromWorker = Examined | Unusable | Ready | Began | Ended | HandedBack | Failed | Done


def encode(message: ToWorker | FromWorker) -> bytes:
    """A message as it goes through a pipe."""
    packed = _encoder.encode(message)
    return _LENGTH.pack(len(packed)) + packed


class Inbox:
    """Puts what came through a pipe together to messages again."""

    def __init__(self, kind: Any) -> None:
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._rest = b""

    def feed(self, received: bytes) -> list[Any]:
        """The messages that are complete with these bytes. Raises `msgspec.DecodeError` for what is none."""
        messages, rest = [], self._rest + received
        while len(rest) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(rest)[0]
            if len(rest) < end:
                break
            messages.append(self._decode(rest[_LENGTH.size : end]))
            rest = rest[end:]
        self._rest = rest
        return messages


_encoder = msgspec.msgpack.Encoder()
_LENGTH = struct.Struct("<I")
