"""`install()` and the start-up file: the libraries' recording wrappers are ours, in children too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from plugins.recorder import install
from tests.wrappers.pythons import ran, said

HOOKS = Path(install.HOOKS)


def path(*folders: Path) -> str:
    """PYTHONPATH with these folders in front."""
    return os.pathsep.join(filter(None, [*map(str, folders), os.environ.get("PYTHONPATH")]))


SWITCHED_ON = {"STEPREEL_INSTALL": "1", "PYTHONPATH": path(HOOKS)}

ALREADY = """
import gymnasium as gym
import stepreel
stepreel.install()
"""
LATER = """
import sys, stepreel
stepreel.install()
assert not {"gymnasium", "numpy", "stable_baselines3", "pettingzoo", "torch"} & set(sys.modules), "it was imported"
import gymnasium as gym
"""


@pytest.mark.parametrize("order", [ALREADY, LATER], ids=["imported already", "imported later"])
@pytest.mark.parametrize(
    "way",
    [
        "wanted = gym.wrappers.RecordVideo",
        "wanted = gym.wrappers.rendering.RecordVideo",
        "from gymnasium.wrappers import RecordVideo as wanted",
        "from gymnasium.wrappers.rendering import RecordVideo as wanted",
        "import gymnasium.wrappers as w; wanted = getattr(w, 'RecordVideo')",
        "from gymnasium import wrappers; wanted = wrappers.RecordVideo",
        "import importlib; wanted = importlib.reload(gym.wrappers.rendering).RecordVideo",
    ],
)
def test_gymnasiums_record_video_is_ours_by_whatever_way_it_is_had(tmp_path: Path, order: str, way: str) -> None:
    code = f"{order}\n{way}\nprint(wanted is stepreel.RecordVideo, wanted.__module__)"
    assert said("-c", code, cwd=tmp_path) == "True plugins.recorder.wrappers"


@pytest.mark.parametrize("order", [ALREADY, LATER], ids=["imported already", "imported later"])
def test_the_vector_wrapper_is_ours_where_gymnasium_has_one_and_is_added_to_no_other(
    tmp_path: Path, order: str
) -> None:
    shown = """
for module in (gym.wrappers.vector, gym.wrappers.vector.rendering):
    print(getattr(getattr(module, 'RecordVideo', None), '__module__', None))
"""
    theirs = said("-c", "import gymnasium as gym" + shown, cwd=tmp_path)
    ours = said("-c", order + shown, cwd=tmp_path)
    assert ours == theirs.replace("gymnasium.wrappers.vector.rendering", "plugins.recorder.vector")


OTHERS = {
    "stable_baselines3": """
from stable_baselines3.common import vec_env
from stable_baselines3.common.vec_env.vec_video_recorder import VecVideoRecorder
assert vec_env.VecVideoRecorder is VecVideoRecorder is stepreel.VecVideoRecorder
""",
    "pettingzoo": """
from pettingzoo.utils import wrappers
from pettingzoo.utils.wrappers import record_video as aec, record_video_parallel as parallel
assert wrappers.RecordVideo is aec.RecordVideo is stepreel.PettingZooRecordVideo
assert wrappers.RecordVideoParallel is parallel.RecordVideoParallel is stepreel.PettingZooRecordVideoParallel
""",
}


@pytest.mark.parametrize("already", [True, False])
@pytest.mark.parametrize("library", OTHERS)
def test_the_other_libraries_wrappers_are_ours(tmp_path: Path, library: str, already: bool) -> None:  # noqa: FBT001 - a case
    if find_spec(library) is None:
        assert os.environ.get("CI") != "true", f"{library} is not installed, and in CI it has to be"
        pytest.skip(f"{library} is not installed")
    before = f"import stepreel\n{OTHERS[library].partition('assert')[0] if already else ''}\nstepreel.install()\n"
    assert said("-W", "ignore", "-c", f"{before}{OTHERS[library]}print('ours')", cwd=tmp_path) == "ours"


def test_installing_twice_is_installing_once(tmp_path: Path) -> None:
    code = """
import os, sys, stepreel
stepreel.install()
once = dict(os.environ), list(sys.meta_path)
stepreel.install()
print(once == (dict(os.environ), list(sys.meta_path)))
import gymnasium
stepreel.install()
print(once[0]["PYTHONPATH"] == os.environ["PYTHONPATH"], gymnasium.wrappers.RecordVideo is stepreel.RecordVideo)
"""
    assert said("-c", code, cwd=tmp_path).split() == ["True"] * 3


def test_what_a_script_took_before_stays_what_it_was(tmp_path: Path) -> None:
    code = """
import gymnasium
from gymnasium.wrappers import RecordVideo
class Mine(RecordVideo):
    pass
