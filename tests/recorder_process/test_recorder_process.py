"""The recorder process: there is one while scripts record on a home, and none soon after."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import psutil
import pytest

from kernel.event import KernelStarted
from kernel.files import acquire, holder
from kernel.log import read
from plugins.events import ProducerSetAside
from plugins.recorder.process import LOG_BYTES, RecorderProcess, read_life, start
from plugins.recorder.sessions import open_session
from plugins.recorder.spool import event_file, pack_batch
from tests.end_to_end.homes import PLUGINS, check_log, events, rows, started
from tests.kernel.ticks import answer, ended, python, written_log
from tests.recorder_process.recording_scripts import (
    CODE,
    ROOT,
    Script,
    environment_of,
    gone,
    kill_served,
    recorder_process,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path


def begun(home: Path) -> int:
    """How many recorder processes have begun to serve a home, or tried to."""
    return (home / "recorder.log").read_text().count(" begins on ")


def set_aside(home: Path) -> Path:
    """The folder of a dead producer whose one event says nothing, and is none."""
    folder = home / "spool" / "20261122-062718-k3v9-aaaaaaaa"
    folder.mkdir(parents=True)
    event_file(folder, 1).write_bytes(pack_batch(1, [b"\x80"]))
    (folder / "lock").touch()
    return folder


# There is one ---------------------------------------------------------------------------------------------------------


def test_sixteen_processes_that_look_at_once_start_one(home: Path) -> None:
    with ExitStack() as stack:
        scripts = [stack.enter_context(Script(home)) for _ in range(16)]
        for script in scripts:
            script.ask("begin()")
        for script in scripts:
            script.order("look_until_served()")
        assert [script.answer() for script in scripts] == [[]] * 16
        for script in scripts:
            script.order("[process.look() for _ in range(20)]")
        for script in scripts:
            assert not any(script.answer())
        process = recorder_process(home)
        assert begun(home) == len(list(read(home, KernelStarted))) == 1
        for script in scripts:
            script.end()
        until(lambda: gone(process))
    assert begun(home) == 1


def test_eight_threads_that_look_at_once_start_one(home: Path) -> None:
    pool = "from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(8)\n"
    with Script(home, code=pool + CODE) as script:
        script.ask("begin()")
        assert script.ask("[*pool.map(lambda _: process.look(), range(64))]") == [""] * 64
        assert script.ask("look_until_served()") == []
        assert begun(home) == 1


def test_of_two_that_are_started_at_once_one_serves_and_the_other_goes_in_peace(home: Path) -> None:
    """Such as where the machine is so busy that the first is not heard of for long."""
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(start, [home, home]))
    assert sorted(answer.state for answer in answers) == ["at work", "left"]
    assert begun(home) == 1


CHILD = """
import multiprocessing, sys
from pathlib import Path
from plugins.recorder.process import RecorderProcess

def work(home):
    process = RecorderProcess(Path(home))
    print(repr(process.look()), process.serving(), flush=True)

if __name__ == "__main__":
    child = multiprocessing.get_context(sys.argv[2]).Process(target=work, args=(sys.argv[1],), daemon=True)
    child.start()
    child.join()
    sys.exit(child.exitcode)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_daemonic_child_of_multiprocessing_can_start_it(home: Path, tmp_path: Path, method: str) -> None:
    (tmp_path / "child.py").write_text(CHILD)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "child.py"), str(home), method],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("'' True\n", "")


def test_it_is_nobodys_child_and_leaves_neither_zombie_nor_warning(home: Path) -> None:
    with Script(home, flags=("-X", "dev", "-W", "error")) as script:
        script.ask("begin()")
        script.ask("look_until_served()")
        process = recorder_process(home)
        assert psutil.Process(script.process.pid).children() == []
        assert process.ppid() != script.process.pid
        assert script.end() == ""


