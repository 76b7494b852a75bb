"""The docs say what the code does: every command, option, event and exit code has its place, and every example runs."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

import kernel.cli
from kernel.config import Settings
from kernel.event import Event, catalogue
from kernel.runtime import Outcome
from plugins.check_home import check_home as check_home_command
from tests.end_to_end.homes import check_home, run_kernel

if TYPE_CHECKING:
    from kernel.plugin import Plugin

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
INSTALLED = {
    point.name: point.load() for point in importlib.metadata.entry_points(group="stepreel.plugins")
}  # also declares every event type
PLUGIN_PAGES = {
    "collector": "collector",
    "runner": "env_runner",
    "encoder": "encoder_pool",
    "sqlite": "sqlite_sink",
    "pruner": "pruner",
    "progress": "progress",
    "viewer": "viewer",
}


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def headings(page: Path) -> set[str]:
    return set(re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE))


OURS = sorted(
    (kind for kind in catalogue.values() if kind.__module__ in ("kernel.event", "plugins.events")),
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_every_event_and_each_of_its_fields_is_documented(kind: type[Event]) -> None:
    page = (ROOT / "docs" / "events.md").read_text()
    section = re.search(rf"^### {kind.__name__}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    assert section is not None, f"docs/events.md has no heading for {kind.__name__}"
    documented = re.findall(r"^\| `(\w+)` ", section[1], re.MULTILINE)
    assert documented == [field.name for field in msgspec.structs.fields(kind)]


@pytest.mark.parametrize("name", sorted(INSTALLED))
def test_every_option_of_a_plugin_is_documented_on_its_page(name: str) -> None:
    plugin: type[Plugin[msgspec.Struct]] = INSTALLED[name]  # type: ignore[type-var]  # only its options are looked at
    page = (ROOT / "docs" / f"{PLUGIN_PAGES[name]}.md").read_text()
    missing = [
        field.encode_name
        for field in msgspec.structs.fields(plugin.options_type)
        if f"`{field.encode_name}`" not in page and f".{field.encode_name}]`" not in page
    ]
    assert not missing, f"docs/{PLUGIN_PAGES[name]}.md does not name {missing}"


def test_every_command_and_exit_code_is_documented() -> None:
    page = ROOT / "docs" / "command_line.md"
    for name in [
        *kernel.cli.app,
        *(point.name for point in importlib.metadata.entry_points(group="stepreel.commands")),
    ]:
        if not name.startswith("-"):
            assert any(name in heading.split(", ") for heading in headings(page)), f"{name} has no heading"
    for outcome in Outcome:
        assert f"| {int(outcome)} | `{outcome.name}` |" in page.read_text()


def test_every_key_of_the_top_level_is_documented() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    for field in msgspec.structs.fields(Settings):
        assert f"`{field.name}`" in page or f"## `[{field.name}" in page


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_toml_example_is_a_configuration_that_our_plugins_accept(page: Path, tmp_path: Path) -> None:
    """Examples show one table or several; the options are looked at, the rest is the run's business."""
    for example in blocks(page, "toml"):
        document = tomllib.loads(example)
        for name, table in document.pop("plugins", {}).items():
            if "use" not in table:  # a part of our runner's table
                assert name == "runner", example
                table.update(use="plugins.env_runner:EnvRunner", env="CartPole-v1")
            use = table.pop("use")
            table.pop("required", None)
            if use.startswith("plugins."):
                module, _, attribute = use.partition(":")
                plugin = getattr(importlib.import_module(module), attribute)
                problems: list[str] = []
                kernel.config.convert(table, plugin.options_type, f"{page.name}:", problems)
                assert not problems
        problems = []
        kernel.config.convert(document, Settings, f"{page.name}:", problems)
        assert not problems


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's first command was run."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "config", folder / "config")
    (run,) = [
        line for line in blocks(ROOT / "README.md", "bash")[0].splitlines() if line.startswith("python -m kernel")
    ]
    done = subprocess.run(
        [sys.executable, *shlex.split(run)[1:]], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    check_home(folder / "runtime" / "data")
    return folder


def test_the_commands_of_the_docs_run(recorded: Path, tmp_path: Path) -> None:
    """On a copy of the recorded folder, with the quickstart as config.toml."""
    folder = tmp_path / "work"
    shutil.copytree(recorded, folder)
    shutil.copy(folder / "config" / "quickstart.toml", folder / "config.toml")
    assert check_home_command(folder / "runtime" / "data", repair=True) == 1  # the copies of the videos are other files
    commands = [line for page in PAGES for block in blocks(page, "bash") for line in block.splitlines()]
    ran = 0
    for command in commands:
        if not command.startswith("python -m kernel ") or "--follow" in command:
            continue
        done = subprocess.run(
            [sys.executable, *shlex.split(command)[1:]], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        ran += 1
    assert ran >= 12


def test_the_readmes_query_answers_with_places_in_videos(recorded: Path) -> None:
    (query,) = blocks(ROOT / "README.md", "sql")
    connection = sqlite3.connect(recorded / "runtime" / "data" / "stepreel.sqlite")
    answer = connection.execute(query).fetchall()
    connection.close()
    assert [episode for _, _, episode, _, _ in sorted(answer, key=lambda row: row[2])] == list(range(0, 40, 5))
    for path, at_seconds, _, step, reward in answer:
        assert (recorded / "runtime" / "data" / path).is_file()
        assert at_seconds == round(step / 50, 2)
        assert reward == 1.0


def test_the_readmes_plugin_runs_from_a_folder_of_its_own(tmp_path: Path) -> None:
    (code,) = blocks(ROOT / "README.md", "python")
    (table,) = blocks(ROOT / "README.md", "toml")
    assert len(code.splitlines()) <= 25
    (tmp_path / "leaderboard.py").write_text(code)
    config = tmp_path / "my.toml"
    config.write_text((ROOT / "config" / "quickstart.toml").read_text() + table)
    listed = subprocess.run(
        [sys.executable, "-m", "kernel", "events", str(config)], cwd="/", capture_output=True, text=True, check=True
    )
    assert "NewBest" in listed.stdout
    code_of_run, _, err = run_kernel(config, "--set", "plugins.runner.episodes=10", cwd=tmp_path)
    assert code_of_run == 0, err
    tail = subprocess.run(
        [sys.executable, "-m", "kernel", "tail", "runtime/data", "--since", "0", "--type", "NewBest"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "env_id=CartPole-v1" in tail.stdout


def test_the_plugin_of_the_authors_page_and_its_test_run(tmp_path: Path) -> None:
    plugin, test = blocks(ROOT / "docs" / "writing_a_plugin.md", "python")
    (tmp_path / "reward_file.py").write_text(plugin)
    (tmp_path / "conftest.py").write_text(
        "import pytest\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
    )
    (tmp_path / "test_reward_file.py").write_text(
        test.replace("async def", "@pytest.mark.anyio\nasync def").replace("import anyio", "import pytest")
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_every_promise_names_tests_that_are_there() -> None:
    there = {
        name for file in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "guarantees.md").read_text()))
    assert len(named) > 15
    assert named <= there, f"docs/guarantees.md names tests that are not there: {sorted(named - there)}"
