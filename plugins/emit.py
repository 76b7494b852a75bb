"""The command `emit`: hand an event in from outside, the way a producer does."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path  # noqa: TC003 - the command line reads the annotations of a command

import msgspec

from kernel.event import catalogue
from kernel.files import holder
from plugins.recorder.spool import Producer


def emit(home: Path, type_: str, /, *fields: str) -> int:
    """Hand an event in to a home, where a running kernel logs and routes it; without one, the next does.

    Parameters
    ----------
    home
        The folder of the kernel's data.
    type_
        The event's type, such as VideoPinned; `python -m kernel events` lists them.
    fields
        The event's fields as key=value; a value is JSON, or else the text itself.
    """
    if not (home / "home.json").is_file():
        return _complain(f"{home}: is no home of a kernel (it has no home.json)")
    for point in importlib.metadata.entry_points(group="stepreel.plugins"):
        point.load()
    kind = catalogue.get(type_)
    if kind is None:
        return _complain(f'no event type is called "{type_}"; `python -m kernel events` lists them')
    if not kind.durable:
        return _complain(f"{type_} is not logged, and so cannot be handed in")
    known = [field.encode_name for field in msgspec.structs.fields(kind)]
    try:
        values = dict(map(_field, fields))
        if unknown := values.keys() - known:
            raise ValueError(f"it has no field {min(unknown)}")  # noqa: TRY301 - one way out for what is wrong with fields
        event = msgspec.convert(values, kind, strict=False)
    except (msgspec.ValidationError, ValueError) as error:
        return _complain(f"{type_}: {error}; its fields are: {', '.join(known)}")
    producer = Producer(home, "emit")
    producer.say(event)
    if not producer.close():
        return _complain(f"{home}: the event could not be written to the spool; is the disk full?")
    if holder(home / "lock") is not None:
        print(f"{type_} was handed in")  # noqa: T201 - a command's answer
    else:
        print(f"{type_} was left in the spool; no kernel runs on {home}, and the next one takes it in")  # noqa: T201 - the same
    return 0


def _field(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f'"{text}" is no key=value')
    try:
        return key, msgspec.json.decode(value)
    except msgspec.DecodeError:
        return key, value


def _complain(problem: str) -> int:
    print(problem, file=sys.stderr)  # noqa: T201 - a command's answer
    return 2
