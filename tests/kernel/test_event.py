"""Events: typed where their type is known, kept as they stand where it is not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from kernel.event import (
    Damaged,
    Event,
    Record,
    UnknownEvent,
    catalogue,
    decode_batch,
    decode_record,
    decode_records,
    encode_lines,
)
from kernel.log import Log, read
from tests.kernel.ticks import Tick, Tock

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 22, 6, 27, 18, 123456, tzinfo=UTC)


class EventTestMeasured(Event):
    value: float | None
    other: float = 0.0


def line(event: str, seq: int = 1) -> bytes:
    return b'{"seq":%d,"time":"2026-11-22T06:27:18.123456Z","source":"a","nth":1,"event":%s}\n' % (seq, event.encode())


def test_a_record_is_one_line_that_decodes_to_itself() -> None:
    record: Record[Event] = Record(17, NOW, "somebody", 9, Tick(n=1))
    encoded = encode_lines([record])
    assert encoded == (
        b'{"seq":17,"time":"2026-11-22T06:27:18.123456Z","source":"somebody","nth":9,'
        b'"event":{"type":"Tick","n":1,"padding":""}}\n'
    )
    assert decode_records(encoded) == [record]


def test_an_unknown_event_is_delivered_as_it_stands_and_written_unchanged() -> None:
    stranger = line('{"type":"EventTestNobodyKnowsMe","values":[1,2.50,"ü"],"deep":{"a":null}}')
    record = decode_record(stranger)
    assert isinstance(record.event, UnknownEvent)
    assert record.event.tag == "EventTestNobodyKnowsMe"
    assert encode_lines([record]) == stranger


def test_an_event_that_its_type_refuses_is_delivered_as_unknown_and_written_unchanged() -> None:
    ill_typed = line('{"type":"Tick","n":"one"}')
    record = decode_record(ill_typed)
    assert isinstance(record.event, UnknownEvent)
    assert record.event.tag == "Tick"
    assert encode_lines([record]) == ill_typed


def test_unknown_events_do_not_disturb_the_known_ones_around_them() -> None:
    lines = line('{"type":"Tick","n":1}', 1) + line('{"type":"EventTestNobody"}', 2) + line('{"type":"Tock","n":3}', 3)
    first, second, third = decode_records(lines)
    assert (first.event, third.event) == (Tick(n=1), Tock(n=3))
    assert (second.seq, type(second.event)) == (2, UnknownEvent)


@pytest.mark.parametrize(
    "damaged",
    [
        b'{"seq":1,"time"',
        b"\x00\x00\x00",
        b'{"seq":1}\n',
        b"\xff\xfe\n",
        line('{"no":"type"}'),
        line("[1]"),
        line('{"type":1}'),
    ],
)
def test_a_line_that_is_no_record_is_damage(damaged: bytes) -> None:
    with pytest.raises(Damaged):
        decode_record(damaged)
    with pytest.raises(Damaged):
        decode_records(line('{"type":"Tick","n":1}') + damaged)


def test_a_type_that_is_declared_twice_is_refused_with_both_places() -> None:
    metaclass: Any = type(Event)
    with pytest.raises(TypeError, match=r"elsewhere: the event type Tick is already declared by tests\.kernel\.ticks"):
        metaclass("Tick", (Event,), {"__module__": "elsewhere", "__annotations__": {"n": "int"}})
    assert catalogue["Tick"] is Tick


def test_a_type_that_comes_later_is_decoded_from_then_on() -> None:
    early = line('{"type":"EventTestLate","n":1}')
    assert isinstance(decode_record(early).event, UnknownEvent)

    class EventTestLate(Event):
        n: int

    assert decode_record(early).event == EventTestLate(n=1)


def test_fields_that_were_added_with_defaults_take_old_lines() -> None:
    assert decode_record(line('{"type":"EventTestMeasured","value":1.5}')).event == EventTestMeasured(value=1.5)


def test_fields_of_a_newer_version_are_passed_by() -> None:
    assert decode_record(line('{"type":"Tick","n":1,"added_later":[1]}')).event == Tick(n=1)


def test_nan_and_infinity_become_null_in_the_log() -> None:
    for value in (float("nan"), float("inf"), float("-inf")):
        written = encode_lines([Record(1, NOW, "a", 1, EventTestMeasured(value=value))])
        assert b'"value":null' in written
        assert decode_record(written).event == EventTestMeasured(value=None)


def test_events_are_keyword_only_and_frozen() -> None:
    with pytest.raises(TypeError):
        Tick(1)  # type: ignore[call-arg]  # what must not work
    with pytest.raises(AttributeError):
        Tick(n=1).n = 2  # type: ignore[misc]  # what must not work


def test_a_producers_batch_decodes_to_its_events() -> None:
    assert decode_batch(msgspec.msgpack.encode([Tick(n=1), Tock(n=2)])) == [Tick(n=1), Tock(n=2)]


def test_what_a_producer_says_in_a_type_nobody_knows_comes_through() -> None:
    batch = msgspec.msgpack.encode([Tick(n=1), {"type": "EventTestNobody", "x": [1, float("nan")]}, {"type": "Tick"}])
    known, unknown, ill_typed = decode_batch(batch)
    assert known == Tick(n=1)
    assert unknown == UnknownEvent(tag="EventTestNobody", raw=b'{"type":"EventTestNobody","x":[1,null]}')
    assert ill_typed == UnknownEvent(tag="Tick", raw=b'{"type":"Tick"}')


@pytest.mark.parametrize(
    "batch",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"type": "Tick"}),
        msgspec.msgpack.encode([1]),
        msgspec.msgpack.encode([{"no": "type"}]),
        msgspec.msgpack.encode([{"type": "EventTestNobody", "x": msgspec.msgpack.Ext(5, b"?")}]),
        msgspec.msgpack.encode([{"type": "EventTestNobody", "x": {(1, 2): 3}}]),
        msgspec.msgpack.encode([Tick(n=1)])[:-1],
    ],
)
def test_a_batch_that_is_none_is_damage(batch: bytes) -> None:
    with pytest.raises(Damaged):
        decode_batch(batch)


def test_nobody_writes_raw_bytes_into_the_log_by_saying_an_unknown_event(home: Path) -> None:
    forged = {"type": "UnknownEvent", "tag": "x", "raw": b"}\nnot json"}
    log = Log(home)
    log.append("a", 1, decode_batch(msgspec.msgpack.encode([forged])))
    log.append("a", 2, [Tick(n=2)])
    log.close()
    first, second = read(home)
    assert isinstance(first.event, UnknownEvent)
    assert first.event.tag == "UnknownEvent"
    assert second.event == Tick(n=2)
    Log(home).close()


def test_durable_is_a_word_of_the_class_and_no_field() -> None:
    assert Tick.durable
    assert b"durable" not in msgspec.json.encode(Tick(n=1))
