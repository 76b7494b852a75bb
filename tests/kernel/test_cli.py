"""The command line, as processes: exit codes, signals, one line for each fault, and what people look at."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from typing import TYPE_CHECKING

import pytest

from kernel.event import KernelStopped, PluginState, UnknownEvent
from kernel.log import Log, read, segments
from tests.kernel.ticks import Tick, Tock, answer, ended, line_of, numbers, python, stepreel, ticks, written_log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LITTLE = "tests.kernel.little_plugins"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "x").mkdir()
    return tmp_path / "x"


def config(folder: Path, tables: str, top: str = "") -> Path:
    """A configuration whose home lies beside it; `use` names are those of the little plugins."""
    text = "\n".join(
        line.replace('use = "', f'use = "{LITTLE}:') if ":" not in line else line for line in tables.splitlines()
    )
    (folder / "x.toml").write_text(f'home = "{folder}/home"\n{top}\n{text}\n')
    return folder / "x.toml"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def until_logged(home: Path, *types: type[Tick | Tock | PluginState]) -> None:
    """Wait until the log has an event of these types."""
    deadline = time.monotonic() + 30
    while not any(True for _ in read(home, *types)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def outcome(home: Path) -> str:
    return [record.event.outcome for record in read(home, KernelStopped)][-1]


ENDLESS = '[plugins.count]\nuse = "Count"\ncount = 0\npause_seconds = 0.01\n[plugins.echo]\nuse = "Echo"\n'


# Exit codes and signals ------------------------------------------------------------------------------------------


def test_a_run_that_ends_by_itself_with_everything_done_exits_with_0(folder: Path) -> None:
    file = config(folder, '[plugins.count]\nuse = "Count"\n[plugins.echo]\nuse = "Echo"')
    code, out, err = ended(file)
    assert (code, out, err) == (0, "", "")
    assert numbers(read(folder / "home", Tock)) == list(range(1, 11))
    assert outcome(folder / "home") == "drained"


def test_the_word_run_means_the_same(folder: Path) -> None:
    code, _, err = ended("run", config(folder, '[plugins.count]\nuse = "Count"'), "--set", "plugins.count.count=3")
    assert (code, err) == (0, "")
    assert numbers(read(folder / "home", Tick)) == [1, 2, 3]


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_drains_and_says_so(folder: Path, kind: signal.Signals) -> None:
    work = '[plugins.work]\nuse = "Work"\nseconds = 0.3\n'
    process = stepreel(config(folder, work + ENDLESS))
    until_logged(folder / "home", Tock)
    process.send_signal(kind)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert err == "stopping: the work in hand is finished first; Ctrl-C again stops at once\n"
    said = numbers(read(folder / "home", Tick))
    answered = numbers(read(folder / "home", Tock))
    assert [n for n in answered if n > 0] == said == list(range(1, len(said) + 1))
    assert [n for n in answered if n < 0] == [-1, -2]  # its drain, then its lifespan
    assert outcome(folder / "home") == "drained"


def test_the_second_signal_stops_now_and_exits_with_3(folder: Path) -> None:
    process = stepreel(config(folder, '[plugins.work]\nuse = "Work"\nseconds = 600\n' + ENDLESS))
    until_logged(folder / "home", Tock)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("stopping: ")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (3, "stopping now; what is unfinished is done at the next start\n")
    assert outcome(folder / "home") == "undrained"


def test_a_drain_past_its_deadline_exits_with_3(folder: Path) -> None:
    tables = '[plugins.work]\nuse = "Work"\nseconds = 600\n[plugins.count]\nuse = "Count"'
    code, _, err = ended(config(folder, tables), "--set", "drain_seconds=0.3")
    assert (code, err) == (3, "")
    assert outcome(folder / "home") == "undrained"


def test_a_required_plugin_that_gives_up_exits_with_1(folder: Path) -> None:
    file = config(folder, '[plugins.bad]\nuse = "RequiredFailing"\n' + ENDLESS)
    process = stepreel(file)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    lines = err.splitlines()
    assert lines[-2].startswith("[plugins.bad] failed 4 times and is left off: ValueError: cannot take ")
    assert lines[-1] == "stopping: [plugins.bad] is required"
    assert outcome(folder / "home") == "failed"


def test_a_plugin_that_gives_up_lets_the_rest_finish_and_exits_with_1(folder: Path) -> None:
    tables = '[plugins.bad]\nuse = "Failing"\n' + ENDLESS.replace("count = 0", "count = 50")
    code, _, err = ended(config(folder, tables))
    assert code == 1
    assert "[plugins.bad] failed 4 times and is left off" in err
    assert "Traceback" not in err
    assert numbers(read(folder / "home", Tock)) == list(range(1, 51))
    (left,) = [record.event for record in read(folder / "home", PluginState) if record.event.state == "left off"]
    assert "raise ValueError" in left.traceback  # for the author it is in the log


def test_a_killed_kernel_is_told_by_what_the_log_lacks_and_the_next_start_goes_on(folder: Path) -> None:
    file = config(folder, ENDLESS)
    process = stepreel(file)
    until_logged(folder / "home", Tock)
    process.kill()
    process.communicate()
    assert list(read(folder / "home", KernelStopped)) == []
    code, _, err = ended(file, "--set", "plugins.count.count=3")
    assert code == 0, err
    assert [record.seq for record in read(folder / "home")] == list(range(1, len(list(read(folder / "home"))) + 1))


# What a user can mend --------------------------------------------------------------------------------------------


def refused(file: Path, *arguments: object) -> list[str]:
    """The lines of a start that was refused; a check says the same."""
    before = {path: path.stat().st_mtime_ns for path in file.parent.rglob("*")}
    said = []
    for command in ("check", "run"):
        code, out, err = ended(command, file, *arguments)
        assert (code, out) == (2, ""), err
        assert "Traceback" not in err
        said.append(err.splitlines())
        assert {path: path.stat().st_mtime_ns for path in file.parent.rglob("*")} == before
    assert said[0] == said[1]
    return said[0]


def test_all_faults_of_a_configuration_are_said_at_once_and_nothing_is_created(folder: Path) -> None:
    tables = """[plugins.count]