def test_a_signal_to_the_scripts_terminal_does_not_reach_it(home: Path) -> None:
    with Script(home) as script:
        script.ask("begin()")
        script.ask("look_until_served()")
        process = recorder_process(home)
        assert os.getpgid(process.pid) not in (os.getpgid(script.process.pid), process.pid)
        script.ask("record(1, 30)")
        os.killpg(script.process.pid, signal.SIGINT)
        script.process.communicate()
        until(lambda: gone(process))
    assert read_life(home).why == "nothing is left to do"
    assert len(events(home, "VideoAvailable")) == 1


def test_it_is_nice_to_the_script_and_keeps_nothing_of_its_environment_that_is_not_meant_for_it(home: Path) -> None:
    with Script(home, STEPREEL_HOME="/nowhere", STEPREEL_SESSION="x", PYTHONWARNINGS="error", MINE="kept") as script:
        script.ask("begin()")
        script.ask("look_until_served()")
        process = recorder_process(home)
        variables = environment_of(process)
        assert variables["MINE"] == "kept"
        assert not [name for name in variables if name.startswith("STEPREEL_")]
        assert not {"PYTHONPATH", "PYTHONWARNINGS"} & set(variables)
        assert process.nice() == psutil.Process(script.process.pid).nice() + 5
        assert process.cwd() == "/"
        session = os.getsid(script.process.pid)
        assert os.getsid(process.pid) == session, "Linux shares out by sessions first, whatever the niceness within"


# And it goes ----------------------------------------------------------------------------------------------------------


def test_it_makes_the_videos_and_leaves_by_itself(home: Path) -> None:
    with Script(home) as script:
        script.ask("begin()")
        script.ask("look_until_served()")
        process = recorder_process(home)
        script.ask("record(3, 40)")
        script.end()
        until(lambda: gone(process))
    assert len(events(home, "VideoAvailable")) == len(list((home / "videos").glob("*.mp4"))) == 3
    assert read_life(home).state == "done"
    assert rows(home, "SELECT count(*) FROM steps") == [(120,)]
    assert [event["outcome"] for event in events(home, "KernelStopped")] == ["drained"]
    check_log(home)
    assert not list((home / "spool").iterdir())


def test_no_process_is_left_soon_after_the_scripts_end(home: Path) -> None:
    with Script(home) as script:
        script.ask("begin()")
        script.ask("look_until_served()")
        process = recorder_process(home)
        time.sleep(2)
        assert not gone(process), "it stays as long as the script lives"
        script.end()
        until(lambda: gone(process), seconds=20)  # 2 on a machine that has nothing else to do


def test_a_killed_script_is_ended_in_its_name_and_its_video_made(home: Path) -> None:
    with Script(home) as script:
        script.ask("begin()")
        script.ask("look_until_served()")
        process = recorder_process(home)
        script.ask("recorder.reset(None, {}, seed=None, episode=0)")
        script.ask("recorder.capture_frame(pictures[0])")
        script.ask("producer.flush()")
        script.process.kill()
        script.process.wait()
        until(lambda: gone(process))
    assert [event["outcome"] for event in events(home, "EpisodeEnded")] == ["aborted"]
    assert [event["frames"] for event in events(home, "VideoAvailable")] == [1]


def test_it_waits_for_the_owner_of_a_session_that_has_no_producer_of_its_own(home: Path) -> None:
    session = open_session(home, "20261122-062718-k3v9", "script")
    process = RecorderProcess(home)
    assert process.look() == ""
    recorder = recorder_process(home)
    time.sleep(4)
    assert not gone(recorder)
    session.end("finished")
    until(lambda: gone(recorder))
    assert not list((home / "sessions").glob("[!.]*"))
    assert not events(home, "SessionEnded"), "nothing was ever said of it"


def test_a_damaged_folder_that_was_set_aside_does_not_keep_it(home: Path) -> None:
    folder = set_aside(home)
    assert RecorderProcess(home).look() == ""
    recorder = recorder_process(home)
    until(lambda: gone(recorder))
    assert len(events(home, ProducerSetAside.__name__)) == 1
    assert folder.exists()


