from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from kernel.files import write_whole
from plugins.events import (
    CaptureApplied,
    CaptureSettings,
    ChunkSealed,
    EpisodeEnded,
    EpisodeStarted,
    FrameSizeChanged,
    Keep,
    Probe,
    RecorderFailed,
    RecordingDiscarded,
    RecordingSealed,
    RecordingStarted,
    StepRecorded,
    WorkerEnded,
    WorkerStarted,
)
from plugins.recorder import tape as module
from plugins.recorder.frames import ChunkReader, count_frames
from plugins.recorder.recorder import Recorder
from plugins.recorder.spool import Control, Producer, RecordingPlan, event_files, read_batches

if TYPE_CHECKING:
    from collections.abc import Callable

    from kernel.event import Event

OBSERVATION = np.array([0.1, 0.2, 0.3, 0.4], np.float32)


def picture(number: int) -> Any:
    """A picture that shows its number, and compresses to about nothing."""
    shown = np.zeros((8, 10, 3), np.uint8)
    shown[0, :4, 0] = np.frombuffer(number.to_bytes(4, "little"), np.uint8)
    return shown


def noisy_picture(number: int) -> Any:
    """A picture that does not compress."""
    return np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)


def number_of(frame: bytes | memoryview) -> int:
    return int.from_bytes(bytes(frame[:12:3]), "little")


def make(producer: Producer, **options: Any) -> Recorder:
    defaults: dict[str, Any] = {"env_id": "Sample-v0", "fps": 50.0, "video_path": lambda index: f"videos/{index}.mp4"}
    recorder = Recorder(producer, **(defaults | options))
    recorder.start()
    return recorder


def play(
    recorder: Recorder,
    episode: int = 0,
    steps: int = 3,
    *,
    reward: Any = 1.0,
    end: str = "terminated",
    info: Any = None,
    show: Callable[[int], Any] = picture,
    evaluation: bool = False,
) -> None:
    """An episode in which picture k shows k."""
    recorder.reset(OBSERVATION, {}, seed=episode, episode=episode, evaluation=evaluation)
    if recorder.recording:
        recorder.capture_frame(show(0))
    for step in range(1, steps + 1):
        last = step == steps
        recorder.step(
            1,
            OBSERVATION,
            reward,
            last and end == "terminated",
            last and end == "truncated",
            info or {},
            show(step) if recorder.recording else None,
            0.001,
        )


def of(events: list[Event], *types: type[Event]) -> list[Any]:
    return [event for event in events if type(event) in types]


def frames_of(home: Path, recording: str) -> list[int]:
    numbers: list[int] = []
    for chunk in sorted((home / "spool" / recording.rsplit("-", 1)[0] / recording).glob("*.chunk")):
        with ChunkReader(chunk) as reader:
            numbers += [number_of(frame) for frame in reader]
    return numbers


# An episode


def test_an_episode_is_told_in_order(tmp_path: Path, producer: Producer, said: Any) -> None:
    recorder = make(producer)
    play(recorder, 0, 3)
    assert not recorder.recording, "sealed when it ends, not at the next reset"
    recorder.close()
    events = [event for event in said() if type(event) is not Probe]
    assert [type(event) for event in events] == [
        WorkerStarted, EpisodeStarted, RecordingStarted, StepRecorded, StepRecorded, StepRecorded,
        EpisodeEnded, ChunkSealed, RecordingSealed, WorkerEnded,
    ]  # fmt: skip
    worker, began, film, *steps, ended, chunk, sealed, left = events
    recording = f"{producer.id}-0000"
    assert (worker.pid, worker.env_id) == (os.getpid(), "Sample-v0")
    assert (began.captured, began.capture, began.recording, began.first_frame, began.seed) == (
        True, "every 1", recording, 0, "0",
    )  # fmt: skip
    assert (film.recording, film.path, film.fps, film.width, film.height) == (recording, "videos/0.mp4", 50.0, 10, 8)
    assert [(step.step, step.frame, step.frames) for step in steps] == [(1, 1, 1), (2, 2, 1), (3, 3, 1)]
    assert steps[0].observation == OBSERVATION.tolist()
    assert (steps[0].action, steps[0].reward, steps[0].info) == (1, 1.0, {})
    assert [step.terminated for step in steps] == [False, False, True]
    assert (ended.total_reward, ended.steps, ended.outcome, ended.recording) == (3.0, 3, "terminated", recording)
    assert (chunk.chunk, chunk.frames, chunk.file) == (0, 4, f"{producer.id}/{recording}/00000.chunk")
    assert (sealed.chunks, sealed.frames, sealed.complete, sealed.total_reward) == (1, 4, True, 3.0)
    assert (sealed.kept_for, sealed.frames_dropped) == ([], 0)
    assert (left.outcome, left.steps) == ("finished", 3)
    assert frames_of(tmp_path, recording) == [0, 1, 2, 3], "N steps, N + 1 frames"


