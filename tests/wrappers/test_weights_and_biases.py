from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.wrappers.scripts import ROOT, run_script
from tests.wrappers.wandb_runs import rows_of, videos_in

if TYPE_CHECKING:
    from pathlib import Path

BEGINNING = """
import os, sys, threading, time, warnings
from pathlib import Path
import wandb
from plugins.recorder.weights_and_biases import end, go_on, upload
from tests.wrappers.made_videos import made
videos, home = Path("videos"), Path("home").absolute()
"""


def captions(*numbers: int) -> list[str]:
    return [f"rl-video-w0-episode-{number}, step {1000 + number}, return 1.5" for number in numbers]


def test_each_video_has_a_row_and_its_own_step_in_a_script_that_logs_nothing_else(tmp_path: Path) -> None:
    said = run_script(
        BEGINNING
        + """
with wandb.init(monitor_gym=True):
    for number in (3, 1, 2):
        assert upload(made(videos, number, training_step=1000 + number), home)
    assert upload(made(videos, 0), home, env_steps=77)
    assert upload(made(videos, 4), home)
    """,
        tmp_path,
    )
    assert "WARNING" not in said
    assert videos_in(rows_of(tmp_path), tmp_path) == [
        *zip(captions(3, 1, 2), (1003, 1001, 1002), strict=True),
        ("rl-video-w0-episode-0, step 77, return 1.5", 77),
        ("rl-video-w0-episode-4, return 1.5", None),
    ]


def test_a_script_that_counts_its_steps_itself_keeps_every_row(tmp_path: Path) -> None:
    """In steps of one, several calls a step, while videos come from another thread."""
    said = run_script(
        BEGINNING
        + """
ready = [made(videos, number, training_step=1000 + number) for number in range(8)]
def watch():
    for video in ready:
        assert upload(video, home)
        time.sleep(0.002)
        go_on()
run = wandb.init(monitor_gym=True)
watcher = threading.Thread(target=watch)
watcher.start()
for step in range(200):
    for name in "abc":
        run.log({name: step}, step=step)
        time.sleep(0.0003)
    go_on()
watcher.join()
run.log({"last": 1}, step=200)
run.finish()
    """,
        tmp_path,
    )
    assert "WARNING" not in said
    rows = rows_of(tmp_path)
    assert [(row["_step"], row["a"], row["b"], row["c"]) for row in rows[:200]] == [(n, n, n, n) for n in range(200)]
    assert rows[200]["_step"] == 200
    assert rows[200]["last"] == 1
    assert videos_in(rows, tmp_path) == list(zip(captions(*range(8)), range(1000, 1008), strict=True))


def test_a_row_that_the_script_has_begun_stays_open(tmp_path: Path) -> None:
    run_script(
        BEGINNING
        + """
with wandb.init(monitor_gym=True) as run:
    run.log({"a": 1}, commit=False)
    upload(made(videos, 0, training_step=1000), home)
    upload(made(videos, 1, training_step=1001), home)
    run.log({"b": 1})
    go_on()
    run.log({"a": 2, "b": 2})
    """,
        tmp_path,
    )
    rows = rows_of(tmp_path)
    assert [(row["_step"], row["a"], row["b"]) for row in rows] == [(0, 1, 1), (1, 2, 2)]
    assert videos_in(rows[:1], tmp_path) == [(captions(0)[0], 1000)]
    assert videos_in(rows[1:], tmp_path) == [(captions(1)[0], 1001)]


def test_with_tensorboards_rows_each_video_has_one_of_its_own_at_once(tmp_path: Path) -> None:
    said = run_script(
        BEGINNING
        + """
from tensorboardX import SummaryWriter
run = wandb.init(monitor_gym=True, sync_tensorboard=True)
writer = SummaryWriter("runs")
for step in (0, 100, 200):
    writer.add_scalar("loss", step, step)
for number in range(3):
    before = run.step
    upload(made(videos, number, training_step=1000 + number), home)
    assert run.step > before
writer.close()
run.finish()
    """,
        tmp_path,
    )
    assert "WARNING" not in said
    rows = rows_of(tmp_path)
    assert [row["loss"] for row in rows if "loss" in row] == [0, 100, 200]
    assert videos_in(rows, tmp_path) == list(zip(captions(0, 1, 2), (1000, 1001, 1002), strict=True))
    assert not any("loss" in row for row in rows if "videos" in row)


def test_videos_that_wait_are_handed_over_at_the_scripts_end(tmp_path: Path) -> None:
    """By `end`; W&B ends a run that nobody finished later still."""
    run_script(
        BEGINNING
        + """
import atexit
run = wandb.init(monitor_gym=True)
atexit.register(end)
for number in range(3):
    upload(made(videos, number, training_step=1000 + number), home)
raise SystemExit
    """,
        tmp_path,
    )
    assert videos_in(rows_of(tmp_path), tmp_path) == list(zip(captions(0, 1, 2), (1000, 1001, 1002), strict=True))


