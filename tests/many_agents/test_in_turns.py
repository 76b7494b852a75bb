"""PettingZooRecordVideo: agents that take turns, each with its rows, its return and its end."""

from __future__ import annotations

import copy
import gc
import pickle
import random
import subprocess
import sys
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pettingzoo
import pytest
from pettingzoo.utils.conversions import parallel_to_aec
from pettingzoo.utils.wrappers import BaseWrapper, MultiEpisodeEnv, OrderEnforcingWrapper

from plugins.events import Keep
from plugins.recorder.pettingzoo import PettingZooRecordVideo
from tests.end_to_end.homes import check_log, events, frames_of, rows
from tests.environments.bars import shown
from tests.many_agents.games import AtOnce, InTurns, Move, play
from tests.wrappers.homes import end_script, wait_until_quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

EPISODES: dict[str, Any] = {"episode_trigger": lambda _: True}
LAST_MOVE_WINS = [
    Move({"a": 1.0}),
    Move({"a": -0.25, "b": 2}),
    Move(),
    Move({"a": -10, "b": 10}, terminated=["a", "b"], infos={"a": {"is_success": False}, "b": {"is_success": True}}),
]
"""Two moves of each; `a` is rewarded while `b` acts, and behind its own last move."""


def told(home: Path, *types: str) -> list[dict[str, Any]]:
    """The events of these types, when the script has ended and all is done."""
    end_script(home)
    wait_for(lambda: not list((home / "spool").iterdir()))  # a recorder process that comes late finds it all the same
    wait_until_quiet(home)
    check_log(home)
    assert not events(home, "RecorderFailed")
    return events(home, *types)


def ends(home: Path) -> list[tuple[Any, ...]]:
    """Of each episode and agent: the outcome, the return, and the number of its own steps."""
    return sorted(
        (end["episode"], end["agent"], end["outcome"], end["total_reward"], end["steps"])
        for end in told(home, "EpisodeEnded")
    )


def numbers(video: Path) -> list[int]:
    return [shown(picture) for picture in frames_of(video)]


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


# Rows and frames -------------------------------------------------------------------------------------------------


def test_each_step_has_a_frame_and_a_row_of_whose_turn_it_was_and_a_none_step_has_no_row(
    tmp_path: Path, home: Path
) -> None:
    env = PettingZooRecordVideo(OrderEnforcingWrapper(InTurns("ab", LAST_MOVE_WINS)), tmp_path / "v", **EPISODES)
    play(env)
    env.close()
    video = numbers(tmp_path / "v" / "rl-video-episode-0.mp4")
    assert video == [0, 1, 2, 3, 4, 5, 6]  # the reset, four moves, and the two that are dead taken off
    steps = told(home, "StepRecorded")
    assert [(step["agent"], step["step"]) for step in steps] == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert [step["action"] for step in steps] == [1, 1, 1, 1]
    for step in steps:  # an observation says after how many steps it was made, and whose it is
        assert step.get("frames", 1) == 1
        assert [video[step["frame"]], "ab".index(step["agent"])] == step["observation"]
    assert [step["terminated"] for step in steps] == [False, False, False, True]
    assert steps[-1]["info"] == {"is_success": True}
    placed = rows(home, "SELECT agent, frame FROM steps JOIN videos ON videos.id = video_id ORDER BY frame")
    assert placed == [("a", 1), ("b", 2), ("a", 3), ("b", 4)]


