from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from kernel.config import convert, read_config
from kernel.wiring import wire
from plugins.env_runner import EnvRunner, EnvRunnerOptions
from plugins.env_runner.options import CaptureOptions
from plugins.events import Keep

if TYPE_CHECKING:
    from kernel.wiring import Part

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/env_runner.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| (.+?) \|", re.MULTILINE)


def rows(text: str) -> dict[str, str]:
    """The options that the tables of a text list, with what they say is the default."""
    return {name: default.partition(" (")[0].strip("`").strip('"') for name, default in ROW.findall(text)}


def defaults(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.encode_name: field.default for field in msgspec.structs.fields(kind)}


def test_the_page_lists_every_option_and_no_other() -> None:
    options, rest = PAGE.split("### `[plugins.runner.capture]`")
    capture, keep = rest.split("### `[plugins.runner.keep]`")
    assert set(rows(options)) == set(defaults(EnvRunnerOptions))
    assert rows(capture) == {name: str(value).lower() for name, value in defaults(CaptureOptions).items()}
    assert rows(keep) == {name: str(value).lower() for name, value in defaults(Keep).items()}


def test_the_defaults_on_the_page_are_those_of_the_code() -> None:
    told = rows(PAGE.split("### `[plugins.runner.capture]`")[0])
    for name, default in defaults(EnvRunnerOptions).items():
        if isinstance(default, int | float | str) and not isinstance(default, bool):
            assert told[name] == (f"{default:g}" if isinstance(default, float) else str(default)), name


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
def test_each_example_on_the_page_is_a_configuration(block: str) -> None:
    table = tomllib.loads(block)["plugins"]["runner"]
    table.pop("use", None)
    problems: list[str] = []
    assert convert({"env": "CartPole-v1", **table}, EnvRunnerOptions, "docs", problems), problems


@pytest.mark.parametrize("name", ["quickstart", "atari", "box2d", "studio"])
def test_each_configuration_is_in_order_and_every_key_has_a_comment(name: str) -> None:
    file = ROOT / "config" / f"{name}.toml"
    parts: list[Part] = wire(read_config(file))
    assert (parts[0].name, parts[-1].name) == ("progress", "runner")
    assert parts[-1].plugin is EnvRunner
    lines = file.read_text().splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if re.match(r"\w+ = ", line) and not line.startswith("use = "):
            assert before.startswith("# "), line
        if line.startswith("["):
            assert before.startswith("# "), line