def test_the_plan_of_a_recording_stands_beside_its_chunks(tmp_path: Path, producer: Producer) -> None:
    recorder = make(producer, keep=Keep(best=2), capture=CaptureSettings(every=5), worker=3)
    play(recorder, 5)
    recorder.close()
    plan = msgspec.json.decode(
        (tmp_path / "spool" / producer.id / f"{producer.id}-0000" / "recording.json").read_bytes(), type=RecordingPlan
    )
    assert (plan.episode, plan.worker, plan.path, plan.capture) == (5, 3, "videos/5.mp4", "every 5")
    assert (plan.width, plan.height, plan.fps, plan.keep, plan.wait_for_seal) == (10, 8, 50.0, Keep(best=2), True)


@pytest.mark.parametrize(("steps", "chunks"), [(510, [511]), (511, [512]), (512, [512, 1]), (1030, [512, 512, 7])])
def test_chunks_hold_512_frames_and_frame_k_is_frame_k(
    tmp_path: Path, producer: Producer, said: Any, steps: int, chunks: list[int]
) -> None:
    recorder = make(producer)
    play(recorder, 0, steps)
    recorder.close()
    sealed = of(said(), ChunkSealed)
    assert [chunk.frames for chunk in sealed] == chunks
    assert [count_frames(tmp_path / "spool" / chunk.file) for chunk in sealed] == chunks
    assert of(said(), RecordingSealed)[0].chunks == len(chunks)
    assert frames_of(tmp_path, f"{producer.id}-0000") == list(range(steps + 1))
    assert [step.frame for step in of(said(), StepRecorded)] == list(range(1, steps + 1))


def test_pictures_that_do_not_change_are_recorded_as_often_as_they_came(
    tmp_path: Path, producer: Producer, said: Any
) -> None:
    recorder = make(producer)
    play(recorder, 0, 1500, show=lambda _: picture(7))
    recorder.close()
    assert frames_of(tmp_path, f"{producer.id}-0000") == [7] * 1501
    assert of(said(), RecordingSealed)[0].frames == 1501


def test_several_pictures_in_a_step_belong_to_it(tmp_path: Path, producer: Producer, said: Any) -> None:
    recorder = make(producer)
    recorder.reset(OBSERVATION, {}, seed=None, episode=0)
    recorder.capture_frame(picture(0))
    recorder.capture_frame(picture(1))
    recorder.capture_frame(picture(2))
    recorder.step(0, OBSERVATION, 0.0, False, False, {}, picture(3), 0.001)
    recorder.step(0, OBSERVATION, 0.0, False, False, {}, None, 0.001)
    recorder.capture_frame(picture(4))
    recorder.step(0, OBSERVATION, 0.0, True, False, {}, None, 0.001)
    recorder.close()
    assert [(step.frame, step.frames) for step in of(said(), StepRecorded)] == [(3, 3), (None, 1), (4, 1)]
    assert frames_of(tmp_path, f"{producer.id}-0000") == [0, 1, 2, 3, 4]


def test_an_episode_that_is_reset_ends_as_aborted_and_its_recording_is_incomplete(
    producer: Producer, said: Any
) -> None:
    recorder = make(producer)
    play(recorder, 0, 2, end="not at all")
    play(recorder, 1, 2, end="truncated")
    recorder.close()
    assert [event.outcome for event in of(said(), EpisodeEnded)] == ["aborted", "truncated"]
    cut, whole = of(said(), RecordingSealed)
    assert (cut.complete, cut.frames, cut.first_episode) == (False, 3, 0)
    assert "reset" in cut.incomplete_because
    assert (whole.complete, whole.incomplete_because, whole.first_episode) == (True, "", 1)


def test_an_open_episode_is_aborted_at_close(producer: Producer, said: Any) -> None:
    recorder = make(producer)
    play(recorder, 0, 2, end="not at all")
    recorder.close(outcome="failed")
    recorder.close()
    *_, ended, _, sealed, left = [event for event in said() if type(event) is not Probe]
    assert (ended.outcome, sealed.complete, left.outcome) == ("aborted", False, "failed")
    assert "closed" in sealed.incomplete_because


def test_steps_outside_of_an_episode_are_no_steps(producer: Producer, said: Any) -> None:
    recorder = make(producer)
    recorder.step(0, OBSERVATION, 0.0, False, False, {}, picture(0), 0.001)
    recorder.capture_frame(picture(0))
    play(recorder, 0, 2)
    recorder.step(0, OBSERVATION, 0.0, False, False, {}, picture(0), 0.001)
    recorder.close()
    recorder.step(0, OBSERVATION, 0.0, False, False, {}, picture(0), 0.001)
    assert len(of(said(), StepRecorded)) == 2
    assert of(said(), WorkerEnded)[0].steps == 2