def test_a_return_counts_what_came_while_others_acted_and_behind_the_last_own_step(tmp_path: Path, home: Path) -> None:
    env = PettingZooRecordVideo(InTurns("ab", LAST_MOVE_WINS), tmp_path / "v", **EPISODES)
    assert play(env) == {"a": -9.25, "b": 12.0}
    env.close()
    assert ends(home) == [(0, "a", "terminated", -9.25, 2), (0, "b", "terminated", 12.0, 2)]
    rewards = [(step["agent"], step["reward"]) for step in events(home, "StepRecorded")]
    # A row has what came since the agent's row before. What came behind a's last one is in its return alone.
    assert rewards == [("a", 1.0), ("b", 2.0), ("a", -0.25), ("b", 10.0)]
    success = {end["agent"]: end["success"] for end in events(home, "EpisodeEnded")}
    assert success == {"a": False, "b": True}
    (video,) = events(home, "VideoAvailable")
    assert video["complete"]
    assert video["total_reward"] == 2.75
    assert {end["env_steps"] for end in events(home, "EpisodeEnded")} == {4}
    (worker,) = events(home, "WorkerEnded")
    assert worker["steps"] == 4


def random_game(chance: random.Random) -> tuple[list[str], list[Move]]:
    """Agents that are rewarded, die and are born at any time; the last moves end all that are left."""
    agents = [f"p{number}" for number in range(chance.randint(1, 4))]
    alive, script = agents[:], []
    for number in range(chance.randint(0, 12)):
        born = [f"born{number}"] if chance.random() < 0.15 else []
        alive += born
        rewards = {agent: chance.choice([0, 1, -0.5, 0.125]) for agent in alive if chance.random() < 0.7}
        dead = [agent for agent in alive if chance.random() < 0.1][: len(alive) - 1]
        by_both = chance.choice([(dead, ()), ((), dead)])
        script.append(Move(rewards, *by_both, born))
        alive = [agent for agent in alive if agent not in dead]
    return agents, [*script, Move(dict.fromkeys(alive, 2.0), truncated=alive)]


@pytest.mark.parametrize("dead", ["first", "in turn"])
def test_returns_are_what_last_says_in_games_of_any_course(tmp_path: Path, home: Path, dead: str) -> None:
    chance = random.Random(f"dead {dead}")
    expected = {}
    game = InTurns([], [], dead_first=dead == "first")
    env = PettingZooRecordVideo(game, tmp_path / "v", episode_trigger=lambda episode: episode % 4 == 0)
    for episode in range(40):
        game._first, script = random_game(chance)
        game._script = script.__getitem__
        for agent, total in play(env).items():
            expected[episode, agent] = total
    env.close()
    assert {(episode, agent): total for episode, agent, _, total, _ in ends(home)} == expected
    own_steps: dict[Any, int] = defaultdict(int)
    for step in events(home, "StepRecorded"):
        own_steps[step["episode"], step["agent"]] += 1
    counted = {
        (end["episode"], end["agent"]): end["steps"] for end in events(home, "EpisodeEnded") if end["episode"] % 4 == 0
    }
    assert {key: steps for key, steps in counted.items() if steps} == own_steps
    videos = {n: numbers(tmp_path / "v" / f"rl-video-episode-{n}.mp4") for n in range(0, 40, 4)}
    for step in events(home, "StepRecorded"):  # an observation says after how many steps it was made
        assert step.get("frames", 1) == 1
        assert videos[step["episode"]][step["frame"]] == step["observation"][0]


def test_a_dead_agent_that_waits_for_its_turn_still_receives(tmp_path: Path, home: Path) -> None:
    script = [Move({"a": 1}, terminated=["a"]), Move({"a": 5, "b": 1}), Move({"b": 1}, truncated=["b"])]
    env = PettingZooRecordVideo(InTurns("ab", script, dead_first=False), tmp_path / "v", **EPISODES)
    assert play(env) == {"a": 6.0, "b": 2.0}
    env.close()
    assert ends(home) == [(0, "a", "terminated", 6.0, 1), (0, "b", "truncated", 2.0, 2)]