import stepreel
stepreel.install()
print(RecordVideo.__module__, Mine.__bases__ == (RecordVideo,), RecordVideo is gymnasium.wrappers.RecordVideo)
"""
    assert said("-c", code, cwd=tmp_path) == "gymnasium.wrappers.rendering True False"


@pytest.mark.parametrize("first", ["stepreel", "plugins.recorder.wrappers"])
def test_ours_may_be_imported_before_gymnasium_which_it_imports_itself(tmp_path: Path, first: str) -> None:
    """As in a spawned child that is sent the class."""
    code = f"""
from {first} import RecordVideo
import gymnasium.wrappers.rendering
print([place.RecordVideo is RecordVideo for place in (gymnasium.wrappers, gymnasium.wrappers.rendering)])
"""
    assert said("-c", code, cwd=tmp_path, env=SWITCHED_ON) == "[True, True]"


def test_what_a_script_puts_there_itself_stays(tmp_path: Path) -> None:
    code = """
import gymnasium
class Mine(gymnasium.wrappers.RecordVideo):
    pass
gymnasium.wrappers.RecordVideo = gymnasium.wrappers.rendering.RecordVideo = Mine
import stepreel
stepreel.RecordVideo, stepreel.RecordVideoVector
import importlib
importlib.reload(gymnasium.wrappers.vector.rendering)
print(gymnasium.wrappers.RecordVideo is gymnasium.wrappers.rendering.RecordVideo is Mine)
"""
    assert said("-c", code, cwd=tmp_path, env=SWITCHED_ON) == "True"


def test_an_environment_is_an_instance_of_the_wrapper_by_the_librarys_name(tmp_path: Path) -> None:
    code = """