def test_an_episode_without_a_picture_has_no_recording(producer: Producer, said: Any) -> None:
    recorder = make(producer)
    recorder.reset(OBSERVATION, {}, seed=None, episode=0)
    recorder.step(0, OBSERVATION, 0.0, True, False, {}, None, 0.001)
    recorder.close()
    assert not of(said(), RecordingStarted, ChunkSealed, RecordingSealed, RecordingDiscarded)
    assert of(said(), EpisodeEnded)[0].recording is None


def test_every_agent_has_its_own_end_and_the_last_one_seals(producer: Producer, said: Any) -> None:
    recorder = make(producer, agents=("a", "b"))
    recorder.reset(OBSERVATION, {}, seed=None, episode=0)
    recorder.capture_frame(picture(0))
    recorder.step(0, OBSERVATION, 1.0, True, False, {}, picture(1), 0.001, agent="a")
    wanted = [recorder.recording]
    recorder.step(0, OBSERVATION, 2.0, False, False, {}, None, 0.001, agent="b")
    recorder.step(0, OBSERVATION, 5.0, False, False, {}, None, 0.001, agent="a")
    recorder.step(0, OBSERVATION, 2.0, False, True, {}, picture(2), 0.001, agent="b")
    wanted.append(recorder.recording)
    recorder.close()
    assert wanted == [True, False]
    ended = [(end.agent, end.total_reward, end.steps, end.outcome) for end in of(said(), EpisodeEnded)]
    assert ended == [("a", 1.0, 1, "terminated"), ("b", 4.0, 2, "truncated")]
    assert of(said(), RecordingSealed)[0].total_reward == 5.0
    assert of(said(), WorkerEnded)[0].steps == 2


@pytest.mark.parametrize("reward", [math.nan, np.float32(np.inf)])
def test_a_reward_that_is_not_finite_is_null_and_named(producer: Producer, said: Any, reward: Any) -> None:
    recorder = make(producer)
    play(recorder, 0, 2, reward=reward, info={"x": math.nan})
    recorder.close()
    word = "nan" if math.isnan(reward) else "inf"
    for step in of(said(), StepRecorded):
        assert (step.reward, step.info, step.nonfinite) == (None, {"x": None}, {"reward": word, "info.x": "nan"})
    (ended,) = of(said(), EpisodeEnded)
    assert (ended.total_reward, ended.nonfinite) == (None, {"total_reward": word})
    assert of(said(), RecordingSealed)[0].total_reward is None


@pytest.mark.parametrize(("telemetry", "steps"), [("all", 6), ("captured", 3), ("episodes", 0)])
def test_telemetry_says_of_which_steps_there_are_events(
    producer: Producer, said: Any, telemetry: str, steps: int
) -> None:
    recorder = make(producer, telemetry=telemetry, capture=CaptureSettings(every=2))
    play(recorder, 0, 3)
    play(recorder, 1, 3)
    recorder.close()
    assert len(of(said(), StepRecorded)) == steps
    assert [end.steps for end in of(said(), EpisodeEnded)] == [3, 3]


@pytest.mark.parametrize(
    ("values", "observation"),
    [("none", None), ("small", {"shape": [65], "dtype": "int64", "min": 0, "max": 64}), ("all", list(range(65)))],
)
def test_values_say_how_much_of_an_observation_is_kept(
    producer: Producer, said: Any, values: str, observation: Any
) -> None:
    recorder = make(producer, values=values)
    recorder.reset(np.arange(65), {}, seed=2**126, episode=0)
    recorder.step(np.int64(3), np.arange(65), 0.0, np.True_, False, {}, None, np.float64(0.001))
    recorder.close()
    (began,), (step,) = of(said(), EpisodeStarted), of(said(), StepRecorded)
    assert began.observation == step.observation == observation
    assert (step.action, step.terminated, began.seed) == (3, True, str(2**126))


def test_how_long_steps_took_is_probed(producer: Producer, said: Any) -> None:
    recorder = make(producer, capture=CaptureSettings(every=2))
    play(recorder, 0, 3)
    play(recorder, 1, 4)
    recorder.close()
    producer.close()
    probes = of(said(), Probe)
    assert sum(probe.steps for probe in probes) == 7
    assert sum(sum(probe.captured.counts) for probe in probes) == 3
    assert sum(sum(probe.bare.counts) for probe in probes) == 4
    bare = probes[0].bare
    assert bare.counts == [0] * 10 + [4], "1 ms lies below 2**10 µs"
    assert (bare.longest_seconds, round(bare.total_seconds, 6)) == (0.001, 0.004)


# When to capture, and what to keep