use = "Count"
cuont = 3
pause_seconds = "long"
[plugins.missing]
use = "no_such_module:Plugin"
"""
    file = config(folder, tables, top="drain_secnods = 3")
    assert refused(file, "--set", "plugins.count.stubborn=perhaps") == [
        f'{file}: drain_secnods: unknown key (did you mean "drain_seconds"?)',
        f'{file}: [plugins.count] cuont: unknown key (did you mean "count"?)',
        f"{file}: [plugins.count] pause_seconds: expected `float`, got `str`; it is 'long'",
        f"{file}: [plugins.count] stubborn: expected `bool`, got `str`; it is 'perhaps'",
        (
            f'{file}: [plugins.missing] use: there is no module "no_such_module" to import for '
            '"no_such_module:Plugin"; install it, or put its folder on PYTHONPATH'
        ),
    ]


def test_what_plugins_refuse_in_their_check_is_said_before_anything_is_created(folder: Path) -> None:
    tables = f'[plugins.touch]\nuse = "Touching"\nfile = "{folder}/touched"\n[plugins.env]\nuse = "Picky"'
    file = config(folder, tables)
    assert refused(file) == [f"{file}: [plugins.env] env: nothing is good enough; choose another"]


def test_a_home_that_another_kernel_holds_is_refused_and_unharmed(folder: Path) -> None:
    file = config(folder, ENDLESS)
    process = stepreel(file)
    until_logged(folder / "home", Tock)
    for command in ("check", "run"):
        code, _, err = ended(command, file)
        assert code == 2
        assert err == (f"{folder}/home: another kernel is running on this home. Stop it, or choose another `home`.\n")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize("home", ["file", "file/home", "file/deep/home"])
def test_a_home_under_a_file_is_refused(folder: Path, home: str) -> None:
    (folder / "file").write_text("")
    (line,) = refused(config(folder, ENDLESS), "--set", f"home={folder / home}")
    assert line == f"{folder / home}: {folder}/file is a file. Choose another `home`."


def test_a_home_where_nothing_can_be_created_is_refused(folder: Path) -> None:
    code, _, err = ended(config(folder, ENDLESS), "--set", "home=/proc/stepreel/home")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert err.startswith("/proc/stepreel/home: ")
    assert "Choose another `home`" in err


def test_a_damaged_log_is_refused_and_salvaged(folder: Path) -> None:
    home = folder / "home"
    written_log(home, 20)
    path = segments(home / "log")[0]
    path.write_bytes(path.read_bytes().replace(b'"seq":9,', b'"seq":!,'))
    file = config(folder, '[plugins.count]\nuse = "Count"')
    code, _, err = ended(file)
    assert code == 2
    assert "Traceback" not in err
    assert f"`python -m kernel salvage {home}`" in err
    assert ended("salvage", home)[:2] == (0, f"{home}: 1 damaged events were set aside\n")
    assert ended("salvage", home)[:2] == (0, f"{home}: nothing is damaged\n")
    assert ended(file)[0] == 0
    assert numbers(read(home)) == [n for n in range(1, 21) if n != 9] + list(range(1, 11))


def test_a_plugin_that_refuses_while_it_starts_is_one_line(folder: Path) -> None:
    (folder / "refusing_test_plugin.py").write_text(
        """
