"""Plugins: a class with typed options, handlers for events, and a life that the kernel manages.

    class Leaderboard(Plugin[LeaderboardOptions], publishes=[NewBest]):
        @on(EpisodeEnded)
        async def compare(self, episode: EpisodeEnded) -> None: ...

Everything but the class is optional. The order of a life is: `check`, `__init__`, `lifespan` entered, `cursor`,
handlers and `run` at work, `drain` (perhaps several times), handlers and `run` ended, `lifespan` left.
"""

from __future__ import annotations

import inspect
from contextlib import asynccontextmanager
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Protocol,
    TypeAlias,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
    overload,
)

import msgspec

from kernel.event import Event, KeywordOnly, Record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
    from pathlib import Path

    import anyio

E = TypeVar("E", bound=Event)
P = TypeVar("P", bound="Plugin[Any]")
F = TypeVar("F", bound="Callable[..., Awaitable[None]]")

Single: TypeAlias = "Callable[[P, E], Awaitable[None]]"
Batched: TypeAlias = "Callable[[P, list[Record[E]]], Awaitable[None]]"


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class Options(msgspec.Struct, metaclass=KeywordOnly, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plugin's options: one field a key of its table in the configuration, with its type and its default.

    A field's docstring tells users what it means. `__post_init__` may raise `ValueError` for keys that contradict
    each other; its text becomes the configuration error.
    """


O_co = TypeVar("O_co", bound=Options, covariant=True)


class Refused(Exception):
    """Something that a user can mend keeps a plugin from working. Its text names the key or the file, and the fix.

    The kernel puts the configuration's file and the table in front.
    In `check`, and at the first start, it keeps the kernel from starting. Later on, the plugin is left off at once: it
    is not restarted, as any other failure would have it.
    """


class Port(Protocol):
    """What the kernel offers to one plugin."""

    name: str
    home: Path
    stopping: anyio.Event

    async def publish(self, *events: Event) -> None: ...
    async def relay(self, source: str, first_nth: int, events: Sequence[Event]) -> None: ...
    async def sync(self) -> None: ...
    def last_nth(self, source: str) -> int: ...
    def read(self, *types: type[E], after: int = 0) -> AsyncIterator[Record[E]]: ...


class Handler(msgspec.Struct, frozen=True, eq=False):
    """A method that was marked with `on` or `on_batch`."""

    method: str
    types: tuple[type[Event], ...]
    size: int = 1
    """Records in a batch at most; 1 for a handler of single events."""
    within_seconds: float = 0.0
    batched: bool = False


@overload
def on(event_type: type[E], /) -> Callable[[Single[P, E]], Single[P, E]]: ...
@overload
def on(*types: type[Event]) -> Callable[[F], F]: ...
def on(*types: type[Event]) -> Callable[[F], F]:
    """Mark `async def handler(self, event)` to be called with each event of these types, in the log's order.

    A plugin's handlers run one after the other, never side by side. What one raises restarts the plugin: the event
    comes again, once, and is then set aside as `DeliveryFailed`.
    """

    def mark(function: F) -> F:
        return _marked(function, Handler(function.__name__, types))

    return mark


@overload
def on_batch(
    event_type: type[E], /, *, size: int = ..., within: float = ...
) -> Callable[[Batched[P, E]], Batched[P, E]]: ...
@overload
def on_batch(*types: type[Event], size: int = ..., within: float = ...) -> Callable[[F], F]: ...
def on_batch(*types: type[Event], size: int = 1000, within: float = 0.25) -> Callable[[F], F]:
    """Mark `async def handler(self, records)` to be called with up to `size` records of these types at a time.

    It is called when `size` records wait, or `within` seconds after the first of them, and always before a later
    single event is handled, so that the log's order holds between a plugin's handlers.
    """

    def mark(function: F) -> F:
        return _marked(function, Handler(function.__name__, types, size=size, within_seconds=within, batched=True))

    return mark


class Plugin(Generic[O_co]):
    """Base of all plugins.

    `__init__` has no side effects. What a plugin acquires it acquires in `lifespan`, and releases there.
    """

    source: ClassVar[bool] = False
    """A source ends the run: when all sources have returned from `run`, the kernel drains and stops."""

    required: ClassVar[bool] = False
    """When a required plugin gives up, the kernel stops in good order, with a non-zero exit code.

    `required = true` or `false` in the plugin's table overrides it.
    """

    rebuild: ClassVar[str] = ""
    """For a plugin with a `cursor`: the words that tell a user how to build its store anew from the log."""

    publishes: ClassVar[frozenset[type[Event]]] = frozenset()
    handlers: ClassVar[tuple[Handler, ...]] = ()
    options_type: ClassVar[type[Options]] = Options

    def __init_subclass__(cls, publishes: Iterable[type[Event]] = (), **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.publishes = cls.publishes | frozenset(publishes)
        cls.handlers = tuple(
            member.__handler__ for _, member in inspect.getmembers(cls, callable) if hasattr(member, "__handler__")
        )
        for base in getattr(cls, "__orig_bases__", ()):
            origin, arguments = get_origin(base), get_args(base)
            if isinstance(origin, type) and issubclass(origin, Plugin) and isinstance(arguments[0], type):
                cls.options_type = arguments[0]

    def __init__(self, options: O_co, port: Port) -> None:
        self.options = options
        self._port = port

    # What an author writes ---------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Raise `Refused` for what a user can mend, before anything was created. It leaves no trace.

        Called by `python -m kernel check` and at the start of a run, on an instance of its own. The home may be
        missing at that time.
        """

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Acquire before the `yield`, release behind it. Events may be published on both sides.

        Plugins are entered in the order of the configuration and left in reverse; what comes before in the file is
        there for the whole life of what comes later. Left also when `run` or a handler raised.
        """
        yield

    async def cursor(self) -> int | None:
        """The seq of the last event that this plugin's own store holds; handlers then see what comes behind it.

        Keep it in the same transaction as what the events said, and each event takes effect exactly once. None,
        the default, starts at the log's end.
        """
        return None

    async def run(self) -> None:
        """Work of its own: a source's job, or a service. It may return at any time; it is cancelled at the stop.

        A source returns soon after `self.stopping` is set.
        """

    async def drain(self) -> None:
        """Finish the work in hand. Called when the sources have ended, again after each round that brought events.

        Publishing is still allowed. Return when nothing is left to do. The runtime's deadline may cancel this; what
        is then unfinished must be found again from disk at the next start.
        """

    def pending(self) -> str:
        """A few words on what `drain` still waits for, such as "3 chunks to encode"; empty when for nothing."""
        return ""

    # What an author calls ----------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the plugin's table in the configuration; the `source` of what it publishes."""
        return self._port.name

    @property
    def home(self) -> Path:
        """The home's folder, an absolute path."""
        return self._port.home

    @property
    def stopping(self) -> anyio.Event:
        """Set when the kernel begins to stop."""
        return self._port.stopping

    async def publish(self, *events: Event) -> None:
        """Append the events to the log and route them. Returns when that is done, without waiting for subscribers.

        Raises `TypeError` for a type that the class does not declare in `publishes`.
        """
        for event in events:
            if type(event) not in self.publishes:
                raise TypeError(
                    f"{type(self).__qualname__} publishes a {type(event).__name__} that it does not declare; "
                    "add it to publishes=[...]"
                )
        await self._port.publish(*events)

    async def relay(self, source: str, first_nth: int, events: Sequence[Event]) -> None:
        """Publish on behalf of a producer, whose own count begins at `first_nth` in this batch.

        Events that the log has already are left out, so a batch may be handed in again. Raises `ValueError` where
        the producer's count has a gap. Waits while the log is at twice its bound.
        """
        await self._port.relay(source, first_nth, events)

    async def sync(self) -> None:
        """Return when everything that was logged so far is on disk."""
        await self._port.sync()

    def last_nth(self, source: str) -> int:
        """The count of the last event of this source in the log; 0 where there is none."""
        return self._port.last_nth(source)

    def read(self, *types: type[E], after: int = 0) -> AsyncIterator[Record[E]]:
        """Read the events of these types that are in the log now, from behind the seq `after`."""
        return self._port.read(*types, after=after)


def refuse_link(folder: Path) -> None:
    """Raise `Refused` where a folder of ours in the home is a link: a home may come from somebody else."""
    if folder.is_symlink():
        raise Refused(
            f"{folder}: is a symbolic link, and files are removed in there. Put the folder itself into its place; for "
            "another disk, choose a `home` on it."
        )


def _marked(function: F, handler: Handler) -> F:
    function.__handler__ = handler  # type: ignore[attr-defined]  # the mark that Plugin.__init_subclass__ looks for
    return function