def test_episodes_that_are_not_due_are_not_captured(producer: Producer, said: Any) -> None:
    recorder = make(producer, capture=lambda episode: episode == 1)
    for episode in range(3):
        play(recorder, episode)
    recorder.close()
    assert [(event.captured, event.capture, event.recording is None) for event in of(said(), EpisodeStarted)] == [
        (False, "not due", True),
        (True, "trigger", False),
        (False, "not due", True),
    ]
    assert len(of(said(), RecordingSealed)) == 1


def test_evaluation_episodes_are_captured_by_their_tag(producer: Producer, said: Any) -> None:
    recorder = make(producer, capture=CaptureSettings(mode="eval"))
    play(recorder, 0)
    play(recorder, 1, evaluation=True)
    recorder.close()
    assert [event.captured for event in of(said(), EpisodeStarted)] == [False, True]
    assert [event.evaluation for event in of(said(), EpisodeEnded)] == [False, True]


def test_what_no_policy_keeps_is_discarded_with_the_reason(producer: Producer, said: Any) -> None:
    recorder = make(producer, keep=Keep(best=1, failures=True))
    for episode, (reward, success) in enumerate([(1.0, True), (0.0, True), (2.0, True), (0.0, False)]):
        play(recorder, episode, reward=reward, info={"is_success": success})
    play(recorder, 4, end="not at all")
    recorder.close()
    kept = {event.first_episode: event.kept_for for event in of(said(), RecordingSealed)}
    assert kept == {0: ["best"], 2: ["best"], 3: ["failure"]}
    assert [event.why for event in of(said(), RecordingDiscarded)] == [
        "not among best 1, failures",
        "aborted, and not due by every",
    ]
    assert [event.success for event in of(said(), EpisodeEnded)] == [True, True, True, False, None]


def test_failures_that_no_info_can_tell_are_warned_about_once_at_the_tenth_episode(producer: Producer) -> None:
    recorder = make(producer, keep=Keep(failures=True))
    for episode in range(9):
        play(recorder, episode, 1)
    with pytest.warns(RuntimeWarning, match="is_success"):
        play(recorder, 9, 1)
    for episode in range(10, 25):
        play(recorder, episode, 1)
    recorder.close()


def test_failures_that_no_info_can_tell_are_warned_about_at_close(producer: Producer) -> None:
    recorder = make(producer, keep=Keep(failures=True))
    play(recorder, 0, 1)
    with pytest.warns(RuntimeWarning, match="is_success"):
        recorder.close()
    known = make(producer, keep=Keep(failures=True))
    play(known, 0, 1, info={"success": True})
    known.close()


# What users ask for while it runs


def test_settings_that_users_ask_for_are_taken_up_at_the_next_reset(producer: Producer, said: Any) -> None:
    recorder = make(producer, capture=CaptureSettings(mode="off"))
    play(recorder, 0)
    asked = CaptureSettings(every=2)
    producer.outbox.control = Control(settings=asked, asked=17)
    for episode in (1, 2, 3):
        play(recorder, episode)
    recorder.close()
    assert [event.captured for event in of(said(), EpisodeStarted)] == [False, False, True, False]
    (applied,) = of(said(), CaptureApplied)
    assert (applied.episode, applied.settings, applied.once) == (1, asked, False)


def test_one_episode_of_each_worker_is_captured_on_request(producer: Producer, said: Any) -> None:
    producer.start()
    producer.outbox.control = Control(once=5)
    keeps = Keep(best=1)
    first, second = (
        make(producer, worker=worker, capture=CaptureSettings(mode="manual"), keep=keeps) for worker in (0, 1)
    )
    play(first, 0)
    producer.outbox.control = Control(once=9)
    for recorder in (first, second):
        play(recorder, 1)
        play(recorder, 2, reward=-5.0)
        recorder.close()
    assert [(event.worker, event.episode) for event in of(said(), EpisodeStarted) if event.captured] == [(0, 1), (1, 1)]
    assert {event.capture for event in of(said(), EpisodeStarted)} == {"asked", "on request only"}
    assert [(event.worker, event.once) for event in of(said(), CaptureApplied)] == [(0, True), (1, True)]
    assert [event.kept_for for event in of(said(), RecordingSealed)] == [[], []], (
        "no policy decides on what was asked for"
    )


def test_no_recording_begins_while_the_disk_is_low(producer: Producer, said: Any) -> None:
    recorder = make(producer, capture=CaptureSettings(every=2))
    producer.outbox.control = Control(held=True, once=1)
    play(recorder, 0)
    play(recorder, 1)
    producer.outbox.control = Control(once=1)
    play(recorder, 3)
    play(recorder, 5)
    recorder.close()
    assert [event.capture for event in of(said(), EpisodeStarted)] == ["low disk", "low disk", "asked", "not due"]


