"""Events: what is said on the bus and kept in the log, and the catalogue of their types."""

from __future__ import annotations

import re
import threading
from datetime import datetime
from functools import cache
from typing import Any, ClassVar, Generic, TypeVar, Union, dataclass_transform

import msgspec

E_co = TypeVar("E_co", covariant=True)


class KeywordOnly(msgspec.StructMeta):
    """Makes every subclass keyword-only, which msgspec does not inherit, so that fields can be added in any place."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any) -> KeywordOnly:
        return super().__new__(mcls, name, bases, namespace, **{"kw_only": True, **config})


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class Event(msgspec.Struct, metaclass=KeywordOnly, frozen=True, kw_only=True, tag=True, tag_field="type", gc=False):
    """Something that happened. Subclass it to declare a type; the class name is the tag in the log.

    Values are plain (what JSON can say) and bounded. Fields are added with defaults and never retyped: a breaking
    change is a new class. JSON has no NaN, so a measured number is `float | None`.
    """

    durable: ClassVar[bool] = True
    """Logged, and so never dropped. An event that is not durable is only routed, and dropped when nobody keeps up."""

    def __init_subclass__(cls, **config: Any) -> None:
        super().__init_subclass__(**config)
        known = catalogue.get(cls.__name__)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(
                f"{cls.__module__}: the event type {cls.__name__} is already declared by {known.__module__}; "
                "choose another name"
            )
        catalogue[cls.__name__] = cls
        _decoders.cache_clear()
        _said.cache_clear()


catalogue: dict[str, type[Event]] = {}
"""Every event type that was imported, by its tag."""


class Record(msgspec.Struct, Generic[E_co], frozen=True, gc=False):
    """An event with its place in the log: one line of the file."""

    seq: int
    """Counts the home's events from 1, without a gap; 0 for an event that is not durable."""
    time: datetime
    """When it was appended, in UTC. It may step back with the machine's clock: order is `seq`."""
    source: str
    """The plugin or the producer who says it."""
    nth: int
    """Counts the source's own events from 1, without a gap; 0 for an event that is not durable."""
    event: E_co


@cache
def _decoders() -> tuple[msgspec.json.Decoder[Record[Event]], msgspec.msgpack.Decoder[list[Event]]]:
    """Decoders of a log line and of a producer's batch, for all types known by now."""
    # Nobody says UnknownEvent from outside: its `raw` goes into the log as it is.
    known = [kind for kind in catalogue.values() if kind is not UnknownEvent]
    union: Any = Union[tuple(known)]  # noqa: UP007 - of types known only now
    return msgspec.json.Decoder(Record[union]), msgspec.msgpack.Decoder(list[union])


@cache
def _said() -> msgspec.json.Decoder[Event]:
    """Decoder of an event as the log says it."""
    known: Any = Union[tuple(kind for kind in catalogue.values() if kind is not UnknownEvent)]  # noqa: UP007 - the same
    return msgspec.json.Decoder(known)


class UnknownEvent(Event):
    """A logged event whose type nobody loaded, or which its type refuses. Not damage: it is delivered as it stands."""

    tag: str
    raw: bytes
    """The event's JSON, as it was said."""


class Tagged(msgspec.Struct):
    """Of an event, what its type is called."""

    type: str


class Damaged(Exception):
    """A line that holds no record."""


def decode_records(lines: bytes) -> list[Record[Event]]:
    """Decode whole lines of a log file. Raises `Damaged` where a line is not a record."""
    records = decode_known(lines)
    return [decode_record(line) for line in lines.split(b"\n") if line] if records is None else records


def decode_known(lines: bytes) -> list[Record[Event]] | None:
    """Decode whole lines of a log file; None where one of them is not the record of a known type."""
    try:
        return _decoders()[0].decode_lines(lines)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def decode_record(line: bytes) -> Record[Event]:
    """Decode one line of a log file; an unknown or ill-typed event becomes an `UnknownEvent`. Raises `Damaged`."""
    try:
        return _decode_record(line)
    except RecursionError:
        return _decode_on_an_empty_stack(line)


def _decode_record(line: bytes) -> Record[Event]:
    try:
        return _decoders()[0].decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    try:
        line.decode()  # msgspec passes by what it does not look into
        envelope = _envelope.decode(line)
        tag = _tagged.decode(envelope.event).type
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged(str(error)) from None
    return _unknown(envelope, tag, bytes(envelope.event))


def decode_batch(batch: bytes) -> list[Event]:
    """Decode a msgpack array of events, as a producer wrote it: to what a reader of the log will get of each.

    Raises `Damaged` where it is not one.
    """
    try:
        return _as_logged(_decoders()[1].decode(batch), batch)
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError):
        pass
    except RecursionError:
        raise Damaged(_TOO_DEEP) from None
    try:
        return [_decode_packed(raw) for raw in _packed_array.decode(batch)]
    except (msgspec.DecodeError, ValueError, TypeError) as error:  # TypeError: what JSON cannot say
        raise Damaged(str(error)) from None
    except RecursionError:
        raise Damaged(_TOO_DEEP) from None


def encode_lines(records: list[Record[Event]]) -> bytes:
    """The records as lines of a log file."""
    return _json.encode_lines(
        [
            record
            if type(record.event) is not UnknownEvent
            else Record(record.seq, record.time, record.source, record.nth, msgspec.Raw(record.event.raw))
            for record in records
        ]
    )