def test_agents_that_are_born_or_die_in_mid_episode_have_an_end_each(tmp_path: Path, home: Path) -> None:
    script = [
        Move({"a": 1}),
        Move({"b": 1}, terminated=["a"]),
        Move({"b": 1, "c": 7}, born=["c"]),
        Move({"c": 1}),
        Move({"b": 0.5}, truncated=["b", "c"]),
    ]
    env = PettingZooRecordVideo(InTurns("ab", script), tmp_path / "v", **EPISODES)
    play(env)
    env.close()
    assert ends(home) == [
        (0, "a", "terminated", 1.0, 1),
        (0, "b", "truncated", 2.5, 3),
        (0, "c", "truncated", 8.0, 1),
    ]
    assert [step["agent"] for step in events(home, "StepRecorded")] == ["a", "b", "b", "c", "b"]
    (video,) = events(home, "VideoAvailable")
    assert (video["complete"], video["frames"], video["total_reward"]) == (True, 9, 11.5)


def test_an_agent_that_is_alive_may_act_by_none(tmp_path: Path, home: Path) -> None:
    env = PettingZooRecordVideo(InTurns("ab", LAST_MOVE_WINS), tmp_path / "v", **EPISODES)
    env.reset()
    for action in (1, None, 0, None, None, None):
        env.step(action)
    env.close()
    assert [step["action"] for step in told(home, "StepRecorded")] == [1, None, 0, None]


def test_a_parallel_environment_that_was_converted_has_its_rewards_in_the_rows_behind(
    tmp_path: Path, home: Path
) -> None:
    script = [Move({"a": 1.0, "b": 10.0}), Move({"a": 2.0, "b": 20.0}), Move({"a": 4.0, "b": 40.0}, truncated="ab")]
    env = PettingZooRecordVideo(parallel_to_aec(AtOnce("ab", script)), tmp_path / "v", **EPISODES)
    play(env)
    env.close()
    assert ends(home) == [(0, "a", "truncated", 7.0, 3), (0, "b", "truncated", 70.0, 3)]
    rewards = [(step["agent"], step["reward"]) for step in events(home, "StepRecorded")]
    assert rewards == [("a", 0.0), ("b", 10.0), ("a", 1.0), ("b", 20.0), ("a", 2.0), ("b", 40.0)]


def test_ids_of_any_kind_become_text_and_stay_apart(tmp_path: Path, home: Path) -> None:
    agents: Sequence[Any] = [1, "1", ("team", 2)]
    script = [Move({1: 1}), Move({"1": 2}), Move({("team", 2): 4}), Move(terminated=agents)]
    env = PettingZooRecordVideo(InTurns(agents, script), tmp_path / "v", **EPISODES)
    play(env)
    env.close()
    totals = {agent: total for _, agent, _, total, _ in ends(home)}
    assert totals == {"1": 1.0, "'1'": 2.0, "('team', 2)": 4.0}


def test_rewards_that_are_no_plain_numbers_are_told_as_well_as_they_can_be(tmp_path: Path, home: Path) -> None:
    script = [
        Move({"a": np.float32(0.5), "b": np.array([2])}),
        Move({"a": np.int64(1), "b": True}),
        Move({"a": 10**400, "b": float("nan")}),
        Move(terminated="ab"),
    ]
    env = PettingZooRecordVideo(InTurns("ab", script), tmp_path / "v", **EPISODES)
    env.reset()
    for _ in range(4):
        env.step(0)
    env.close()
    assert [(agent, total) for _, agent, _, total, _ in ends(home)] == [("a", None), ("b", None)]
    assert [step["reward"] for step in events(home, "StepRecorded")] == [0.5, 3.0, None, None]


# How an episode ends ---------------------------------------------------------------------------------------------


def test_a_loop_that_stops_early_is_sealed_at_reset_and_at_close(tmp_path: Path, home: Path) -> None:
    script = [Move({"a": 1}), Move({"a": 1, "b": 1}, terminated=["b"]), Move(), Move()]
    env = PettingZooRecordVideo(InTurns("abc", script), tmp_path / "v", **EPISODES)
    env.reset()
    env.step(0)
    env.reset()  # c has not had a turn
    env.step(0)
    env.step(0)
    env.close()  # b has come to its end, and was not taken off
    assert ends(home) == [
        (0, "a", "aborted", 1.0, 1), (0, "b", "aborted", 0.0, 0), (0, "c", "aborted", 0.0, 0),
        (1, "a", "aborted", 2.0, 1), (1, "b", "terminated", 1.0, 1), (1, "c", "aborted", 0.0, 0),
    ]  # fmt: skip
    videos = events(home, "VideoAvailable")
    assert sorted((video["first_episode"], video["frames"], video["complete"]) for video in videos) == [
        (0, 2, False),
        (1, 3, False),
    ]