def test_what_users_asked_for_in_an_earlier_run_holds_from_the_first_reset(tmp_path: Path, said: Any) -> None:
    write_whole(tmp_path / "capture.json", b'{"settings":{"mode":"off"},"asked":3,"once":2}', lasting=False)
    producer = Producer(tmp_path, "s")
    recorder = make(producer)
    play(recorder, 0)
    recorder.close()
    producer.close()
    assert [event.capture for event in of(said(), EpisodeStarted)] == ["off"]
    assert len(of(said(), CaptureApplied)) == 1


# Full


def stalled(home: Path, **bounds: int) -> Producer:
    """A producer whose disk takes nothing until `mend`."""
    home.mkdir(exist_ok=True)
    (home / "spool").write_text("in the way")
    return Producer(home, "s", **bounds)


def mend(home: Path) -> None:
    (home / "spool").unlink()


def test_past_the_memory_bound_frames_are_dropped_and_counted_and_indices_stay_true(tmp_path: Path, said: Any) -> None:
    producer = stalled(tmp_path, memory_bytes=200_000)
    recorder = make(producer, telemetry="all")
    shown = {number: noisy_picture(number) for number in range(101)}
    play(recorder, 0, 100, show=shown.__getitem__)
    assert producer.outbox.unsent_bytes() < 1.15 * 200_000
    mend(tmp_path)
    recorder.close()
    assert producer.close()
    (sealed,) = of(said(), RecordingSealed)
    assert sealed.frames + sealed.frames_dropped == 101
    assert sealed.frames_dropped > 50
    told = {step.frame: step.step for step in of(said(), StepRecorded) if step.frame is not None}
    assert len(of(said(), StepRecorded)) == 100
    assert list(told) == list(range(1, sealed.frames)), "the steps that lost theirs say null"
    with ChunkReader(tmp_path / "spool" / of(said(), ChunkSealed)[0].file) as reader:
        frames = [bytes(frame) for frame in reader]
    assert len(frames) == sealed.frames
    assert all(frames[index] == shown[step].tobytes() for index, step in told.items()), "each step's picture is its own"
    (left,) = of(said(), WorkerEnded)
    assert (left.frames_dropped, left.steps_dropped) == (sealed.frames_dropped, 0)
    assert producer.outbox.unsent_bytes() == 0


def test_past_twice_the_memory_bound_steps_are_dropped_and_counted(tmp_path: Path, said: Any) -> None:
    producer = stalled(tmp_path, memory_bytes=50_000)
    recorder = make(producer)
    play(recorder, 0, 2000)
    assert 100_000 < producer.outbox.unsent_bytes() < 110_000
    mend(tmp_path)
    recorder.close()
    assert producer.close()
    steps = of(said(), StepRecorded)
    (left,) = of(said(), WorkerEnded)
    assert left.steps_dropped > 0
    assert len(steps) + left.steps_dropped == 2000
    assert [step.step for step in steps] == list(range(1, len(steps) + 1))
    (ended,) = of(said(), EpisodeEnded)
    assert (ended.steps, ended.total_reward) == (2000, 2000.0), "other events are never dropped, and count all"