def _decode_packed(raw: msgspec.Raw) -> Event:
    one = b"\x91" + bytes(raw)  # 0x91: an array of one
    try:
        (event,) = _as_logged(_decoders()[1].decode(one), one)
    except msgspec.ValidationError:
        value = msgspec.msgpack.decode(raw)
        return UnknownEvent(tag=msgspec.convert(value, Tagged).type, raw=_json.encode(value))
    return event


def _as_logged(events: list[Event], batch: bytes) -> list[Event]:
    """The events as the log will say them, which matters where a number is not finite: JSON has null for those.

    A float of msgpack that is not finite begins with these bytes; to look for them costs 3 ms a MiB. Other bytes
    may look so, too, and then nothing changes but the time that this takes.
    """
    if _NOT_FINITE.search(batch) is None:
        return events
    return [_decode_said(_json.encode(event)) for event in events]


def _decode_said(said: bytes) -> Event:
    try:
        return _said().decode(said)
    except msgspec.ValidationError:  # its type has no null there
        return UnknownEvent(tag=_tagged.decode(said).type, raw=said)


def _decode_deep(line: bytes) -> Record[Event]:
    """Decode a line whose event may be nested more deeply than any stack can follow: then it stays as it stands."""
    try:
        return _decode_record(line)
    except RecursionError:
        pass
    head, _, event = line.partition(b',"event":')
    tag = _TAG.match(event)
    try:
        if tag is None:
            raise Damaged(_TOO_DEEP)
        return _unknown(_place.decode(head + b"}"), tag[1].decode(), event.removesuffix(b"}"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Damaged(str(error)) from None


def _decode_on_an_empty_stack(line: bytes) -> Record[Event]:
    """`_decode_deep` in a thread of its own: what a line is must not depend on how deep in calls its reader is."""
    found: list[Record[Event] | Damaged] = []

    def run() -> None:
        try:
            found.append(_decode_deep(line))
        except Damaged as damage:
            found.append(damage)

    thread = threading.Thread(target=run, name="a deep line")
    thread.start()
    thread.join()
    (record,) = found
    if isinstance(record, Damaged):
        raise record
    return record


def _unknown(place: _Place | Record[Any], tag: str, raw: bytes) -> Record[Event]:
    return Record(place.seq, place.time, place.source, place.nth, UnknownEvent(tag=tag, raw=raw))


class _Place(msgspec.Struct):
    seq: int
    time: datetime
    source: str
    nth: int


_json = msgspec.json.Encoder()
_envelope = msgspec.json.Decoder(Record[msgspec.Raw])
_place = msgspec.json.Decoder(_Place)
_tagged = msgspec.json.Decoder(Tagged)
_packed_array = msgspec.msgpack.Decoder(list[msgspec.Raw])
_NOT_FINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]|\xca[\x7f\xff][\x80-\xff]")
_TAG = re.compile(rb'\{"type":"([^"\\]*)"')
_TOO_DEEP = "it is nested too deeply"


# The kernel's own words ------------------------------------------------------------------------------------------


class KernelStarted(Event):
    """A kernel took the home over. Each of its plugins follows with a `PluginState`."""

    version: str
    pid: int
    config: str
    """The path of its configuration file, as it was given."""
    plugins: dict[str, str]
    """The name of each plugin and the class it uses."""


class KernelStopped(Event):
    """The kernel has ended in good order. Where this is missing, it was killed."""

    outcome: str
    """`drained`, `undrained` (work was left for the next start), `failed`, or `refused` by a plugin at its start."""
    seconds: float


class PluginState(Event):
    """A plugin changed its state."""

    plugin: str
    state: str
    """`started`, `waiting` (for space on the disk), `restarting`, `left off` or `stopped`."""
    reason: str = ""
    traceback: str = ""


class DeliveryFailed(Event):
    """A plugin failed on the same event twice; the event was set aside for this plugin, and it went on behind it."""

    plugin: str
    seq: int
    event_type: str
    reason: str


class EventsDropped(Event):
    """Events that are not durable were dropped, oldest first, because a plugin did not keep up."""

    plugin: str
    count: int


class EventsUnknown(Event):
    """Producers said events whose type no plugin here has declared. They are in the log, and delivered as they stand.

    Said at the first of a type, then each time that there are twice as many, and at the stop.
    """

    tag: str
    """What the type is called; of more than a thousand, the others are counted together as `…`."""
    total: int
    """So many since this kernel started."""


class EventLeftOut(Event):
    """Stands in the place of a producer's event that was larger than 16 MiB."""

    event_type: str
    size_bytes: int


class DiskFull(Event):
    """The log's disk takes no more. Events wait, and so do those who publish them; nothing of them is lost."""

    reason: str


class DiskHasRoom(Event):
    """The log's disk takes events again."""

    seconds: float
    """How long it was full."""


class LoopBlocked(Event):
    """Somebody kept the kernel's event loop from running for two seconds or more, and with it everybody else."""

    plugin: str
    """The plugin whose code it was; empty where that could not be told."""
    where: str
    """What ran then: `file:line in function`."""
    seconds: float


class LogTailCut(Event):
    """The end of the log was torn by a crash. What no line ended was cut off and kept beside the log."""

    kept_as: str
    """The file in the log's folder that holds the bytes."""
    size_bytes: int


class LogTrimmed(Event):
    """The oldest part of the log was removed to keep it within its bound. A rebuild counts from here."""

    first_seq: int
    """The first seq that is still there."""
    removed_bytes: int


class LoopLag(Event):
    """How late the kernel's event loop ran a timer, at worst in the last second."""

    durable: ClassVar[bool] = False
    seconds: float