def test_a_loop_that_leaves_the_dead_standing_has_its_video_all_the_same(tmp_path: Path, home: Path) -> None:
    env: Any = PettingZooRecordVideo(InTurns("ab", LAST_MOVE_WINS), tmp_path / "v", **EPISODES)
    env.reset()
    while not env.last()[2]:
        env.step(0)
    assert env.recording
    wait_for((tmp_path / "v" / "rl-video-episode-0.mp4").exists)  # a second later, by itself
    assert not env.recording
    env.step(None)  # too late for the video, and no mistake
    env.close()
    assert ends(home) == [(0, "a", "terminated", -9.25, 2), (0, "b", "terminated", 12.0, 2)]
    (video,) = events(home, "VideoAvailable")
    assert (video["frames"], video["complete"]) == (5, True)


def test_an_episode_whose_dead_are_taken_off_is_sealed_by_itself(tmp_path: Path, home: Path) -> None:
    env = PettingZooRecordVideo(InTurns("ab", LAST_MOVE_WINS), tmp_path / "v", **EPISODES)
    play(env)
    wait_for((tmp_path / "v" / "rl-video-episode-0.mp4").exists)
    assert len(numbers(tmp_path / "v" / "rl-video-episode-0.mp4")) == 7
    env.close()


def test_an_environment_that_resets_itself_begins_an_episode_and_goes_on_with_the_recording(
    tmp_path: Path, home: Path
) -> None:
    env = PettingZooRecordVideo(MultiEpisodeEnv(InTurns("ab", LAST_MOVE_WINS), 3), tmp_path / "v", **EPISODES)
    play(env)
    env.close()
    assert numbers(tmp_path / "v" / "rl-video-episode-0.mp4") == [*[0, 1, 2, 3, 4, 5] * 3, 6]
    assert ends(home) == [
        (episode, *end) for episode in range(3) for end in [("a", "terminated", -9.25, 2), ("b", "terminated", 12.0, 2)]
    ]
    begun = [(start["episode"], start["first_frame"]) for start in events(home, "EpisodeStarted")]
    assert begun == [(0, 0), (1, 6), (2, 12)]
    frames = [step["frame"] for step in events(home, "StepRecorded")]
    assert frames == [1, 2, 3, 4, 7, 8, 9, 10, 13, 14, 15, 16]
    (video,) = events(home, "VideoAvailable")
    assert (video["first_episode"], video["last_episode"], video["complete"]) == (0, 2, True)


def test_keeping_goes_by_the_return_of_all_agents_together(tmp_path: Path, home: Path) -> None:
    game = InTurns("ab", [])
    env = PettingZooRecordVideo(game, tmp_path / "v", **EPISODES, keep=Keep(best=1))
    for brings in (3, 1, 5):
        game._script = [Move({"a": 100}), Move({"a": -100, "b": brings}, terminated="ab")].__getitem__
        play(env)
    env.close()
    told(home)
    kept = {video["first_episode"]: video["total_reward"] for video in events(home, "VideoAvailable")}
    assert kept == {0: 3.0, 2: 5.0}  # the best at its time, and the best
    assert len(events(home, "RecordingDiscarded")) == 1


# What it costs, and what it tells --------------------------------------------------------------------------------