def test_no_recording_begins_while_there_is_no_room(tmp_path: Path, said: Any) -> None:
    producer = stalled(tmp_path, memory_bytes=20_000)
    recorder = make(producer)
    play(recorder, 0, 100)
    wait_for_trouble(producer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        play(recorder, 1, 3)
        play(recorder, 2, 3)
    assert all("cannot be written" in str(warning.message) for warning in caught)
    assert len(caught) == 1
    mend(tmp_path)
    producer.flush()
    play(recorder, 3, 3)
    recorder.close()
    producer.close()
    assert [event.capture for event in of(said(), EpisodeStarted)] == ["every 1", "spool full", "spool full", "every 1"]


def test_past_the_spools_bound_frames_and_then_steps_are_dropped(tmp_path: Path, said: Any) -> None:
    producer = Producer(tmp_path, "s", spool_bytes=100_000)
    recorder = make(producer)
    recorder.reset(OBSERVATION, {}, seed=None, episode=0)
    recorder.capture_frame(noisy_picture(0))
    step = 0

    def go_on() -> None:
        nonlocal step
        step += 1
        recorder.step(1, OBSERVATION, 1.0, False, False, {}, noisy_picture(step), 0.001)
        time.sleep(0.001)

    while not recorder.line.meter.frames_dropped:
        go_on()
    captured = recorder.line.meter.frames_dropped + len(producer.outbox.frames)
    assert captured
    other = tmp_path / "spool" / "somebody-else"
    other.mkdir(parents=True)
    (other / "big").write_bytes(bytes(200_000))
    while not recorder.line.meter.steps_dropped:
        go_on()
    assert recorder.line.meter.steps_dropped > 0
    recorder.close()
    producer.close()
    (sealed,) = of(said(producer.id), RecordingSealed)
    assert sealed.frames + sealed.frames_dropped == step + 1
    assert 50_000 < sum(file.stat().st_size for file in (tmp_path / "spool").rglob("*.chunk")) < 250_000
    assert sum(probe.frames_dropped for probe in of(said(producer.id), Probe)) <= sealed.frames_dropped


def wait_for_trouble(producer: Producer) -> None:
    deadline = time.monotonic() + 20
    while not producer.outbox.trouble:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_no_event_is_on_the_disk_before_the_frames_it_speaks_of(tmp_path: Path, producer: Producer, said: Any) -> None:
    recorder = make(producer)
    producer.flush()
    recording = f"{producer.id}-0000"
    in_the_way = tmp_path / "spool" / producer.id / recording
    in_the_way.write_text("a file where the recording's folder should be")
    play(recorder, 0, 3)
    wait_for_trouble(producer)
    assert {type(event) for event in said()} == {WorkerStarted}
    in_the_way.unlink()
    assert producer.flush()
    assert len(of(said(), StepRecorded)) == 3
    assert frames_of(tmp_path, recording) == [0, 1, 2, 3]
    recorder.close()


def test_a_chunk_that_cannot_be_renamed_at_first_holds_each_frame_once(
    tmp_path: Path, producer: Producer, said: Any
) -> None:
    recorder = make(producer)
    producer.flush()
    recording = f"{producer.id}-0000"
    in_the_way = tmp_path / "spool" / producer.id / recording / "00000.chunk"
    in_the_way.mkdir(parents=True)
    play(recorder, 0, 600)
    wait_for_trouble(producer)
    time.sleep(0.6)  # two more tries
    assert not of(said(), ChunkSealed, StepRecorded)
    in_the_way.rmdir()
    assert producer.flush()
    recorder.close()
    assert frames_of(tmp_path, recording) == list(range(601))
    assert [chunk.frames for chunk in of(said(), ChunkSealed)] == [512, 89]


# What goes wrong


def test_frames_that_cannot_be_recorded_are_refused_with_one_warning(producer: Producer, said: Any) -> None:
    recorder = make(producer)
    with pytest.warns(RuntimeWarning, match="a frame's shape must be") as warned:  # noqa: PT031 - one warning over all
        for episode in range(3):
            play(recorder, episode, show=lambda number: picture(number).transpose(2, 0, 1))
    recorder.close()
    assert len(warned) == 1
    assert not of(said(), RecordingStarted)
    assert len(of(said(), StepRecorded)) == 9
    assert of(said(), WorkerEnded)[0].frames_dropped == 3
    assert [event.recording for event in of(said(), EpisodeEnded)] == [None] * 3


@pytest.mark.parametrize(
    "shown",
    [
        lambda array: array / 255.0,
        lambda array: (array / 255.0).astype(np.float32),
        lambda array: array.astype(np.float64),
        lambda array: array.astype(np.int64),
    ],
)
def test_frames_of_other_numbers_are_converted_with_one_warning(
    tmp_path: Path, producer: Producer, shown: Callable[[Any], Any]
) -> None:
    recorder = make(producer)
    with pytest.warns(RuntimeWarning, match="with .* as white") as warned:  # noqa: PT031 - one warning over all
        for episode in range(2):
            play(recorder, episode, 4, show=lambda number: shown(picture(number + 255)))
    recorder.close()
    producer.close()
    assert len(warned) == 1
    assert frames_of(tmp_path, f"{producer.id}-0000") == [255, 256, 257, 258, 259]
    assert frames_of(tmp_path, f"{producer.id}-0001") == [255, 256, 257, 258, 259]


def test_a_change_of_size_goes_on_in_a_recording_of_its_own(tmp_path: Path, producer: Producer, said: Any) -> None:
    recorder = make(producer)
    play(recorder, 0, 4, show=lambda number: picture(number) if number != 2 else noisy_picture(0))
    recorder.close()
    producer.close()
    first, second, third = (f"{producer.id}-{number:04d}" for number in range(3))
    steps = of(said(), StepRecorded)
    assert [step.frame for step in steps] == [1, 0, 0, 1]
    assert [step.recording for step in steps] == [None, second, third, third]
    assert frames_of(tmp_path, first) == [0, 1]
    assert frames_of(tmp_path, third) == [3, 4]
    changes = [(event.recording, event.continued_as) for event in of(said(), FrameSizeChanged)]
    assert changes == [(first, second), (second, third)]
    sealed = of(said(), RecordingSealed)
    assert [(event.recording, event.frames, event.complete) for event in sealed] == [
        (first, 2, True),
        (second, 1, True),
        (third, 2, True),
    ]
    paths = [event.path for event in of(said(), RecordingStarted)]
    assert paths == ["videos/0.mp4", "videos/0-part2.mp4", "videos/0-part3.mp4"]


def test_pictures_that_never_keep_a_size_end_in_refusals(producer: Producer, said: Any) -> None:
    recorder = make(producer)
    with pytest.warns(RuntimeWarning, match="size changed 64 times"):
        play(recorder, 0, 80, show=lambda number: np.zeros((20 + number % 2, 40, 3), np.uint8))
    recorder.close()
    assert len(of(said(), RecordingStarted)) == 64
    assert sum(event.frames + event.frames_dropped for event in of(said(), RecordingSealed)) == 81


def failing(_: int) -> bool:
    raise LookupError("a trigger of the user's")


def test_an_exception_turns_one_recorder_off_and_never_reaches_the_loop(producer: Producer, said: Any) -> None:
    broken, sound = make(producer, worker=0, capture=failing), make(producer, worker=1)
    with pytest.warns(RuntimeWarning, match="LookupError: a trigger of the user's"):
        play(broken, 0)
    play(broken, 1)
    broken.close()
    play(sound, 0)
    sound.close()
    (failed,) = of(said(), RecorderFailed)
    assert (failed.worker, failed.error) == (0, "LookupError: a trigger of the user's")
    assert "in failing" in failed.traceback
    assert [(event.worker, event.outcome) for event in of(said(), WorkerEnded)] == [(0, "failed"), (1, "finished")]
    assert [event.worker for event in of(said(), RecordingSealed)] == [1]


def test_an_exception_within_an_episode_ends_what_was_open(
    producer: Producer, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = make(producer)
    recorder.reset(OBSERVATION, {}, seed=None, episode=0)
    recorder.capture_frame(picture(0))
    monkeypatch.setattr(module, "pack", lambda *_: 1 / 0)
    with pytest.warns(RuntimeWarning, match="recording is off"):
        recorder.step(1, OBSERVATION, 1.0, False, False, {}, picture(1), 0.001)
    assert not recorder.recording
    recorder.step(1, OBSERVATION, 1.0, False, False, {}, picture(1), 0.001)
    recorder.close()
    producer.close()
    tail = [type(event) for event in said() if type(event) is not Probe][3:]
    assert tail == [EpisodeEnded, ChunkSealed, RecordingSealed, RecorderFailed, WorkerEnded]


def test_a_warning_that_is_an_error_does_not_reach_the_loop_either(
    producer: Producer, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = make(producer, capture=failing)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        play(recorder, 0)
    assert "a trigger of the user's" in capsys.readouterr().err


def test_a_recorder_of_a_closed_producer_does_nothing(producer: Producer, said: Any) -> None:
    recorder = make(producer)
    play(recorder, 0)
    producer.close()
    play(recorder, 1)
    recorder.close()
    assert len(of(said(), EpisodeStarted)) == 1


def test_lz4_goes_easier_on_a_step_that_it_holds_up(producer: Producer) -> None:
    recorder = make(producer)
    recorder.reset(OBSERVATION, {}, seed=None, episode=0)
    recorder.capture_frame(noisy_picture(0))
    for step in range(40):
        recorder.step(1, OBSERVATION, 1.0, False, False, {}, noisy_picture(step), 1.0)
    assert recorder.tape.acceleration == 0, "a step of a second can afford it"
    for step in range(500):
        recorder.step(1, OBSERVATION, 1.0, False, False, {}, noisy_picture(step % 9), 1e-9)
    assert recorder.tape.acceleration == len(module.ACCELERATIONS) - 1
    recorder.close()


def test_frames_are_made_smaller_again_where_the_disk_does_not_keep_up(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("no folder")  # so that nothing leaves memory
    producer = Producer(tmp_path, "s", memory_bytes=10_000_000)
    recorder = make(producer)
    recorder.reset(OBSERVATION, {}, seed=None, episode=0)
    recorder.capture_frame(noisy_picture(0))
    most = 0
    for step in range(3000):
        recorder.step(1, OBSERVATION, 1.0, False, False, {}, noisy_picture(step), 1e-9)
        most = max(most, recorder.tape.acceleration)
    assert most == len(module.ACCELERATIONS) - 1
    assert producer.outbox.unsent_bytes() > module.CROWDED * 10_000_000, "the test's frames are too few"
    assert recorder.tape.acceleration == 0
    recorder.close()
    (tmp_path / "spool").unlink()
    producer.close()


# Threads and forks


def test_environments_of_one_producer_may_be_stepped_by_threads_at_once(
    tmp_path: Path, producer: Producer, said: Any
) -> None:
    recorders = [make(producer, worker=worker) for worker in range(4)]

    def run(recorder: Recorder) -> None:
        for episode in range(3):
            play(recorder, episode, 600)

    threads = [threading.Thread(target=run, args=(recorder,)) for recorder in recorders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for recorder in recorders:
        recorder.close()
    assert producer.close()
    assert producer.outbox.unsent_bytes() == 0
    sealed = of(said(), RecordingSealed)
    assert len({event.recording for event in sealed}) == 12
    for event in sealed:
        assert frames_of(tmp_path, event.recording) == list(range(601))
    for worker in range(4):
        steps = [(step.episode, step.step) for step in of(said(), StepRecorded) if step.worker == worker]
        assert steps == [(episode, step) for episode in range(3) for step in range(1, 601)]


def test_the_code_in_the_documentation_runs(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    (code,) = re.findall(r"```python\n(.*?)```", (root / "docs" / "recorder.md").read_text(), re.DOTALL)
    environment = os.environ | {"PYTHONPATH": str(root), "SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy"}
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, env=environment, check=True, timeout=60)
    (folder,) = (tmp_path / "runtime" / "data" / "spool").iterdir()
    assert len(list(folder.glob("*/00000.chunk"))) == 2


def run_program(tmp_path: Path, body: str) -> None:
    program = textwrap.dedent(
        """
        import os, sys
        from pathlib import Path
        import numpy as np
        from plugins.recorder.recorder import Recorder
        from plugins.recorder.spool import Producer
        home = Path(sys.argv[1])
        producer = Producer(home, "s")
        workers = iter((3, 4))
        recorder = Recorder(producer, worker=lambda: next(workers), env_id="E", fps=30.0, video_path=str)
        observation = np.zeros(2)
        def reset(episode):
            recorder.reset(observation, {}, seed=None, episode=episode)
            recorder.capture_frame(np.zeros((4, 4, 3), np.uint8))
        def step(end=False):
            recorder.step(0, observation, 1.0, end, False, {}, np.ones((4, 4, 3), np.uint8), 0.001)
        """
    ) + textwrap.dedent(body)
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=60)


def test_a_forked_recorder_becomes_part_of_the_childs_own_producer_at_its_next_reset(tmp_path: Path, said: Any) -> None:
    run_program(
        tmp_path,
        """
        recorder.start()
        reset(0)
        step()
        parents = producer.id
        child = os.fork()
        if not child:
            assert producer.id != parents
            assert not producer.outbox.events and not producer.outbox.frames
            assert not recorder.recording
            step()
            recorder.capture_frame(np.zeros((4, 4, 3), np.uint8))
            assert len(list(home.glob("spool/*"))) <= 1, "nothing is on the disk before the reset"
            reset(7)
            step(end=True)
            recorder.close()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        step(end=True)
        recorder.close()
        producer.close()
        (home / "parent").write_text(parents)
        """,
    )
    parent = (tmp_path / "parent").read_text()
    (child,) = [path.name for path in (tmp_path / "spool").iterdir() if path.name != parent]
    assert child.startswith("s-")
    for producer, worker, episode, steps in ((parent, 3, 0, 2), (child, 4, 7, 1)):
        events = [event for event in said(producer) if type(event) is not Probe]
        assert {event.worker for event in events if hasattr(event, "worker")} == {worker}
        assert [event.episode for event in of(events, EpisodeEnded)] == [episode]
        assert of(events, WorkerEnded)[0].steps == steps
        assert [event.outcome for event in of(events, EpisodeEnded)] == ["terminated"]
        assert frames_are_there(tmp_path, of(events, RecordingSealed)[0], steps + 1)


def frames_are_there(home: Path, sealed: RecordingSealed, frames: int) -> bool:
    folder = home / "spool" / sealed.recording.rsplit("-", 1)[0] / sealed.recording
    return sealed.frames == frames == sum(count_frames(chunk) for chunk in folder.glob("*.chunk"))


def test_a_fork_in_the_middle_of_busy_writing_leaves_both_sides_whole(tmp_path: Path) -> None:
    run_program(
        tmp_path,
        """
        children = []
        for episode in range(8):
            reset(episode)
            for _ in range(300):
                step()
            child = os.fork()
            if not child:
                for index in range(2):
                    reset(index)
                    for _ in range(50):
                        step()
                    step(end=True)
                recorder.close()
                os._exit(0)
            children.append(child)
            step(end=True)
        assert all(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 for child in children)
        recorder.close()
        """,
    )
    folders = list((tmp_path / "spool").iterdir())
    assert len(folders) == 9
    for folder in folders:
        batches = [batch for file in event_files(folder) for batch in read_batches(file).whole]
        assert not any(read_batches(file).rest for file in event_files(folder))
        assert batches[0].first_nth == 1
        assert not list(folder.glob("*/*.part"))


def test_a_process_that_ends_right_after_close_loses_nothing(tmp_path: Path, said: Any) -> None:
    run_program(tmp_path, "reset(0); step(end=True); recorder.close(); os._exit(0)")
    assert type(said()[-1]) is WorkerEnded


def test_a_process_that_never_closes_still_writes_what_it_has(tmp_path: Path, said: Any) -> None:
    run_program(tmp_path, "reset(0); [step() for _ in range(100)]")
    assert len(of(said(), StepRecorded)) == 100
