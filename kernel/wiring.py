"""Wiring: find the plugins that a configuration names, and give each its typed options."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from kernel.config import Config, ConfigRefused, convert, read_config
from kernel.event import KernelStarted
from kernel.log import read
from kernel.plugin import Options, Plugin

O = TypeVar("O", bound=Options)  # noqa: E741 - as kernel.plugin calls it

PLUGINS = "stepreel.plugins"
COMMANDS = "stepreel.commands"


class Part(msgspec.Struct, frozen=True):
    """A plugin that was found, with what it needs to begin."""

    name: str
    plugin: type[Plugin[Any]]
    options: Options
    required: bool


def wire(config: Config) -> list[Part]:
    """The plugins of a configuration, in its order. Raises `ConfigRefused` with every fault of every table."""
    _make_importable(config.file)
    problems = list(config.problems)
    parts = [_part(config, name, dict(table), problems) for name, table in config.settings.plugins.items()]
    if not parts and not problems:
        problems.append(f"{config.file}: names no plugin; add a table such as [plugins.runner] with its `use`")
    if problems:
        raise ConfigRefused(problems)
    return [part for part in parts if part is not None]


def find(use: str) -> type[Plugin[Any]]:
    """The plugin class behind a dotted path or an entry-point name. Raises `ValueError` with what is wrong."""
    path = use if ":" in use else entry_points(PLUGINS).get(use)
    if path is None:
        known = ", ".join(sorted(entry_points(PLUGINS))) or "none"
        raise ValueError(f'no plugin is called "{use}" (installed are: {known}); or write it as "module:Class"')
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f'there is no module "{error.name}" to import for "{path}"; install it, or put its folder on PYTHONPATH'
        ) from None
    except Exception as error:  # noqa: BLE001 - whatever a stranger's module raises, the user gets one sentence
        raise ValueError(f'importing "{module_name}" failed: {type(error).__name__}: {error}') from None
    plugin = getattr(module, attribute, None)
    if not (isinstance(plugin, type) and issubclass(plugin, Plugin)):
        raise ValueError(f'"{attribute}" in {module_name} is not a plugin class')
    return plugin


def last_options(home: Path, kind: type[Plugin[O]]) -> O | None:
    """A plugin's options in the configuration that the home was last run with; None where that is gone, or has none.

    Raises `HomeRefused` where the log is damaged.
    """
    last: KernelStarted | None = None
    for record in read(home, KernelStarted):
        if record.event.config:
            last = record.event
    try:
        tables = read_config(Path(last.config)).settings.plugins if last else {}
    except ConfigRefused:
        return None
    ours = f"{kind.__module__}:{kind.__qualname__}"
    for name in (name for name, use in last.plugins.items() if use == ours) if last else ():
        table = {key: value for key, value in tables.get(name, {}).items() if key not in ("use", "required")}
        options = convert(table, kind.options_type, f"[plugins.{name}]", [])
        if options is not None:
            return cast("O", options)
    return None


def entry_points(group: str) -> dict[str, str]:
    """The names in an entry-point group, each with its `module:attribute`."""
    return {point.name: point.value for point in importlib.metadata.entry_points(group=group)}


def _part(config: Config, name: str, table: dict[str, Any], problems: list[str]) -> Part | None:
    place = config.place(f"plugins.{name}")
    use, required = table.pop("use", None), table.pop("required", None)
    if not isinstance(use, str):
        problems.append(f'{place} use: is required; name the plugin, such as use = "plugins.pruner:Pruner"')
        return None
    if not isinstance(required, bool | None):
        problems.append(f"{place} required: expected true or false; it is {required!r}")
        return None
    try:
        plugin = find(use)
    except ValueError as error:
        problems.append(f"{place} use: {error}")
        return None
    options = convert(table, plugin.options_type, place, problems)
    if options is None:
        return None
    return Part(name, plugin, options, plugin.required if required is None else required)


def _make_importable(config_file: Path) -> None:
    """Let a plugin lie where the command is started or beside its configuration; behind all else, to hide nothing."""
    for folder in (Path.cwd(), config_file.resolve().parent):
        if str(folder) not in sys.path and not ("" in sys.path and folder == Path.cwd()):
            sys.path.append(str(folder))
