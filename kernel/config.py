"""The configuration: TOML to typed sections, and errors that name the file, the table, the key and the fix."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import msgspec

from kernel.log import KEEP_BYTES, SEGMENT_BYTES
from kernel.plugin import Options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

S = TypeVar("S", bound=msgspec.Struct)


class ConfigRefused(Exception):
    """The configuration cannot be used. `problems` has one sentence for each fault, all of them at once."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class LogOptions(Options):
    """The table `[log]`."""

    keep_bytes: int = KEEP_BYTES
    """Remove the oldest part of the log beyond this many bytes."""
    segment_bytes: int = SEGMENT_BYTES
    """Begin a new file after this many bytes."""

    def __post_init__(self) -> None:
        if self.segment_bytes < 1024:
            raise ValueError("segment_bytes: at least 1024")
        if self.keep_bytes < self.segment_bytes:
            raise ValueError(f"keep_bytes: at least segment_bytes ({self.segment_bytes}), as whole files are removed")


class Settings(Options):
    """The top level of a configuration file."""

    home: Path = Path("runtime/data")
    """The folder for the log, the database and the videos; relative to where the command is started."""
    drain_seconds: float = 600.0
    """How long a stop may take to finish the work in hand. What is left is done at the next start."""
    log: LogOptions = LogOptions()
    plugins: dict[str, dict[str, Any]] = {}
    """One table for each plugin: `use`, `required` and the plugin's own options."""


class Config(msgspec.Struct, frozen=True):
    """A configuration that was read; the plugins' tables are still plain, as only wiring knows their types."""

    file: Path
    settings: Settings
    problems: tuple[str, ...] = ()
    """The faults of the top level. Wiring adds those of the plugins' tables, and refuses them all at once."""

    def place(self, table: str) -> str:
        """What to name in an error about a table: the file and the table."""
        return f"{self.file}: [{table}]" if table else f"{self.file}:"


def read_config(file: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file, with `a.b=c` overrides. Raises `ConfigRefused` where it cannot be read at all."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigRefused([f"{file}: no such file"]) from None
    except OSError as error:
        raise ConfigRefused([f"{file}: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigRefused([f"{file}: {error}"]) from None
    except RecursionError:
        raise ConfigRefused([f"{file}: its values are nested too deeply"]) from None
    problems: list[str] = []
    for text in overrides:
        _override(document, text, problems)
    settings = convert(document, Settings, f"{file}:", problems)
    if settings is None:  # the plugins' tables are looked at all the same, so that all faults come at once
        tables = document.get("plugins")
        named = tables.items() if isinstance(tables, dict) else ()
        settings = Settings(plugins={name: table for name, table in named if isinstance(table, dict)})
    return Config(file, settings, tuple(problems))


def convert(table: Mapping[str, Any], kind: type[S], place: str, problems: list[str]) -> S | None:
    """A table as a struct. Each fault becomes one sentence in `problems`, and the result is then None.

    A field's docstring tells users what it means; its type tells them what was expected.
    """
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    before, values = len(problems), {}
    problems.extend(f"{place} {key}: unknown key{_suggestion(key, fields)}" for key in table if key not in fields)
    for key, field in fields.items():
        if key in table:
            values[field.name] = _value(table[key], field.type, place, key, problems)
        elif field.required:
            problems.append(f"{place} {key}: is required")
    if len(problems) > before:
        return None
    try:
        return kind(**values)
    except ValueError as error:
        problems.append(f"{place} {error}")
        return None


def _value(value: Any, kind: Any, place: str, key: str, problems: list[str]) -> Any:
    nested = _struct_in(kind)
    if nested is not None and isinstance(value, dict):
        inner = f"{place[:-1]}.{key}]" if place.endswith("]") else f"{place} [{key}]"
        return convert(value, nested, inner, problems)
    try:
        return msgspec.convert(value, kind, dec_hook=_from_toml)
    except msgspec.ValidationError as error:
        text = str(error)
        problems.append(f"{place} {key}: {text[0].lower()}{text[1:]}; it is {value!r}")
        return None


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    """The struct type that a field is, or may be; its own keys are then looked at one by one."""
    structs = [each for each in (kind, *get_args(kind)) if isinstance(each, type) and issubclass(each, msgspec.Struct)]
    return structs[0] if len(structs) == 1 and get_args(kind) in ((), (structs[0], type(None))) else None


def _from_toml(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser()
    raise ValueError(f"expected {kind.__name__}")


def _suggestion(key: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f' (did you mean "{near[0]}"?)' if near else f" (known are {', '.join(sorted(known))})"


def _override(document: dict[str, Any], text: str, problems: list[str]) -> None:
    key, equals, value = text.partition("=")
    *tables, last = key.strip().split(".")
    if not equals or not last:
        problems.append(f"--set {text}: write it as table.key=value, such as plugins.runner.episodes=3")
        return
    table = document
    for name in tables:
        inner = table.setdefault(name, {})
        if not isinstance(inner, dict):
            problems.append(f"--set {text}: {name} is a value, not a table")
            return
        table = inner
    table[last] = _toml_value(value.strip())


def _toml_value(text: str) -> Any:
    """The text as a TOML value; as itself where it is none, so that words need no quotes on a command line."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
