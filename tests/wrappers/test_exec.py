"""`stepreel exec`: the script runs as Python would run it, and records with ours."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from plugins.recorder import install
from tests.kernel.ticks import ROOT
from tests.wrappers.pythons import STEPREEL, ran

if TYPE_CHECKING:
    from pathlib import Path

ROUTES = ([str(STEPREEL), "exec"], [sys.executable, "-m", "kernel", "exec"])

FACTS = """
import json, os, sys
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "name": __name__, "file": os.path.abspath(__file__), "flags": list(sys.flags),
    "prefix": sys.prefix, "package": __package__, "spec": getattr(__spec__, "name", None),
    "main": vars(sys.modules["__main__"]) is globals(),
    "environment": dict(os.environ), "input": sys.stdin.read(),
}))
"""
OF_A_START = {"_", "SHLVL", "PYTHONPATH", "STEPREEL_INSTALL"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the user stands, with a script, one in a folder, and a package."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    for name in ("train.py", "scripts/train.py", "package/module.py", "package/__main__.py"):
        (tmp_path / name).write_text(FACTS)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["train.py", "--seed", "1"],
        ["./scripts/train.py"],
        ["package", "in", "a", "folder"],
        ["-m", "package.module", "--home", "mine", "-m", "x"],
        ["-m", "package"],
        [
            "train.py",
            "--help",
            "-h",
            "--version",
            "--",
            "--home=x",
            "-",
            "",
            "a b",
            "--config",
            '{"a": [1]}',
            "@file",
            "*",
        ],
    ],
    ids=" ".join,
)
def test_a_script_finds_everything_as_python_alone_gives_it(folder: Path, words: list[str]) -> None:
    facts = []
    for route in ([sys.executable], *ROUTES):
        done = subprocess.run([*route, *words], cwd=folder, input="typed", capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        fact = json.loads(done.stdout)
        fact["environment"] = {name: fact["environment"][name] for name in fact["environment"].keys() - OF_A_START}
        facts.append(fact)
    assert facts[1] == facts[0]
    assert facts[2] == facts[0]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("", 0),
        ("sys.exit(7)", 7),
        ("sys.exit('a sentence')", 1),
        ("1 / 0", 1),
        ("os._exit(3)", 3),
        ("os.abort()", -signal.SIGABRT),
    ],
)
def test_its_exit_code_is_the_scripts(tmp_path: Path, end: str, code: int) -> None:
    (tmp_path / "train.py").write_text(f"import os, sys\n{end}")
    assert ran("exec", "train.py", cwd=tmp_path, program=STEPREEL).returncode == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_the_script_itself(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "train.py").write_text(f"""
import os, signal, sys, time
def told(number, frame):
    print(number)
    sys.exit(9)
signal.signal({int(number)}, told)
print(os.getpid(), flush=True)
time.sleep(60)
""")
    process = subprocess.Popen([STEPREEL, "exec", "train.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert int(process.stdout.readline()) == process.pid
    process.send_signal(number)
    assert process.communicate(timeout=60)[0].strip() == str(int(number))
    assert process.returncode == 9


def test_ctrl_c_is_the_scripts_keyboard_interrupt(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print('ready', flush=True)\nimport time; time.sleep(60)")
    with subprocess.Popen([STEPREEL, "exec", "train.py"], cwd=tmp_path, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[1].splitlines()[-1] == "KeyboardInterrupt"
    assert process.returncode == -signal.SIGINT


@pytest.mark.parametrize(
    "words", [["--home", "data"], ["--home=data"], ["--home", "x", "--home", "data"], ["--home", "data", "--"]]
)
def test_the_home_is_set_where_it_is_given_and_is_one_place_wherever_the_script_goes(
    tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "train.py").write_text("import os; print(os.environ.get('STEPREEL_HOME'))")
    for given, home in ((words, str(tmp_path / "data")), ([], "before")):
        done = ran("exec", *given, "train.py", cwd=tmp_path, env={"STEPREEL_HOME": "before"}, program=STEPREEL)
        assert (done.stdout.strip(), done.stderr) == (home, "")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian.py", "--seed", "1"], "stepreel exec: there is no script {folder}/trian.py"),
        (
            ["--hmoe", "data", "train.py"],
            "stepreel exec: --hmoe is no option of ours; `stepreel exec --help` names those",
        ),
        (["--home"], "stepreel exec: --home needs a folder"),
        (["--home=", "train.py"], "stepreel exec: --home needs a folder"),
        (["--home", "data"], "stepreel exec: name the script to run, or -m and a module"),
        (["-m"], "stepreel exec: -m needs a module"),
    ],
)
def test_what_cannot_be_run_is_one_sentence_and_the_exit_code_2(folder: Path, words: list[str], sentence: str) -> None:
    done = ran("exec", *words, cwd=folder, program=STEPREEL)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", sentence.format(folder=folder) + "\n")


@pytest.mark.parametrize(("words", "code"), [([], 2), (["-"], 2), (["--help"], 0), (["-h"], 0)])
def test_who_asks_nothing_gets_the_usage(tmp_path: Path, words: list[str], code: int) -> None:
    done = ran("exec", *words, cwd=tmp_path, program=STEPREEL)
    assert done.returncode == code
    assert (done.stderr if code else done.stdout).startswith(
        "usage: stepreel exec [--home DIR] SCRIPT [ARGUMENT ...]\n"
    )


def test_a_path_of_the_users_comes_behind_ours_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import os; print(os.environ['PYTHONPATH'])")
    for path in ("", "a", os.pathsep + "a"):
        done = ran("exec", "train.py", cwd=tmp_path, env={"PYTHONPATH": path}, program=STEPREEL)
        assert done.stdout.strip() == (install.HOOKS + os.pathsep + path if path else install.HOOKS)


TRAINING = """
import gymnasium as gym
{line}
if __name__ == "__main__":
    env = RecordVideo(gym.make("CartPole-v1", render_mode="rgb_array"), "videos", episode_trigger=lambda episode: True)
    for episode in range(2):
        env.reset(seed=episode)
        ended = False
        while not ended:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            ended = terminated or truncated
    env.close()
    print(type(env).__module__)
