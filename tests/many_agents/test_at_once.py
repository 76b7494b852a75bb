"""PettingZooRecordVideoParallel: agents that act at once, each with its rows, its return and its end."""

from __future__ import annotations

import copy
import gc
from typing import TYPE_CHECKING, Any

import pytest
from pettingzoo.utils.conversions import aec_to_parallel_wrapper
from pettingzoo.utils.wrappers import BaseParallelWrapper

from plugins.recorder.pettingzoo import PettingZooRecordVideoParallel
from tests.end_to_end.homes import events, rows
from tests.many_agents.games import AtOnce, InTurns, Move, play_at_once
from tests.many_agents.test_in_turns import EPISODES, ends, numbers, told, wait_for

if TYPE_CHECKING:
    from pathlib import Path

THREE_STEPS = [
    Move({"a": 1.0, "b": -1.0}),
    Move({"a": 0.5, "b": 2.0}),
    Move({"a": 4.0, "b": -4.0}, terminated=["a"], truncated=["b"]),
]


def test_each_step_has_a_frame_and_a_row_of_each_agent_that_acted(tmp_path: Path, home: Path) -> None:
    env = PettingZooRecordVideoParallel(AtOnce("ab", THREE_STEPS), tmp_path / "v", **EPISODES)
    env.reset()
    env.step({"a": 0, "b": 1})
    env.step({"b": 1})  # a only watches
    env.step({"a": 1, "b": 0})
    env.close()
    video = numbers(tmp_path / "v" / "rl-video-episode-0.mp4")
    assert video == [0, 1, 2, 3]
    steps = told(home, "StepRecorded")
    assert [(step["agent"], step["step"], step["action"], step["frame"]) for step in steps] == [
        ("a", 1, 0, 1), ("b", 1, 1, 1), ("b", 2, 1, 2), ("a", 2, 1, 3), ("b", 3, 0, 3),
    ]  # fmt: skip
    for step in steps:
        assert step["observation"] == [video[step["frame"]], "ab".index(step["agent"])]
    # What a received while it watched is in its next row.
    assert [step["reward"] for step in steps if step["agent"] == "a"] == [1.0, 4.5]
    assert [step["reward"] for step in steps if step["agent"] == "b"] == [-1.0, 2.0, -4.0]
    assert [(step["terminated"], step["truncated"]) for step in steps[-2:]] == [(True, False), (False, True)]
    assert ends(home) == [(0, "a", "terminated", 5.5, 2), (0, "b", "truncated", -3.0, 3)]
    assert {end["env_steps"] for end in events(home, "EpisodeEnded")} == {3}
    (start,) = events(home, "EpisodeStarted")
    assert start["observation"] == {"a": [0.0, 0.0], "b": [0.0, 1.0]}
    assert start["info"] == {"a.born": 0, "b.born": 0}
    placed = rows(home, "SELECT agent, frame FROM steps JOIN videos ON videos.id = video_id ORDER BY frame, agent")
    assert placed == [("a", 1), ("b", 1), ("b", 2), ("a", 3), ("b", 3)]


def test_results_are_handed_on_as_they_are(tmp_path: Path, home: Path) -> None:
    class Marked(AtOnce):
        result: Any = ()

        def step(self, actions: Any) -> Any:
            self.result = super().step(actions)
            return self.result

    game = Marked("ab", THREE_STEPS)
    env = PettingZooRecordVideoParallel(game, tmp_path / "v", episode_trigger=lambda episode: episode == 0)
    for _ in range(2):
        env.reset()
        for _ in range(4):  # the last one with nobody there
            assert env.step(dict.fromkeys(env.agents, 0)) is game.result
    env.close()
    assert [end["outcome"] for end in told(home, "EpisodeEnded")] == ["terminated", "truncated"] * 2


def test_agents_that_are_born_or_die_in_mid_episode_have_an_end_each(tmp_path: Path, home: Path) -> None:
    script = [
        Move({"a": 1, "b": 1}),
        Move({"a": 1, "b": 1}, terminated=["b"], infos={"b": {"success": False}}),
        Move({"a": 1, "c": 10}, born=["c"]),
        Move({"a": 1, "c": 1}, truncated=["a"]),
        Move({"c": 1}),
        Move({"c": 1}, terminated=["c"]),
    ]
    env = PettingZooRecordVideoParallel(AtOnce("ab", script), tmp_path / "v", **EPISODES)
    assert play_at_once(env) == {"a": 4.0, "b": 2.0, "c": 13.0}
    assert env.recording
    wait_for((tmp_path / "v" / "rl-video-episode-0.mp4").exists)  # sealed by itself when the last one has ended
    env.close()
    assert ends(home) == [
        (0, "a", "truncated", 4.0, 4),
        (0, "b", "terminated", 2.0, 2),
        (0, "c", "terminated", 13.0, 3),
    ]
    order = [(end["agent"], end["success"], end["env_steps"]) for end in events(home, "EpisodeEnded")]
    assert order == [("b", False, 2), ("a", None, 4), ("c", None, 6)]
    (video,) = events(home, "VideoAvailable")
    assert (video["frames"], video["complete"], video["total_reward"]) == (7, True, 19.0)