def test_an_episode_that_is_not_captured_renders_and_observes_nothing_and_has_its_returns(
    tmp_path: Path, home: Path
) -> None:
    game = InTurns("ab", LAST_MOVE_WINS)
    env = PettingZooRecordVideo(game, tmp_path / "v", episode_trigger=lambda episode: episode == 1)
    env.reset()
    for action in (0, 0, 0, 0, None, None):
        env.step(action)
    assert (game.renders, game.observes) == (0, 0)
    env.reset()
    for action in (0, 0, 0, 0, None, None):
        env.step(action)
    assert (game.renders, game.observes) == (7, 5)  # a picture of each; who acts first, and then who has acted
    env.close()
    assert ends(home) == [
        (episode, *end) for episode in range(2) for end in [("a", "terminated", -9.25, 2), ("b", "terminated", 12.0, 2)]
    ]
    assert {step["episode"] for step in events(home, "StepRecorded")} == {1}


@pytest.mark.parametrize(("telemetry", "steps", "episodes"), [("all", 8, 4), ("episodes", 0, 4), (False, 0, 0)])
def test_telemetry_is_as_asked_for(tmp_path: Path, home: Path, telemetry: Any, steps: int, episodes: int) -> None:
    game = InTurns("ab", LAST_MOVE_WINS)
    env = PettingZooRecordVideo(game, tmp_path / "v", episode_trigger=lambda e: e == 1, telemetry=telemetry)
    for _ in range(2):
        env.reset()
        for action in (0, 0, 0, 0, None, None):
            env.step(action)
    env.close()
    assert len(told(home, "StepRecorded")) == steps
    assert len(events(home, "EpisodeEnded")) == episodes
    assert game.observes == (10 if telemetry == "all" else 0)
    assert len(events(home, "VideoAvailable")) == 1


def test_a_recording_that_begins_in_mid_episode_has_rows_from_there_on(tmp_path: Path, home: Path) -> None:
    env = PettingZooRecordVideo(
        InTurns("ab", LAST_MOVE_WINS), tmp_path / "v", step_trigger=lambda step: step == 2, video_length=1
    )
    play(env)
    env.close()
    assert numbers(tmp_path / "v" / "rl-video-step-2.mp4") == [3, 4]
    assert ends(home) == [(0, "a", "terminated", -9.25, 2), (0, "b", "terminated", 12.0, 2)]
    steps = events(home, "StepRecorded")
    assert [(step["agent"], step["step"], step["reward"], step["frame"]) for step in steps] == [
        ("a", 2, -0.25, 0),
        ("b", 2, 10.0, 1),
    ]


# What a wrapper has to be ----------------------------------------------------------------------------------------


def test_it_is_the_librarys_own_kind_of_wrapper_and_asks_for_the_library_only_when_it_is_used() -> None:
    assert issubclass(PettingZooRecordVideo, BaseWrapper)
    code = (
        "import sys, stepreel\n"
        "assert 'pettingzoo' not in sys.modules\n"
        "from pettingzoo.utils import BaseWrapper\n"
        "assert issubclass(stepreel.PettingZooRecordVideo, BaseWrapper)\n"
        "assert sys.modules['pettingzoo'].__file__ != sys.modules['plugins.recorder.pettingzoo'].__file__\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.filterwarnings("ignore")  # the library's check imports what the library itself calls deprecated
def test_an_environment_passes_the_librarys_own_check_through_us(tmp_path: Path, home: Path) -> None:
    from pettingzoo.test import api_test

    game = pettingzoo.make("aec", "classic/tictactoe_v3", render_mode="rgb_array")
    env = PettingZooRecordVideo(game, tmp_path / "v", **EPISODES)
    api_test(env, num_cycles=20)
    env.close()
    assert (tmp_path / "v" / "rl-video-episode-0.mp4").exists()
    assert {step["agent"] for step in told(home, "StepRecorded")} == {"player_1", "player_2"}


def test_an_environment_of_the_other_kind_or_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="only compatible with AECEnv"):
        PettingZooRecordVideo(AtOnce("ab", []), tmp_path / "v")
    for mode in (None, "human", "ansi"):
        with pytest.raises(ValueError, match="such as rgb_array"):
            PettingZooRecordVideo(InTurns("ab", [], render_mode=mode), tmp_path / "v")
    gc.collect()  # half-built wrappers go in silence: warnings are errors here
    assert not (tmp_path / "v").exists()