def test_one_that_was_stopped_is_followed_by_another_without_a_word(home: Path) -> None:
    with Script(home) as script:
        script.ask("begin()")
        script.ask("look_until_served()")
        process = recorder_process(home)
        process.send_signal(signal.SIGTERM)
        until(lambda: gone(process))
        assert read_life(home).why == "it was stopped"
        assert script.ask("look_until_served()") == []
    assert begun(home) == 2


def test_none_is_started_for_nothing_and_one_as_soon_as_there_is_something(home: Path) -> None:
    process = RecorderProcess(home)
    with Script(home) as script:
        script.ask("begin()")
        assert process.look() == ""
        first = recorder_process(home)
        script.end()
        until(lambda: gone(first))
    for _ in range(20):
        assert process.look() == ""
    assert not process.serving()
    assert process.can_be_made
    with Script(home) as script:
        script.ask("record(1, 5)")
        script.process.kill()
    assert process.look() == ""
    second = recorder_process(home)
    until(lambda: gone(second))
    assert len(list((home / "videos").glob("*.mp4"))) == 1
    assert begun(home) == 2


def test_a_folder_that_was_set_aside_is_no_reason_to_start_one_again_and_again(home: Path) -> None:
    process = RecorderProcess(home)
    assert process.look() == ""
    folder = set_aside(home)
    first = recorder_process(home)
    until(lambda: gone(first))
    until(lambda: (process.look(), gone(recorder_process(home)) if process.serving() else True)[1])
    begun_before = begun(home)
    for _ in range(20):
        assert process.look() == ""
        assert not process.serving()
    assert begun(home) == begun_before <= 2
    assert folder.exists()


# It dies, or cannot live ----------------------------------------------------------------------------------------------


def test_a_killed_one_is_started_again_and_that_is_said_once(home: Path) -> None:
    with Script(home) as script:
        script.ask("begin()")
        script.ask("look_until_served()")
        script.ask("record(2, 400)")
        kill_served(home)
        (sentence,) = script.ask("look_until_served()")
        assert sentence.startswith(f"The recorder process for {home} was killed and was started again")
        assert script.ask("[process.look() for _ in range(5)]") == [""] * 5
        kill_served(home)
        assert script.ask("look_until_served()") == [], "each sentence once"
        process = recorder_process(home)
        script.end()
        until(lambda: gone(process))
    assert sorted(event["frames"] for event in events(home, "VideoAvailable")) == [401, 401]
    check_log(home)


def test_one_that_is_killed_again_and_again_is_left_off_while_training_goes_on(home: Path) -> None:
    with Script(home) as script:
        script.ask("begin()")
        assert script.ask("look_until_served()") == []
        for kills in range(4):
            kill_served(home)
            said = script.ask("look_until_served()")
            if kills == 0:
                assert "started again" in said[0]
        (sentence,) = said
        assert "4 times within a minute and is left off" in sentence
        assert "Training goes on" in sentence
        assert script.ask("process.can_be_made") is False
        assert script.ask("[process.look() for _ in range(5)]") == [""] * 5
        assert holder(home / "lock") is None
        script.ask("record(1, 20)")
        script.end()
    with Script(home) as script:  # the next run
        script.ask("begin()")
        assert script.ask("look_until_served()") == []
        process = recorder_process(home)
        script.end()
        until(lambda: gone(process))
    assert len(events(home, "VideoAvailable")) == 1


def test_one_that_was_left_off_is_known_when_somebody_serves_the_home_after_all(home: Path) -> None:
    process = RecorderProcess(home)
    (home / "recorder.log").mkdir()  # so that it cannot be started
    assert "could not be started" in process.look()
    hopes = [process.can_be_made]
    (home / "recorder.log").rmdir()
    assert RecorderProcess(home).look() == ""
    assert process.look() == ""
    assert [*hopes, process.can_be_made] == [False, True]
    assert process.serving()