def test_forked_children_write_into_the_run_beside_each_other(tmp_path: Path) -> None:
    said = run_script(
        BEGINNING
        + """
import multiprocessing
def child(worker):
    for number in range(3):
        assert upload(made(videos, number, worker=worker, training_step=10 * worker + number), home)
    end()
run = wandb.init(monitor_gym=True)
run.log({"a": 0}, step=0)
upload(made(videos, 0, training_step=1000), home)
fork = multiprocessing.get_context("fork")
children = [fork.Process(target=child, args=(worker,)) for worker in (1, 2)]
for one in children:
    one.start()
step = 0
while any(one.is_alive() for one in children):
    step += 1
    run.log({"a": step}, step=step)
    time.sleep(0.02)
assert [one.exitcode for one in children] == [0, 0]
run.finish()
    """,
        tmp_path,
    )
    assert "WARNING" not in said
    rows = rows_of(tmp_path)
    assert [row["a"] for row in rows] == [row["_step"] for row in rows] == list(range(len(rows)))
    assert videos_in(rows, tmp_path) == [(captions(0)[0], 1000)]
    for worker in (1, 2):
        assert [caption for caption, _ in videos_in(rows, tmp_path, f"videos_w{worker}")] == [
            f"rl-video-w{worker}-episode-{number}, step {10 * worker + number}, return 1.5" for number in range(3)
        ]


def test_a_finished_run_is_left_alone_and_the_next_one_served(tmp_path: Path) -> None:
    said = run_script(
        BEGINNING
        + """
warnings.simplefilter("error")
run = wandb.init(monitor_gym=True)
upload(made(videos, 0, training_step=1000), home)
wandb.finish()
assert not upload(made(videos, 1, training_step=1001), home)
go_on()
end()
with wandb.init():
    upload(made(videos, 2, training_step=1002), home)
    upload(made(videos, 3, training_step=1003), home)
    """,
        tmp_path,
    )
    assert "stepreel" not in said
    assert videos_in(rows_of(tmp_path, 0), tmp_path) == [(captions(0)[0], 1000)]
    assert videos_in(rows_of(tmp_path, 1), tmp_path) == list(zip(captions(2, 3), (1002, 1003), strict=True))


def test_without_monitor_gym_nothing_is_uploaded(tmp_path: Path) -> None:
    run_script(
        BEGINNING
        + """
with wandb.init() as run:
    assert not upload(made(videos, 0), home)
wandb.init(monitor_gym=True, mode="disabled")
assert not upload(made(videos, 0), home)
    """,
        tmp_path,
    )
    assert rows_of(tmp_path) == []
    assert not list(tmp_path.glob("wandb/offline-run-*/files/media/*"))


def test_a_script_without_wandb_does_not_import_it(tmp_path: Path) -> None:
    code = BEGINNING.replace("import wandb\n", "") + (
        "assert not upload(made(videos, 0), home)\ngo_on()\nend()\nassert 'wandb' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, check=True)


def test_a_video_that_is_removed_while_it_waits_takes_no_other_with_it(tmp_path: Path) -> None:
    run_script(
        BEGINNING
        + """
with wandb.init(monitor_gym=True):
    for number in range(3):
        upload(made(videos, number, training_step=1000 + number), home)
    (videos / "rl-video-w0-episode-1.mp4").unlink()
    """,
        tmp_path,
    )
    assert videos_in(rows_of(tmp_path), tmp_path) == list(zip(captions(0, 2), (1000, 1002), strict=True))


def test_an_upload_that_fails_is_one_warning_and_no_exception(tmp_path: Path) -> None:
    said = run_script(
        BEGINNING
        + """
run = wandb.init(monitor_gym=True)
Path(run.dir, "media").write_text("in the way")
for number in range(3):
    assert upload(made(videos, number), home) == (number > 0 and False)
run.log({"a": 1})
run.finish()
    """,
        tmp_path,
    )
    assert said.count("RuntimeWarning: videos cannot be uploaded to Weights & Biases") == 1
    assert [row["a"] for row in rows_of(tmp_path)] == [1]


def test_where_the_end_of_a_run_cannot_be_heard_of_no_video_waits(tmp_path: Path) -> None:
    run_script(
        BEGINNING
        + """
run = wandb.init(monitor_gym=True)
del sys.modules[type(run).__module__].TeardownHook
for number in range(3):
    upload(made(videos, number, training_step=1000 + number), home)
run.finish()
    """,
        tmp_path,
    )
    assert videos_in(rows_of(tmp_path), tmp_path) == list(zip(captions(0, 1, 2), (1000, 1001, 1002), strict=True))