def test_an_object_that_was_never_built_goes_in_silence() -> None:
    PettingZooRecordVideo.__new__(PettingZooRecordVideo).__del__()


def test_private_names_are_refused_and_public_ones_are_the_environments(tmp_path: Path) -> None:
    env = PettingZooRecordVideo(InTurns("ab", [], colour="red"), tmp_path / "v")
    assert env.colour == "red"
    assert env._video_name is None
    with pytest.raises(AttributeError, match="private attribute '_secret'"):
        env._secret  # noqa: B018 - reading it is the test
    with pytest.raises(AttributeError):
        env.agents  # noqa: B018 - there are none before the first reset
    env.close()


def test_what_the_environment_refuses_before_a_reset_it_refuses_through_us(tmp_path: Path) -> None:
    strict = OrderEnforcingWrapper(InTurns("ab", LAST_MOVE_WINS))
    env = PettingZooRecordVideo(strict, tmp_path / "v")
    calls: list[Callable[[Any], Any]] = [
        lambda env: env.step(0),
        lambda env: env.render(),
        lambda env: env.observe("a"),
        lambda env: env.rewards,
    ]
    for call in calls:
        with pytest.raises(Exception, match="before") as theirs:
            call(strict)
        with pytest.raises(theirs.type) as ours:
            call(env)
        assert str(ours.value) == str(theirs.value)
    assert env.step_id == -1
    env.close()


def test_copies_record_from_their_own_reset_on(tmp_path: Path, home: Path) -> None:
    env = PettingZooRecordVideo(InTurns("ab", LAST_MOVE_WINS), tmp_path / "v")
    env.reset()
    env.step(0)
    for double in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):  # noqa: S301 - our own
        assert (double.step_id, double.recording) == (0, False)
        double.step(0)  # a look ahead
        assert double.env.steps == 2
    assert env.env.steps == 1
    assert env.recording
    with pytest.warns(RuntimeWarning, match="-w1-"):
        double.reset()
    double.close()
    env.close()
    assert sorted(path.name for path in (tmp_path / "v").iterdir()) == [
        "rl-video-episode-0.mp4",
        "rl-video-w1-episode-1.mp4",
    ]


def test_an_environment_that_does_not_keep_its_word_is_stepped_all_the_same(tmp_path: Path, home: Path) -> None:
    class Blind(InTurns):
        def observe(self, agent: Any) -> Any:
            raise KeyError(agent)

    env = PettingZooRecordVideo(Blind("ab", LAST_MOVE_WINS), tmp_path / "v", **EPISODES)
    with pytest.warns(RuntimeWarning, match=r"observe\(\) fails"):
        env.reset()
    for action in (0, 0, 0, 0, None, None):
        env.step(action)
    env.close()
    assert [step.get("observation") for step in told(home, "StepRecorded")] == [None] * 4


def test_an_environment_without_rewards_goes_on_unrecorded(tmp_path: Path, home: Path) -> None:
    env = PettingZooRecordVideo(InTurns("ab", LAST_MOVE_WINS), tmp_path / "v", **EPISODES)
    env.reset()
    env.env.rewards = None
    env.env._clear_rewards = lambda: None
    env.env._script = lambda _: Move()
    env.env._accumulate_rewards = lambda: None
    with pytest.warns(RuntimeWarning, match="recording is off"):
        env.step(0)
    env.step(0)
    assert env.env.steps == 2
    env.close()
    end_script(home)
    wait_until_quiet(home)
    assert len(events(home, "RecorderFailed")) == 1
    assert [end["outcome"] for end in events(home, "EpisodeEnded")] == ["aborted", "aborted"]