def test_without_ffmpeg_the_reason_reaches_the_script(home: Path) -> None:
    with Script(home, IMAGEIO_FFMPEG_EXE="/nowhere/ffmpeg") as script:
        script.ask("begin()")
        (sentence,) = script.ask("look_until_served()")
        assert f"{home} could not be started: /nowhere/ffmpeg is no program" in sentence
        assert "Training goes on" in sentence
        assert script.ask("(process.look(), process.can_be_made)") == ("", False)
        assert "/nowhere/ffmpeg" in (home / "recorder.log").read_text()
        until(lambda: holder(home / "recorder.lock") is None)
    assert RecorderProcess(home).look() == "", "where it is mended, the next run knows nothing of it"
    assert read_life(home).ends == []


def test_an_ffmpeg_that_is_named_relative_to_the_scripts_folder_is_found(home: Path, tmp_path: Path) -> None:
    import imageio_ffmpeg

    (tmp_path / "my-ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
    with Script(home, cwd=tmp_path, IMAGEIO_FFMPEG_EXE="./my-ffmpeg") as script:
        script.ask("begin()")
        assert script.ask("look_until_served()") == []
        script.ask("record(1, 5)")
        until(lambda: list((home / "videos").glob("*.mp4")))


def test_a_damaged_log_is_told_with_its_cure(home: Path) -> None:
    written_log(home, 5)
    (segment,) = (home / "log").glob("*.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join([*lines[:2], b"nonsense\n", *lines[3:]]))
    process = RecorderProcess(home)
    sentence = process.look()
    assert "could not be started" in sentence
    assert f"python -m kernel salvage {home}" in sentence
    assert process.look() == ""


def test_what_fails_before_it_can_tell_is_read_from_its_log(home: Path, tmp_path: Path) -> None:
    """Such as a dependency that is not there."""
    (tmp_path / "anyio.py").write_text("raise ImportError('this anyio is broken')")
    with Script(home) as script:
        script.ask("begin()")
        script.ask(f"sys.path.insert(0, {str(tmp_path)!r})")
        (sentence,) = script.ask("look_until_served()")
    assert "could not be started: ImportError: this anyio is broken." in sentence


def test_a_failure_at_work_is_told_with_its_reason(home: Path) -> None:
    with Script(home) as script:
        script.ask("begin()")
        script.ask("look_until_served()")
        process = recorder_process(home)
        (home / "spool").rename(home / "elsewhere")
        (home / "spool").write_text("a file in its place")
        until(lambda: gone(process))
        assert read_life(home).state == "failed"
        (home / "spool").unlink()
        (home / "elsewhere").rename(home / "spool")
        (sentence,) = script.ask("look_until_served()")
        assert "failed (collector: " in sentence
        assert "was started again" in sentence


def test_its_log_begins_anew_when_it_is_large(home: Path) -> None:
    (home / "recorder.log").write_bytes(b"x" * (LOG_BYTES + 1))
    assert RecorderProcess(home).look() == ""
    assert (home / "recorder.log").stat().st_size < 1000
    (home / "recorder.log").write_bytes(b"short\n")
    process = recorder_process(home)
    until(lambda: gone(process))
    assert RecorderProcess(home).look() == ""
    assert (home / "recorder.log").read_bytes().startswith(b"short\n")


# Others want its home -------------------------------------------------------------------------------------------------


def test_a_kernel_that_is_started_takes_its_home_over_and_finishes_its_work(home: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'home = "{home}"\n{PLUGINS}')
    with Script(home) as script:
        script.ask("begin()")
        script.ask("look_until_served()")
        recorder = recorder_process(home)
        script.ask("record(3, 600)")
        until(recorder.children)  # an ffmpeg
        with started(str(config), cwd=tmp_path) as kernel:
            until(lambda: holder(home / "lock") == kernel.pid)
            until(lambda: gone(recorder))
            assert read_life(home).why == "another kernel wanted this home"
            assert script.ask("[process.look() for _ in range(20)]") == [""] * 20
            until(lambda: len(events(home, "VideoAvailable")) == 3)
            kernel.send_signal(signal.SIGINT)
            kernel.wait(60)
            assert kernel.returncode == 0
        assert script.ask("look_until_served()") == [], "nobody died"
        recorder = recorder_process(home)
        script.ask("record(1, 10)")
        script.end()
        until(lambda: gone(recorder))
    assert sorted(event["frames"] for event in events(home, "VideoAvailable")) == [11, 601, 601, 601]
    assert begun(home) == 2
    check_log(home)


def test_a_user_who_prunes_gets_the_home_for_that_moment(home: Path) -> None:
    with Script(home) as script:
        script.ask("begin()")
        script.ask("look_until_served()")
        script.ask("record(3, 5)")
        until(lambda: len(events(home, "VideoAvailable")) == 3)
        code, _, err = ended("prune", home, "--max-videos-per-session", 1)
        assert code == 0
        assert "is taken over" in err
        assert len(list((home / "videos").glob("*.mp4"))) == 1
        assert script.ask("look_until_served()") == []


def test_none_is_started_while_a_kernel_runs_or_waits_for_the_home(home: Path) -> None:
    process = RecorderProcess(home)
    for name in ("lock", "wanted"):
        lock = acquire(home / name)
        assert lock is not None
        assert process.look() == ""
        lock.release()
    assert not (home / "recorder.log").exists()


def test_nothing_is_pruned_that_nobody_asked_to_have_pruned(home: Path) -> None:
    with Script(home) as script:
        script.ask("begin()")
        script.ask("look_until_served()")
        process = recorder_process(home)
        script.ask("record(52, 1)")
        script.end()
        until(lambda: gone(process))
    assert len(list((home / "videos").glob("*.mp4"))) == 52
    assert not events(home, "VideoPruned")


# Where it comes from --------------------------------------------------------------------------------------------------


def test_nothing_in_the_scripts_folders_hides_ours_or_the_standard_library(home: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    (trap / "plugins").mkdir(parents=True)
    for name in ("plugins/__init__.py", "kernel.py", "asyncio.py", "sqlite3.py", "json.py"):
        (trap / name).write_text("raise ImportError('a trap')")
    (trap / "sitecustomize.py").write_text(
        f"import sys; open({str(tmp_path / 'customized')!r}, 'a').write(f'{{sys.orig_argv}}\\n')"
    )
    past_the_trap = f"import sys; path = sys.path; sys.path = [{str(ROOT)!r}, *path[2:]]\n"
    with Script(home, code=past_the_trap + CODE, cwd=trap, PYTHONPATH=str(trap)) as script:
        script.ask("begin()")
        assert script.ask("sys.path.__setitem__(slice(None), path) or path[:2]") == ["", str(trap)]
        assert script.ask("look_until_served()") == []
        script.ask("record(1, 5)")
        until(lambda: events(home, "VideoAvailable"))
    customized = (tmp_path / "customized").read_text().splitlines()
    assert len(customized) == 1, "the script's own start is customized, and no other"


def test_what_it_needs_is_found_where_the_script_found_it(home: Path, tmp_path: Path) -> None:
    """Here in folders that only the script itself has added, and that no fresh Python would know."""
    found = [entry for entry in sys.path if entry.endswith("site-packages")]
    code = f"import sys; sys.path[:0] = {[str(ROOT), *found]!r}\n" + CODE
    with Script(home, code=code, flags=("-I", "-S"), cwd=tmp_path) as script:
        script.ask("begin()")
        assert script.ask("look_until_served()") == []
        script.ask("record(1, 5)")
        until(lambda: events(home, "VideoAvailable"))


def test_it_imports_no_environment_and_no_network_library() -> None:
    code = (
        "import sys, plugins.recorder_process.life; "
        "print([name for name in ('gymnasium', 'torch', 'cyclopts', 'jax', 'pettingzoo') if name in sys.modules])"
    )
    assert answer(python(code)) == "[]"


def test_the_scripts_side_brings_no_event_loop() -> None:
    code = (
        "import sys, plugins.recorder.process, plugins.recorder.home; "
        "print([name for name in ('asyncio', 'anyio', 'aiosqlite', 'gymnasium') if name in sys.modules])"
    )
    assert answer(python(code)) == "[]"
