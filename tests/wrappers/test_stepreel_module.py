"""`import stepreel`: light, lazy, and plain about what is missing or in the way."""

from __future__ import annotations

import json
import os
import statistics
from typing import TYPE_CHECKING

import pytest

import stepreel
from tests.kernel.ticks import ROOT
from tests.wrappers.pythons import ran, said

if TYPE_CHECKING:
    from pathlib import Path

IMPORT = """
import json, sys, time
import gymnasium, numpy
before, begun = set(sys.modules), time.process_time()
import stepreel
from stepreel import Keep, RecordVideo, install
print(json.dumps([time.process_time() - begun, sorted(set(sys.modules) - before)]))
"""


def test_importing_costs_less_than_60_milliseconds_beyond_gymnasium_and_numpy(tmp_path: Path) -> None:
    """21 ms where this was written; of several, the one in the middle, so that a busy machine matters little."""
    as_installed = {"PYTHONDONTWRITEBYTECODE": None}
    said("-c", IMPORT, cwd=tmp_path, env=as_installed)
    costs = [json.loads(said("-c", IMPORT, cwd=tmp_path, env=as_installed))[0] for _ in range(5)]
    assert statistics.median(costs) < 0.060, costs


def test_importing_brings_no_event_loop_and_none_of_the_recorder_process(tmp_path: Path) -> None:
    _, brought = json.loads(said("-c", IMPORT, cwd=tmp_path))
    assert "plugins.recorder.wrappers" in brought
    assert not {"asyncio", "anyio", "aiosqlite", "sqlite3", "rich", "cyclopts"} & set(brought)


def test_a_name_is_resolved_when_it_is_used_and_not_before(tmp_path: Path) -> None:
    code = """
import sys
import stepreel
assert set(stepreel.__all__) <= set(dir(stepreel))
print([name for name in sys.modules if name.partition(".")[0] in ("kernel", "plugins", "gymnasium", "numpy")])
print(stepreel.Keep.__name__, stepreel.Keep is stepreel.Keep, "plugins.events" in sys.modules)
"""
    assert said("-c", code, cwd=tmp_path).splitlines() == ["[]", "Keep True True"]


def test_there_is_nothing_beside_what_is_offered() -> None:
    with pytest.raises(AttributeError, match="module 'stepreel' has no attribute 'RecordVidoe'"):
        stepreel.RecordVidoe  # noqa: B018 - looking is the test


@pytest.mark.parametrize(
    ("name", "library", "command"),
    [
        ("VecVideoRecorder", "stable_baselines3", "pip install stable-baselines3"),
        ("PettingZooRecordVideo", "pettingzoo", "pip install pettingzoo"),
        ("PettingZooRecordVideoParallel", "pettingzoo", "pip install pettingzoo"),
    ],
)
def test_a_wrapper_whose_library_is_missing_says_how_it_is_had(
    tmp_path: Path, name: str, library: str, command: str
) -> None:
    code = f"import sys; sys.modules[{library!r}] = None; import stepreel; from stepreel import {name}"
    done = ran("-c", code, cwd=tmp_path)
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: stepreel.{name} needs "), done.stderr
    assert last.endswith(f", which is not installed here: {command}")
    assert "During handling" not in done.stderr


NAMESAKES = {
    "plugins/__init__.py": ("plugins", True),
    "kernel/__init__.py": ("kernel", True),
    "plugins.py": ("plugins.py", False),
    "plugins/events.py": ("plugins", False),
    "plugins/recorder/models.py": ("plugins", False),
}
"""A file of the user's; what is in the way; and whether both could be found, as no module has the same name."""


@pytest.mark.parametrize("installed", ["editable", "on the path"])
@pytest.mark.parametrize("file", NAMESAKES)
def test_what_hides_our_packages_is_named_in_one_sentence_with_the_way_out(
    tmp_path: Path, file: str, installed: str
) -> None:
    in_the_way, both_can_be_found = NAMESAKES[file]
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    if path.parent != tmp_path:  # without an __init__.py, it only hides a package that is not on the path itself
        (tmp_path / in_the_way / "__init__.py").write_text("print('imported')")
    (tmp_path / "train.py").write_text("import stepreel")
    python_path = os.environ.get("PYTHONPATH", "")
    if installed == "on the path":
        python_path = f"{ROOT}{os.pathsep}{python_path}"
    done = ran("train.py", cwd=tmp_path, env={"PYTHONPATH": python_path or None})
    name = in_the_way.removesuffix(".py")
    way = 'rename it, or start the script with "stepreel exec", which finds both' if both_can_be_found else "rename it"
    assert done.stderr.splitlines()[-1] == (
        f'ImportError: {tmp_path / in_the_way} hides Stepreel\'s own package "{name}": {way}'
    )
    assert done.returncode == 1
    assert done.stdout == "", "the user's own package was imported for it"


def test_a_module_that_a_script_made_by_hand_is_in_the_way_too(tmp_path: Path) -> None:
    code = "import sys, types; sys.modules['plugins'] = types.ModuleType('plugins'); import stepreel"
    done = ran("-c", code, cwd=tmp_path)
    assert done.stderr.splitlines()[-1].startswith('ImportError: a module "plugins" made by hand hides Stepreel\'s')


def test_a_namesake_that_comes_onto_the_path_later_is_named_when_a_wrapper_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "lib" / "plugins").mkdir(parents=True)
    (tmp_path / "lib" / "plugins" / "__init__.py").write_text("")
    code = "import sys, stepreel; sys.path.insert(0, 'lib'); stepreel.RecordVideo"
    done = ran("-c", code, cwd=tmp_path)
    assert "hides Stepreel's own package" in done.stderr.splitlines()[-1]


def test_no_folder_of_ours_is_taken_for_a_namesake_from_wherever_it_is_imported(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(ROOT)
    for folder, path in ((ROOT, None), (tmp_path, str(link)), (link, str(ROOT))):
        assert (
            said("-c", "import stepreel; print(stepreel.Keep.__name__)", cwd=folder, env={"PYTHONPATH": path}) == "Keep"
        )