def test_a_loop_that_stops_early_is_sealed_at_reset_and_at_close(tmp_path: Path, home: Path) -> None:
    env = PettingZooRecordVideoParallel(AtOnce("ab", THREE_STEPS), tmp_path / "v", **EPISODES)
    for _ in range(2):
        env.reset()
        env.step({"a": 0})
    env.close()
    assert ends(home) == [
        (episode, *end) for episode in range(2) for end in [("a", "aborted", 1.0, 1), ("b", "aborted", -1.0, 0)]
    ]
    assert [(video["frames"], video["complete"]) for video in events(home, "VideoAvailable")] == [(2, False)] * 2


def test_an_environment_that_leaves_its_dead_in_the_list_has_ends_too(tmp_path: Path, home: Path) -> None:
    class Sloppy(AtOnce):
        def step(self, actions: Any) -> Any:
            result = super().step(actions)
            self.agents = [1, 2]
            return result

    script = [Move({1: 1, 2: 1}), Move({1: 1, 2: 1}, terminated=[2]), Move({1: 1}, truncated=[1, 2])]
    env = PettingZooRecordVideoParallel(Sloppy([1, 2], script), tmp_path / "v", **EPISODES)
    env.reset()
    for _ in range(3):
        env.step({1: 0, 2: 0})
    wait_for((tmp_path / "v" / "rl-video-episode-0.mp4").exists)
    env.close()
    assert ends(home) == [(0, "1", "truncated", 3.0, 3), (0, "2", "terminated", 2.0, 2)]


def test_an_environment_in_turns_that_was_converted_is_recorded(tmp_path: Path, home: Path) -> None:
    script = [Move(), Move({"a": 1, "b": 2}), Move(), Move({"a": 1, "b": 2}, truncated="ab")]
    game = InTurns("ab", script, metadata={**InTurns.metadata, "is_parallelizable": True})
    env = PettingZooRecordVideoParallel(aec_to_parallel_wrapper(game), tmp_path / "v", **EPISODES)
    assert play_at_once(env) == {"a": 2.0, "b": 4.0}
    env.close()
    assert ends(home) == [(0, "a", "truncated", 2.0, 2), (0, "b", "truncated", 4.0, 2)]


def test_an_episode_that_is_not_captured_renders_nothing_and_has_its_returns(tmp_path: Path, home: Path) -> None:
    game = AtOnce("ab", THREE_STEPS)
    env = PettingZooRecordVideoParallel(game, tmp_path / "v", episode_trigger=lambda _: False)
    play_at_once(env)
    env.close()
    assert game.renders == 0
    assert ends(home) == [(0, "a", "terminated", 5.5, 3), (0, "b", "truncated", -3.0, 3)]
    assert not events(home, "StepRecorded", "RecordingStarted")


def test_it_is_the_librarys_own_kind_of_wrapper(tmp_path: Path) -> None:
    assert issubclass(PettingZooRecordVideoParallel, BaseParallelWrapper)
    with pytest.raises(AssertionError, match="only compatible with ParallelEnv"):
        PettingZooRecordVideoParallel(InTurns("ab", []), tmp_path / "v")
    with pytest.raises(ValueError, match="such as rgb_array"):
        PettingZooRecordVideoParallel(AtOnce("ab", [], render_mode=None), tmp_path / "v")
    PettingZooRecordVideoParallel.__new__(PettingZooRecordVideoParallel).__del__()
    gc.collect()
    assert not (tmp_path / "v").exists()


def test_a_copy_records_from_its_own_reset_on(tmp_path: Path, home: Path) -> None:
    env = PettingZooRecordVideoParallel(AtOnce("ab", THREE_STEPS), tmp_path / "v")
    env.reset()
    double = copy.deepcopy(env)
    double.step({"a": 0, "b": 0})
    assert (env.env.steps, double.env.steps, env.recording, double.recording) == (0, 1, True, False)
    env.close()


def test_results_that_cannot_be_understood_turn_recording_off_and_come_through(tmp_path: Path, home: Path) -> None:
    class Strange(AtOnce):
        def step(self, actions: Any) -> Any:
            return {}, {}, {}, {}  # as one of the library's own conversions does behind the end

    env = PettingZooRecordVideoParallel(Strange("ab", []), tmp_path / "v")
    env.reset()
    with pytest.warns(RuntimeWarning, match="recording is off"):
        first: Any = env.step({})
    second: Any = env.step({})
    assert first == second == ({}, {}, {}, {})
    env.close()