import gymnasium, stepreel
stepreel.install()
env = gymnasium.make("CartPole-v1", render_mode="rgb_array")
wrapped = gymnasium.wrappers.RecordVideo(env, "videos")
outermost = gymnasium.wrappers.TimeLimit(wrapped, 5)
print(
    [isinstance(e, gymnasium.wrappers.RecordVideo) for e in (env, wrapped, outermost.env, outermost)],
    isinstance(wrapped, gymnasium.Wrapper),
)
"""
    assert said("-W", "ignore", "-c", code, cwd=tmp_path) == "[False, True, True, False] True"


CHILD = "import gymnasium; print(gymnasium.wrappers.RecordVideo.__module__)"
CHILDREN = {
    "subprocess": f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}], check=True)",
    "a grandchild": (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', "
        f'\'import subprocess, sys; subprocess.run([sys.executable, "-c", "{CHILD}"])\'], check=True)'
    ),
    "os.system": f"import os, sys; os.system(f'{{sys.executable}} -c \"{CHILD}\"')",
    **{
        way: f"import multiprocessing; context = multiprocessing.get_context('{way}')\n"
        "    process = context.Process(target=module.child); process.start(); process.join()"
        for way in ("spawn", "forkserver", "fork")
    },
    "an executor": (
        "import multiprocessing as m; from concurrent.futures import ProcessPoolExecutor as P\n"
        "    with P(1, m.get_context('spawn')) as pool: pool.submit(module.child).result()"
    ),
}


@pytest.mark.parametrize("kind", CHILDREN)
def test_the_children_of_a_script_record_with_ours(tmp_path: Path, kind: str) -> None:
    (tmp_path / "module.py").write_text(f"def child():\n    {CHILD}\n    import sys; sys.stdout.flush()")
    script = f"import module, stepreel\nif __name__ == '__main__':\n    stepreel.install()\n    {CHILDREN[kind]}\n"
    (tmp_path / "train.py").write_text(script)
    assert said("-W", "ignore", "train.py", cwd=tmp_path) == "plugins.recorder.wrappers"


# The start-up file ---------------------------------------------------------------------------------------------------

STATE = "import json, sys; print(json.dumps([sys.path, sorted(sys.modules), getattr(sys, 'other', None)]))"


def test_a_python_starts_as_if_the_start_up_file_were_not_there(tmp_path: Path) -> None:
    path, modules, _ = json.loads(said("-c", STATE, cwd=tmp_path))
    hooked_path, hooked_modules, _ = json.loads(said("-c", STATE, cwd=tmp_path, env=SWITCHED_ON))
    assert hooked_path == path
    more = set(hooked_modules) - set(modules)
    assert more <= {
        "plugins.recorder.install",
        "sitecustomize",
        "__future__",
        "importlib",
        "importlib.machinery",
        "warnings",
    }


def test_it_does_nothing_where_it_is_switched_off(tmp_path: Path) -> None:
    code = (
        "import sys, gymnasium; print(gymnasium.wrappers.RecordVideo.__module__, 'plugins' in str(sys.modules.keys()))"
    )
    off = {**SWITCHED_ON, "STEPREEL_INSTALL": "0"}
    assert said("-c", code, cwd=tmp_path, env=off) == "gymnasium.wrappers.rendering False"


@pytest.mark.parametrize("switch", ["1", None])
def test_another_start_up_file_runs_as_if_ours_were_not_there(tmp_path: Path, switch: str | None) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.other = [__name__, __file__, list(sys.path)]")
    code = f"{STATE}; import sitecustomize; assert sitecustomize.__file__ == sys.other[1]"
    _, _, alone = json.loads(said("-c", code, cwd=tmp_path, env={"PYTHONPATH": path(tmp_path)}))
    ours_first = {"PYTHONPATH": path(HOOKS, tmp_path), "STEPREEL_INSTALL": switch}
    _, _, behind_ours = json.loads(said("-c", code, cwd=tmp_path, env=ours_first))
    assert behind_ours == alone
    assert alone[0] == "sitecustomize"


@pytest.mark.parametrize(
    "fault", ["raise OSError('mine')", "import no_such_module", "import sitecustomize.part", "def"]
)
def test_a_fault_of_another_start_up_file_is_told_as_python_tells_it(tmp_path: Path, fault: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(fault)
    alone = ran("-c", "print('started')", cwd=tmp_path, env={"PYTHONPATH": path(tmp_path)})
    ours_first = {"STEPREEL_INSTALL": "1", "PYTHONPATH": path(HOOKS, tmp_path)}
    behind_ours = ran("-c", "print('started')", cwd=tmp_path, env=ours_first)
    assert (behind_ours.returncode, behind_ours.stdout) == (alone.returncode, alone.stdout) == (0, "started\n")
    assert behind_ours.stderr == alone.stderr
    assert "Error" in alone.stderr


@pytest.mark.parametrize("fault", ["gone", "broken", "unreadable"])
def test_a_python_starts_whatever_is_wrong_with_ours(tmp_path: Path, fault: str) -> None:
    shutil.copytree(HOOKS, tmp_path / "recorder" / "hooks")
    if fault == "broken":
        (tmp_path / "recorder" / "install.py").write_text("watch = 1 / 0")
    elif fault == "unreadable":
        (tmp_path / "recorder" / "install.py").mkdir()
    done = ran(
        "-c", "print('started')", cwd=tmp_path,
        env={"STEPREEL_INSTALL": "1", "PYTHONPATH": str(tmp_path / "recorder" / "hooks")},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "started\n")
    assert done.stderr.startswith("stepreel: ")
    assert done.stderr.count("\n") == 1


def test_a_python_without_a_stderr_starts_whatever_is_wrong_with_ours(tmp_path: Path) -> None:
    shutil.copytree(HOOKS, tmp_path / "recorder" / "hooks")
    env = {**os.environ, "STEPREEL_INSTALL": "1", "PYTHONPATH": str(tmp_path / "recorder" / "hooks")}
    command = [shutil.which("sh") or "sh", "-c", f'"{sys.executable}" -c "print(1)" 2>&-']
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True, timeout=60)
    assert done.stdout == b"1\n"


def test_the_python_of_an_environment_without_stepreel_is_left_alone(tmp_path: Path) -> None:
    """It has a Gymnasium; here, one that is laid out like it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "other")], check=True, timeout=60)
    (package := tmp_path / "theirs" / "gymnasium" / "wrappers").mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "__init__.py").write_text("from gymnasium.wrappers.rendering import RecordVideo")
    (package / "rendering.py").write_text("class RecordVideo:\n    pass\n")
    code = """
import importlib.util
assert importlib.util.find_spec("stepreel") is None
import gymnasium.wrappers
print(gymnasium.wrappers.RecordVideo.__module__)
try:
    import kernel.event
except ModuleNotFoundError as missing:
    print(missing)
"""
    done = ran(
        "-c", code, cwd=tmp_path, program=tmp_path / "other" / "bin" / "python",
        env={"STEPREEL_INSTALL": "1", "PYTHONPATH": os.pathsep.join([str(HOOKS), str(tmp_path / "theirs")])},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("gymnasium.wrappers.rendering\nNo module named 'kernel'\n", "")


def test_what_is_wrong_with_ours_is_said_once_and_the_scripts_import_goes_on(tmp_path: Path) -> None:
    (tmp_path / "plugins.py").write_text("")
    done = ran(
        "-c", "import gymnasium; print(gymnasium.wrappers.RecordVideo.__module__)", cwd=tmp_path, env=SWITCHED_ON
    )
    assert (done.returncode, done.stdout) == (0, "gymnasium.wrappers.rendering\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith("stepreel: gymnasium.wrappers.")
    assert line.endswith(
        f'stays as it is: {tmp_path / "plugins.py"} hides Stepreel\'s own package "plugins": rename it'
    )


def test_the_source_of_a_replaced_module_can_still_be_had(tmp_path: Path) -> None:
    code = "import inspect, gymnasium.wrappers.rendering as r; print('class RecordVideo' in inspect.getsource(r))"
    assert said("-c", code, cwd=tmp_path, env=SWITCHED_ON) == "True"
