"""Wiring: from the names in a configuration to plugin classes with their options."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from kernel.config import ConfigRefused, read_config
from kernel.wiring import entry_points, find, wire

if TYPE_CHECKING:
    from pathlib import Path

PLUGIN = """
from kernel import Options, Plugin

class GreeterOptions(Options):
    words: str
    times: int = 1

class Greeter(Plugin[GreeterOptions]):
    required = {required}
"""


@pytest.fixture(autouse=True)
def _own_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


def written(folder: Path, text: str, module: str = "wiring_test_greeter", required: str = "False") -> Path:
    (folder / f"{module}.py").write_text(PLUGIN.format(required=required))
    (folder / "x.toml").write_text(text)
    return folder / "x.toml"


def problems_of(file: Path) -> list[str]:
    with pytest.raises(ConfigRefused) as refused:
        wire(read_config(file))
    return [problem.replace(f"{file.parent}/", "") for problem in refused.value.problems]


def test_plugins_lie_beside_their_configuration_and_keep_its_order(tmp_path: Path) -> None:
    text = "\n".join(
        f'[plugins.{name}]\nuse = "wiring_test_beside:Greeter"\nwords = "{name}"' for name in ("zoe", "adam", "mia")
    )
    parts = wire(read_config(written(tmp_path, text, "wiring_test_beside")))
    assert [part.name for part in parts] == ["zoe", "adam", "mia"]
    assert [part.options.words for part in parts] == ["zoe", "adam", "mia"]  # type: ignore[attr-defined]  # its own
    assert parts[0].plugin.__qualname__ == "Greeter"


def test_a_module_beside_the_configuration_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wave.py").write_text("raise RuntimeError")
    file = written(tmp_path, '[plugins.a]\nuse = "wiring_test_hidden:Greeter"\nwords = "hi"', "wiring_test_hidden")
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    wire(read_config(file))
    import wave

    assert wave.WAVE_FORMAT_PCM == 1


@pytest.mark.parametrize(("own", "table", "expected"), [
    (False, "", False), (True, "", True), (True, "required = false", False), (False, "required = true", True),
])  # fmt: skip
def test_the_table_decides_whether_a_plugin_is_required(
    tmp_path: Path, *, own: bool, table: str, expected: bool
) -> None:
    module = f"wiring_test_required_{own}_{expected}".lower()
    text = f'[plugins.a]\nuse = "{module}:Greeter"\nwords = "hi"\n{table}'
    (part,) = wire(read_config(written(tmp_path, text, module, str(own))))
    assert part.required is expected


def test_the_faults_of_all_tables_and_of_the_top_come_at_once(tmp_path: Path) -> None:
    text = """
hoem = "x"
[log]
keep_bytes = "much"
[plugins.none]
[plugins.a]
use = "wiring_test_faults:Greeter"
wrods = "hi"
times = "once"
[plugins.b]
use = "wiring_test_nowhere:Greeter"
[plugins.c]
use = "wiring_test_faults:Nobody"
[plugins.d]
use = "collectro"
[plugins.e]
use = "wiring_test_faults:Greeter"
words = "hi"
required = "yes"
"""
    problems = problems_of(written(tmp_path, text, "wiring_test_faults"))
    assert problems[:2] == [
        'x.toml: hoem: unknown key (did you mean "home"?)',
        "x.toml: [log] keep_bytes: expected `int`, got `str`; it is 'much'",
    ]
    known = ", ".join(sorted(entry_points("stepreel.plugins")))
    assert problems[2:] == [
        'x.toml: [plugins.none] use: is required; name the plugin, such as use = "plugins.pruner:Pruner"',
        'x.toml: [plugins.a] wrods: unknown key (did you mean "words"?)',
        "x.toml: [plugins.a] words: is required",
        "x.toml: [plugins.a] times: expected `int`, got `str`; it is 'once'",
        (
            'x.toml: [plugins.b] use: there is no module "wiring_test_nowhere" to import for '
            '"wiring_test_nowhere:Greeter"; install it, or put its folder on PYTHONPATH'
        ),
        'x.toml: [plugins.c] use: "Nobody" in wiring_test_faults is not a plugin class',
        (
            f'x.toml: [plugins.d] use: no plugin is called "collectro" (installed are: {known}); '
            'or write it as "module:Class"'
        ),
        "x.toml: [plugins.e] required: expected true or false; it is 'yes'",
    ]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("import wiring_test_absent", 'there is no module "wiring_test_absent" to import'),
        ("def :", 'importing "{module}" failed: SyntaxError: '),
        ("1 / 0", 'importing "{module}" failed: ZeroDivisionError: division by zero'),
        ("from kernel import Event\nclass Tick(Event): pass", "the event type Tick is already declared by"),
        ("Greeter = 3", '"Greeter" in {module} is not a plugin class'),
    ],
)
def test_a_module_that_cannot_be_used_is_one_sentence(tmp_path: Path, body: str, fault: str) -> None:
    import tests.kernel.ticks  # noqa: F401 - declares Tick

    module = f"wiring_test_bad_{len(body)}"
    file = written(tmp_path, f'[plugins.a]\nuse = "{module}:Greeter"', module)
    (tmp_path / f"{module}.py").write_text(body)
    (problem,) = problems_of(file)
    assert problem.startswith("x.toml: [plugins.a] use: ")
    assert fault.format(module=module) in problem
    assert "\n" not in problem


def test_a_configuration_without_plugins_is_refused(tmp_path: Path) -> None:
    (problem,) = problems_of(written(tmp_path, 'home = "x"'))
    assert problem.startswith("x.toml: names no plugin; add a table such as [plugins.runner]")


def test_every_installed_plugin_can_be_found() -> None:
    installed = entry_points("stepreel.plugins")
    assert installed
    for name, path in installed.items():
        assert find(name) is find(path)