"""


@pytest.mark.parametrize(
    "line", ["from gymnasium.wrappers import RecordVideo", "RecordVideo = gym.wrappers.RecordVideo"]
)
def test_a_script_that_nobody_edited_records_with_ours(tmp_path: Path, line: str) -> None:
    (tmp_path / "train.py").write_text(TRAINING.format(line=line))
    done = ran("exec", "--home", "data", "train.py", cwd=tmp_path, program=STEPREEL)
    assert (done.returncode, done.stdout.strip()) == (0, "plugins.recorder.wrappers"), done.stderr
    assert sorted(file.name for file in (tmp_path / "videos").iterdir()) == [
        "rl-video-episode-0.mp4",
        "rl-video-episode-1.mp4",
    ]
    assert (tmp_path / "data" / "log").is_dir()
    assert not (tmp_path / ".stepreel").exists()


def test_the_children_of_a_script_that_nobody_edited_record_with_ours(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text("import gymnasium; print(gymnasium.wrappers.RecordVideo.__module__)")
    (tmp_path / "train.py").write_text(
        "import subprocess, sys; subprocess.run([sys.executable, 'child.py'], check=True)"
    )
    done = ran("exec", "train.py", cwd=tmp_path, program=STEPREEL)
    assert (done.stdout, done.stderr) == ("plugins.recorder.wrappers\n", "")


OWN = """
import pkgutil, plugins, kernel
assert [module.name for module in pkgutil.iter_modules(plugins.__path__)] == ["mine"], "they see none of ours"
import plugins.mine, kernel.mine
assert plugins.here and kernel.here and plugins.mine.here and kernel.mine.here
"""


@pytest.mark.parametrize("first", ["", OWN], ids=["ours first", "theirs first"])
def test_a_script_may_have_a_plugins_and_a_kernel_of_its_own(tmp_path: Path, first: str) -> None:
    """The way out that `import stepreel` names where these hide ours."""
    for package in ("plugins", "kernel"):
        (tmp_path / package).mkdir()
        for module in ("__init__", "mine"):
            (tmp_path / package / f"{module}.py").write_text("here = True")
    line = f"{first}\nfrom stepreel import RecordVideo\n{OWN}"
    (tmp_path / "train.py").write_text(TRAINING.format(line=line))
    done = ran("exec", "train.py", cwd=tmp_path, program=STEPREEL)
    assert (done.returncode, done.stdout.strip()) == (0, "plugins.recorder.wrappers"), done.stderr
    assert (tmp_path / "videos" / "rl-video-episode-1.mp4").is_file()


def test_a_spawned_child_of_such_a_script_finds_both(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "__init__.py").write_text("here = True")
    (tmp_path / "train.py").write_text("""
import multiprocessing
def child(wrapper):
    import plugins
    print(plugins.here, wrapper.__module__, flush=True)
if __name__ == "__main__":
    from gymnasium.wrappers import RecordVideo
    process = multiprocessing.get_context("spawn").Process(target=child, args=(RecordVideo,))
    process.start()
    process.join()
""")
    done = ran("exec", "train.py", cwd=tmp_path, program=STEPREEL)
    assert (done.stdout, done.stderr) == ("True plugins.recorder.wrappers\n", "")


@pytest.mark.parametrize("file", ["plugins.py", "plugins/events.py"])
def test_what_cannot_be_told_apart_is_said_and_the_script_runs_with_what_it_has(tmp_path: Path, file: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("")
    (tmp_path / file).parent.joinpath("__init__.py").write_text("")
    (tmp_path / "train.py").write_text("import gymnasium; print(gymnasium.wrappers.RecordVideo.__module__)")
    done = ran("exec", "train.py", cwd=tmp_path, program=STEPREEL)
    assert (done.returncode, done.stdout) == (0, "gymnasium.wrappers.rendering\n")
    (line,) = done.stderr.splitlines()
    assert line.endswith(f'{tmp_path / file.partition("/")[0]} hides Stepreel\'s own package "plugins": rename it')


def test_the_pages_own_script_and_command_run(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "exec.md").read_text()
    (script,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (command,) = re.findall(r"^```bash\nstepreel (.*?)\n```$", page, re.MULTILINE)
    (tmp_path / "train.py").write_text(script)
    done = ran(*command.split(), cwd=tmp_path, program=STEPREEL)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert ran("train.py", cwd=tmp_path).stdout == "True\n"