from contextlib import asynccontextmanager
from kernel import Options, Plugin, Refused

class Port(Plugin[Options]):
    @asynccontextmanager
    async def lifespan(self):
        raise Refused("port: 80 is taken; choose another")
        yield
"""
    )
    file = config(folder, '[plugins.port]\nuse = "refusing_test_plugin:Port"\n' + ENDLESS)
    code, out, err = ended(file)
    assert (code, out, err) == (2, "", f"{file}: [plugins.port] port: 80 is taken; choose another\n")


def test_a_disk_that_takes_no_more_ends_the_run_with_1_and_one_line(folder: Path) -> None:
    code = """
import resource, sys
from kernel.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
sys.argv[0] = "stepreel"
main()
"""
    process = python(code, config(folder, ENDLESS.replace("0.01", "0")))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert err.splitlines()[-1] == f"stopped: {folder}/home/log cannot be written: [Errno 27] File too large"
    assert "Traceback" not in err
    assert [record.seq for record in read(folder / "home")] == list(range(1, len(list(read(folder / "home"))) + 1))


@pytest.mark.parametrize("arguments", [["--bogus"], ["tail", "--since", "soon"], ["check"], ["schema"]])
def test_a_command_that_was_mistyped_exits_with_2(arguments: list[str]) -> None:
    code, _, err = ended(*arguments)
    assert code == 2
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["tail", "salvage"])
def test_a_folder_that_is_no_home_is_said_to_be_none(folder: Path, command: str) -> None:
    code, _, err = ended(command, folder)
    assert code == 2
    assert err.startswith(f"{folder}: is no home of a kernel (it has no log)")
    assert names(folder) == []


def test_a_check_that_finds_nothing_wrong_says_what_would_run_and_creates_nothing(folder: Path) -> None:
    file = config(folder, ENDLESS)
    assert ended("check", file) == (0, f"{file}: ready to run: count, echo\n", "")
    assert names(folder) == ["x.toml"]


# tail ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def told(folder: Path) -> Path:
    """A home whose log holds 30 ticks, a tock, and 30 ticks more."""
    log = Log(folder, segment_bytes=2000)
    for n in range(1, 31):
        log.append("a", n, [Tick(n=n)])
    log.append("b", 1, [Tock(n=1)])
    for n in range(31, 61):
        log.append("a", n, [Tick(n=n)])
    log.close()
    return folder


def test_tail_prints_the_last_20_events_on_a_line_each(told: Path) -> None:
    code, out, err = ended("tail", told)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [int(line.split()[0]) for line in lines] == list(range(42, 62))
    assert lines[-1].split()[2:] == ["a", "Tick", "n=60"]


def test_tail_prints_the_last_20_of_the_types_that_are_asked_for(told: Path) -> None:
    assert len(ended("tail", told, "--type", "Tick")[1].splitlines()) == 20
    assert ended("tail", told, "--type", "Tock")[1].split()[0] == "31"
    both = ended("tail", told, "--type", "Tick", "--type", "Tock")[1].splitlines()
    assert [int(line.split()[0]) for line in both] == list(range(42, 62))
    assert ended("tail", told, "--type", "Nothing") == (0, "", "")


def test_tail_since_a_seq_prints_everything_behind_it(told: Path) -> None:
    for since in (0, 7, 59, 61):
        out = ended("tail", told, "--since", since)[1]
        assert [int(line.split()[0]) for line in out.splitlines()] == list(range(since + 1, 62))


def test_tail_as_json_prints_the_logs_lines_as_they_are(told: Path) -> None:
    out = ended("tail", told, "--json", "--since", "0")[1]
    assert out.encode() == b"".join(path.read_bytes() for path in segments(told / "log"))
    assert json.loads(ended("tail", told, "--json", "--type", "Tock")[1])["event"] == {"type": "Tock", "n": 1}


def test_nothing_that_an_event_holds_reaches_the_terminal_raw(folder: Path) -> None:
    nasty = "\x1b[2J\x07\r\n\x9b31m\u202e\x00"
    log = Log(folder)
    raw = json.dumps({"type": f"Stranger{nasty}", f"key{nasty}": nasty, "deep": {nasty: [nasty]}, "city": "Zürich See"})
    log.append(f"source{nasty}", 1, [Tick(n=1, padding=nasty), UnknownEvent(tag="x", raw=raw.encode())])
    log.close()
    code, out, _ = ended("tail", folder)
    assert code == 0
    lines = out.split("\n")
    assert [line[:7].strip() for line in lines] == ["1", "2", ""]
    assert all(line.isprintable() for line in lines)
    assert 'city="Zürich See"' in lines[1]


def test_tail_passes_a_damaged_line_by_and_says_so(told: Path) -> None:
    path = segments(told / "log")[-1]
    path.write_bytes(path.read_bytes().replace(b'"n":60', b'"n":!!'))
    code, out, err = ended("tail", told)
    assert code == 0
    assert len(out.splitlines()) == 19
    assert err == f"{told}: passed by a damaged line; `python -m kernel salvage {told}` mends the log\n"


def test_tail_ends_quietly_when_its_reader_does(told: Path) -> None:
    log = Log(told)
    log.append("a", 61, ticks(61, 20_000))
    log.close()
    tail = stepreel("tail", told, "--since", "0")
    assert line_of(tail).split()[0] == "1"
    assert tail.stdout is not None
    assert tail.stderr is not None
    tail.stdout.close()  # as `head -1` does
    assert tail.stderr.read() == ""
    assert tail.wait(30) == 0
    tail.stderr.close()


class Follower:
    """A `tail` that follows, and the lines it prints."""

    def __init__(self, *arguments: object) -> None:
        self.process = stepreel("tail", *arguments)
        self._rest = b""

    def next_line(self, seconds: float = 10) -> str:
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self.process.stdout], [], [], seconds)
            assert ready, "nothing was printed in time"
            self._rest += os.read(self.process.stdout.fileno(), 100_000)
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


@pytest.fixture
def followers() -> Iterator[list[Follower]]:
    """Those that a test began; they are ended with it."""
    begun: list[Follower] = []
    yield begun
    for follower in begun:
        follower.process.kill()
        follower.process.communicate()


def test_tail_follows_from_before_the_home_exists_across_rolls_and_restarts(
    folder: Path, followers: list[Follower]
) -> None:
    home = folder / "home"
    tail = Follower(home, "--follow", "--type", "Tick")
    followers.append(tail)
    time.sleep(0.5)  # it is waiting by now
    n = 0
    for _ in range(2):
        log = Log(home, segment_bytes=1500)
        for _ in range(25):
            n += 1
            log.append("a", n, [Tock(n=0) if n % 5 == 0 else Tick(n=n)])
            if n % 5:
                # Each is printed while nothing else comes: no line waits in a buffer for the next one.
                assert tail.next_line().split()[4] == f"n={n}"
        log.close()
    assert len(segments(home / "log")) > 2
    tail.process.send_signal(signal.SIGINT)
    out, err = tail.process.communicate(timeout=10)
    assert (tail.process.returncode, out, err) == (0, "", "")


def test_tail_follows_a_running_kernel(folder: Path, followers: list[Follower]) -> None:
    tail = Follower(folder / "home", "-f", "--json", "--since", "0")
    followers.append(tail)
    code, _, err = ended(config(folder, '[plugins.count]\nuse = "Count"\n[plugins.echo]\nuse = "Echo"'))
    assert code == 0, err
    expected = [record.seq for record in read(folder / "home")]
    assert [json.loads(tail.next_line())["seq"] for _ in expected] == expected


# Lists, schemas and new plugins ----------------------------------------------------------------------------------

OUTSIDE = '''
from kernel import Event, Options, Plugin, on
from tests.kernel.ticks import Tick

class CliTestPraise(Event):
    """A tick was worth it."""

    n: int

class PraiseOptions(Options):
    least: int = 5

class Praise(Plugin[PraiseOptions], publishes=[CliTestPraise]):
    """Praises great ticks [and says so]."""

    @on(Tick)
    async def praise(self, tick: Tick) -> None:
        if tick.n >= self.options.least:
            await self.publish(CliTestPraise(n=tick.n))
'''


@pytest.fixture
def outside(folder: Path) -> Path:
    """A configuration with a plugin in a folder of its own, outside the repository."""
    (folder / "cli_test_praise.py").write_text(OUTSIDE)
    return config(folder, '[plugins.praise]\nuse = "cli_test_praise:Praise"\n[plugins.count]\nuse = "Count"')


def test_a_plugin_outside_the_repository_runs_and_is_listed(outside: Path, tmp_path: Path) -> None:
    assert ended(outside, cwd=tmp_path)[0] == 0
    out = ended("tail", outside.parent / "home", "--type", "CliTestPraise")[1]
    assert [line.split()[-1] for line in out.splitlines()] == ["n=5", "n=6", "n=7", "n=8", "n=9", "n=10"]
    rows = [line.split("\t") for line in ended("events", outside, cwd=tmp_path)[1].splitlines()]
    assert ["CliTestPraise", "cli_test_praise", "A tick was worth it."] in rows
    assert ["LoopLag", "kernel.event", "How late the kernel's event loop ran a timer, at worst in the last second. (not logged)"] in rows  # fmt: skip  # noqa: E501 - a row as it is
    assert ended("plugins", outside, cwd=tmp_path)[1].splitlines() == [
        "praise\tcli_test_praise:Praise\tPraises great ticks [and says so].",
        "\t  least\t= 5",
        "count\ttests.kernel.little_plugins:Count\tA source that counts.",
        "\t  count\t= 10",
        "\t  pause_seconds\t= 0.0",
        "\t  stubborn\t= False",
    ]


def test_the_installed_plugins_and_their_events_are_listed() -> None:
    rows = [line.split("\t") for line in ended("plugins")[1].splitlines()]
    assert "plugins.collector:Collector" in [row[1] for row in rows]
    tags = [line.split("\t")[0] for line in ended("events")[1].splitlines()]
    assert {"KernelStarted", "StepRecorded", "VideoAvailable"} <= set(tags)


def test_a_schema_is_json_schema(outside: Path) -> None:
    code, out, _ = ended("schema", "CliTestPraise", outside)
    assert code == 0
    (definition,) = json.loads(out)["$defs"].values()
    assert definition["required"] == ["type", "n"]
    assert definition["description"] == "A tick was worth it."
    code, _, err = ended("schema", "Nothing")
    assert (code, err) == (2, 'no event type is called "Nothing"; `python -m kernel events` lists them\n')


def test_new_writes_plugins_that_run_side_by_side(folder: Path) -> None:
    tables = ""
    for name in ("first_one", "second"):
        code, out, _ = ended("new", f"{name}.py", cwd=folder)
        assert code == 0
        tables += out.partition("\n\n")[2]
    file = config(folder, "[plugins.count]\n" + f'use = "{LITTLE}:Count"\n' + tables)
    code, _, err = ended(file)
    assert (code, err) == (0, "")
    rows = [line.split("\t")[0] for line in ended("events", file)[1].splitlines()]
    assert {"FirstOneCounted", "SecondCounted"} <= set(rows)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("taken.py", "exists already"),
        ("my-plugin.py", "give it a module's name"),
        ("plugin.txt", "give it a module's name"),
        ("missing/plugin.py", "No such file"),
    ],
)
def test_new_refuses_what_it_cannot_write(folder: Path, name: str, fault: str) -> None:
    (folder / "taken.py").write_text("mine")
    code, _, err = ended("new", name, cwd=folder)
    assert code == 2
    assert err.startswith(f"{name}: ")
    assert fault in err
    assert (folder / "taken.py").read_text() == "mine"
    assert names(folder) == ["taken.py"]


def test_an_installed_plugin_that_cannot_be_imported_does_not_break_the_lists(tmp_path: Path) -> None:
    info = tmp_path / "broken_test-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-test\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[stepreel.plugins]\nbroken = broken_test_module:Plugin\n")
    code = f"import sys; sys.path.append({str(tmp_path)!r}); from kernel.cli import main; main()"
    listed = answer(python(code, "plugins"))
    assert 'broken\tbroken_test_module:Plugin\tcannot be used: there is no module "broken_test_module"' in listed
    assert "KernelStarted" in answer(python(code, "events"))


def test_the_version_is_told() -> None:
    code, out, _ = ended("--version")
    assert code == 0
    assert out.strip()
