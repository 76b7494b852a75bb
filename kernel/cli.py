"""The command line: run, check, tail, plugins, events, schema, new, salvage; and the commands that plugins bring."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import cyclopts
import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kernel.config import Config, ConfigRefused, read_config
from kernel.event import catalogue
from kernel.log import HomeRefused, LogReader, first_seq, last_seq, segments
from kernel.runtime import Kernel, Outcome, StartRefused, check, run_until_signalled
from kernel.salvage import salvage as salvage_log
from kernel.terminal import shown
from kernel.wiring import COMMANDS, PLUGINS, entry_points, find, wire

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kernel.wiring import Part

HOME = Path("runtime/data")
_TAIL_EVENTS = 20

Overrides = Annotated[
    list[str] | None,
    Parameter(name="--set", negative="", help="Override a key, such as plugins.runner.episodes=3; may be repeated."),
]

app = cyclopts.App(
    name="stepreel",
    help="Record reinforcement-learning runs: telemetry and frame-exact videos, without slowing the loop.",
    version_flags=["--version"],
)


@app.default
@app.command(name="run")
def run(config: Path, /, *, set_: Overrides = None) -> int:
    """Run the plugins of a configuration until its sources have ended, or Ctrl-C.

    Exit code 0: everything was finished; 1: a plugin gave up; 2: nothing was started, see the message; 3: work is
    left for the next start.
    """
    settings, parts = _read(config, set_)

    async def go() -> Outcome:
        await check(settings.settings.home, parts, str(config))
        kernel = Kernel(
            settings.settings.home,
            parts,
            log=settings.settings.log,
            drain_seconds=settings.settings.drain_seconds,
            config=str(config),
        )
        return await run_until_signalled(kernel)

    return int(anyio.run(go))


@app.command(name="check")
def check_config(config: Path, /, *, set_: Overrides = None) -> int:
    """Look whether a configuration could run now, and change nothing."""
    settings, parts = _read(config, set_)
    anyio.run(check, settings.settings.home, parts, str(config))
    print(f"{config}: ready to run: {', '.join(part.name for part in parts)}")
    return 0


@app.command
def tail(
    home: Path = HOME,
    /,
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative="")] = False,
    type_: Annotated[list[str] | None, Parameter(name="--type", negative="")] = None,
    since: int | None = None,
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Print a home's events, the last 20 of them unless --since says otherwise. Works beside a running kernel.

    Parameters
    ----------
    home
        The folder of the kernel's data.
    follow
        Go on with each event as it happens, until Ctrl-C. The home may be created later.
    type_
        Only events of this type; may be repeated.
    since
        Begin behind this seq; 0 prints all.
    json_
        Print the log's lines as they are.
    """
    if not follow and not (home / "log").is_dir():
        return _complain([f"{home}: is no home of a kernel (it has no log); give the `home` of your configuration"])
    wanted = frozenset(type_ or ())
    reader = LogReader(home / "log", after=_before_the_last(home, wanted) if since is None else since)
    try:
        while True:
            try:
                lines = reader.read_lines()
            except HomeRefused as damaged:
                _complain([f"{damaged} What follows is shown as it stands."])
                reader.compares = False
                continue
            for line in lines.split(b"\n")[:-1]:
                try:
                    record = _decode_line(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    _complain([f"{home}: passed by a damaged line; `python -m kernel salvage {home}` mends the log"])
                    continue
                if not wanted or record.event["type"] in wanted:
                    if json_:
                        sys.stdout.buffer.write((_ascii(line) if sys.stdout.isatty() else line) + b"\n")
                    else:
                        print(_one_line(record))
            if not lines:
                if not follow:
                    return 0
                sys.stdout.flush()
                time.sleep(0.1)
    except KeyboardInterrupt:
        return 0


@app.command
def plugins(config: Path | None = None, /) -> int:
    """List the plugins that are installed, or those of a configuration, with what they do and their options."""
    rows: list[tuple[str, str, str]] = []
    for name, use in _plugins(config):
        try:
            kind = find(use)
        except ValueError as error:
            rows.append((name, use, f"cannot be used: {error}"))
            continue
        rows.append((name, use, _first_line(kind)))
        fields = msgspec.structs.fields(kind.options_type)
        rows.extend(("", f"  {field.encode_name}", _default_words(field)) for field in fields)
    _print_table(("plugin", "use", "what it does"), rows)
    return 0


@app.command
def events(config: Path | None = None, /) -> int:
    """List the event types that are known: the kernel's, the installed plugins', and those of a configuration."""
    _load_vocabulary(config)
    rows = [
        (tag, kind.__module__, _first_line(kind) + ("" if kind.durable else " (not logged)"))
        for tag, kind in sorted(catalogue.items())
    ]
    _print_table(("event", "from", "says"), rows)
    return 0


@app.command
def schema(type_: str, config: Path | None = None, /) -> int:
    """Print the JSON Schema of an event type."""
    _load_vocabulary(config)
    if type_ not in catalogue:
        return _complain([f'no event type is called "{type_}"; `python -m kernel events` lists them'])
    print(json.dumps(msgspec.json.schema(catalogue[type_]), indent=2))
    return 0


@app.command
def new(file: Path, /) -> int:
    """Write a new plugin's file, ready to run, to start from."""
    if file.exists():
        return _complain([f"{file}: exists already; choose another name"])
    if not file.stem.isidentifier() or file.suffix != ".py":
        return _complain([f"{file}: give it a module's name, such as my_plugin.py"])
    name = "".join(word.capitalize() for word in file.stem.split("_"))
    try:
        file.write_text(_NEW_PLUGIN.format(name=name), encoding="utf-8")
    except OSError as error:
        return _complain([f"{file}: {error.strerror}"])
    print(f"{file}: written. Name it in a configuration beside it:\n")
    print(f'[plugins.{file.stem}]\nuse = "{file.stem}:{name}"')
    return 0


@app.command
def salvage(home: Path, /) -> int:
    """Make a damaged log readable again; the damaged bytes are kept beside it."""
    if not (home / "log").is_dir():
        return _complain([f"{home}: is no home of a kernel (it has no log)"])
    mended: list[str] = []
    lost = salvage_log(home, mended.append)
    for line in mended:
        print(line, file=sys.stderr)
    print(f"{home}: {lost} damaged events were set aside" if lost or mended else f"{home}: nothing is damaged")
    return 0


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    for name, path in entry_points(COMMANDS).items():
        app.command(path, name=name)
    try:
        app()
    except (ConfigRefused, StartRefused) as refused:
        sys.exit(_complain(refused.problems))
    except HomeRefused as refused:
        sys.exit(_complain([str(refused)]))
    except BrokenPipeError:
        sys.stdout = None  # whoever read us is gone: say nothing at the exit


def _read(file: Path, overrides: list[str] | None) -> tuple[Config, list[Part]]:
    """The configuration and its plugins; every fault of both at once."""
    config = read_config(file, overrides or ())
    return config, wire(config)


def _complain(problems: list[str]) -> int:
    for problem in problems:
        print(problem, file=sys.stderr)
    return int(Outcome.refused)


def _plugins(config: Path | None) -> Iterator[tuple[str, str]]:
    if config is None:
        yield from sorted(entry_points(PLUGINS).items())
    else:
        for part in wire(read_config(config)):
            yield part.name, f"{part.plugin.__module__}:{part.plugin.__qualname__}"


def _load_vocabulary(config: Path | None) -> None:
    """Import what declares event types: every installed plugin, and those of the configuration."""
    for use in entry_points(PLUGINS).values():
        try:
            find(use)
        except ValueError as error:
            _complain([str(error)])
    if config is not None:
        wire(read_config(config))


def _first_line(kind: type[Any]) -> str:
    return (kind.__doc__ or "").strip().partition("\n")[0]


def _default_words(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    default = field.default if field.default is not msgspec.NODEFAULT else None
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    return f"= {default!r}"


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for people; a plain line a row, with tabs, where the output is piped."""
    if not sys.stdout.isatty():
        print("\n".join("\t".join(row) for row in rows))
        return
    table = Table(*head, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


class _Line(msgspec.Struct):
    """A line of the log, as `tail` shows it: the event may be of a type that nobody here knows."""

    seq: int
    time: str
    source: str
    event: dict[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.event.get("type"), str):
            raise ValueError("the event has no type")


_decode_line = msgspec.json.Decoder(_Line).decode


def _before_the_last(home: Path, wanted: frozenset[str]) -> int:
    """The seq behind which the last 20 events of these types stand; of all types where none is given."""
    if not wanted:
        return max(0, last_seq(home) - _TAIL_EVENTS)
    tags = [b'"event":{"type":"%s"' % tag.encode() for tag in wanted]
    found: list[int] = []
    for path in reversed(segments(home / "log")):
        lines = enumerate(path.read_bytes().splitlines(), start=first_seq(path))
        found[:0] = [seq for seq, line in lines if any(tag in line for tag in tags)]
        if len(found) >= _TAIL_EVENTS:
            break
    return found[-_TAIL_EVENTS:][0] - 1 if found else last_seq(home)


def _one_line(line: _Line) -> str:
    event = dict(line.event)
    kind = event.pop("type")
    said = " ".join(f"{key}={_short(value)}" for key, value in event.items() if value not in (None, "", [], {}))
    text = f"{line.seq:>6} {line.time[11:23]} {line.source} {kind} {said}"
    return shown(text)


def _ascii(line: bytes) -> bytes:
    """The same JSON, for a terminal: JSON leaves some characters as they are that a terminal would obey."""
    return line if line.isascii() and b"\x7f" not in line else json.dumps(json.loads(line)).encode()


def _short(value: Any) -> str:
    """A value in a few words, whatever an event holds."""
    plain = isinstance(value, str) and value.isprintable() and " " not in value
    text = value if plain else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:79]}…"


_NEW_PLUGIN = '''"""{name}: say here what it does."""

from kernel import Event, Options, Plugin, Record, on_batch


class {name}Options(Options):
    every: int = 1000
    """Tell the count again after so many events."""


class {name}Counted(Event):
    """So many events have passed."""

    events: int


class {name}(Plugin[{name}Options], publishes=[{name}Counted]):
    """Counts the events; `python -m kernel events` lists their types, to name those that you want in place of all."""

    events = 0
    told = 0

    @on_batch(Event)
    async def count(self, records: list[Record[Event]]) -> None:
        self.events += len(records)
        if self.events - self.told >= self.options.every:
            self.told = self.events
            await self.publish({name}Counted(events=self.events))
'''
