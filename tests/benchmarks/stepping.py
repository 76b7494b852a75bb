"""What recording costs the loop, beside rendering alone and beside Gymnasium's RecordVideo, on the same episodes.

    python tests/benchmarks/stepping.py [--rounds 5] [--episodes 4]

CartPole at 600×400, every episode captured. The contenders take turns, round by round, on the same seeds; a ratio is
taken within a round, and the median over the rounds is printed with the least and the most.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gymnasium as gym
from gymnasium.wrappers import RecordVideo

from plugins.events import CaptureSettings
from plugins.recorder.recorder import Recorder
from plugins.recorder.sessions import open_session
from plugins.recorder.spool import Producer, new_session_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CONFIG = """
home = "{home}"
[plugins.collector]
use = "plugins.collector:Collector"
[plugins.encoder]
use = "plugins.encoder_pool:EncoderPool"
[plugins.sqlite]
use = "plugins.sqlite_sink:SqliteSink"
"""


class Turn(NamedTuple):
    """What one contender took for the episodes of a round."""

    steps: int
    loop_seconds: float
    longest_step_seconds: float
    done_seconds: float
    """Until the last video stood."""


def play(
    env: gym.Env[Any, Any], seed: int, after_reset: Callable[..., Any], after_step: Callable[..., Any]
) -> list[float]:
    """One episode of a simple policy that balances for some hundred steps; how long each step took in all."""
    observation, info = env.reset(seed=seed)
    after_reset(observation, info, seed)
    took = []
    ended = False
    while not ended:
        action = int(observation[2] + 0.5 * observation[3] > 0)
        entered = time.perf_counter()
        result = env.step(action)
        after_step(action, result, time.perf_counter() - entered)
        took.append(time.perf_counter() - entered)
        observation, _, terminated, truncated, _ = result
        ended = terminated or truncated
    return took


def bare(seeds: Sequence[int], _: Path) -> Turn:
    """Stepping and rendering, and nothing else."""
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    began = time.perf_counter()
    took = [t for seed in seeds for t in play(env, seed, lambda *_: env.render(), lambda *_: env.render())]
    loop_seconds = time.perf_counter() - began
    env.close()
    return Turn(len(took), loop_seconds, max(took), loop_seconds)


def ours(seeds: Sequence[int], home: Path) -> Turn:
    """Our recorder, with a kernel at work beside."""
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    session = open_session(home, new_session_id(), "script")
    producer = Producer(home, session.id)
    recorder = Recorder(
        producer,
        env_id="CartPole-v1",
        fps=50,
        video_path=lambda episode: f"videos/{session.id}/rl-video-episode-{episode}.mp4",
        capture=CaptureSettings(),
    )
    recorder.start()

    def after_reset(observation: Any, info: Any, seed: int) -> None:
        recorder.reset(observation, info, seed=seed, episode=seed)
        recorder.capture_frame(env.render())

    def after_step(action: Any, result: Any, seconds: float) -> None:
        observation, reward, terminated, truncated, info = result
        recorder.step(action, observation, reward, terminated, truncated, info, env.render(), seconds)

    began = time.perf_counter()
    took = [t for seed in seeds for t in play(env, seed, after_reset, after_step)]
    loop_seconds = time.perf_counter() - began
    recorder.close()
    producer.close()
    session.end("finished")
    while videos_of(home, session.id) < len(seeds):
        time.sleep(0.01)
    done_seconds = time.perf_counter() - began
    env.close()
    return Turn(len(took), loop_seconds, max(took), done_seconds)


def record_video(seeds: Sequence[int], home: Path) -> Turn:
    """Gymnasium's wrapper, which encodes in the loop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that it overwrites
        folder = home / f"upstream-{time.monotonic_ns()}"
        env = RecordVideo(gym.make("CartPole-v1", render_mode="rgb_array"), str(folder), episode_trigger=lambda _: True)
        began = time.perf_counter()
        took = [t for seed in seeds for t in play(env, seed, lambda *_: None, lambda *_: None)]
        loop_seconds = time.perf_counter() - began
        env.close()  # type: ignore[no-untyped-call]  # upstream leaves it untyped
    return Turn(len(took), loop_seconds, max(took), time.perf_counter() - began)


def videos_of(home: Path, session: str) -> int:
    """How many of the session's videos the log has announced."""
    announced = 0
    for segment in (home / "log").glob("*.jsonl"):
        for line in segment.read_bytes().splitlines():
            if b'"VideoAvailable"' in line and json.loads(line)["event"]["session"] == session:
                announced += 1
    return announced


@contextmanager
def kernel_on(home: Path) -> Iterator[None]:
    """A kernel at work on the home, with collector, encoders and tables."""
    config = home.with_suffix(".toml")
    config.write_text(CONFIG.format(home=home))
    process = subprocess.Popen([sys.executable, "-m", "kernel", str(config)])
    while not (home / "stepreel.sqlite").exists():
        time.sleep(0.05)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def spread(ratios: Sequence[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(ratios):6.3f}   ({min(ratios):.3f} to {max(ratios):.3f})"


def main() -> None:
    """Run the rounds and print the ratios."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=4)
    arguments = parser.parse_args()
    rounds: list[tuple[Turn, Turn, Turn]] = []
    with tempfile.TemporaryDirectory() as folder, kernel_on(Path(folder) / "home"):
        home = Path(folder) / "home"
        bare(range(1), home)  # the first rendering of a process loads fonts and libraries
        for number in range(arguments.rounds):
            seeds = range(number * arguments.episodes, (number + 1) * arguments.episodes)
            rounds.append((bare(seeds, home), ours(seeds, home), record_video(seeds, home)))
            print(f"round {number + 1}: {rounds[-1][0].steps} steps each", file=sys.stderr)
    pace = [floor.loop_seconds / mine.loop_seconds for floor, mine, _ in rounds]
    upstream_pace = [floor.loop_seconds / theirs.loop_seconds for floor, _, theirs in rounds]
    longest = [mine.longest_step_seconds / floor.longest_step_seconds for floor, mine, _ in rounds]
    done = [mine.done_seconds / theirs.done_seconds for _, mine, theirs in rounds]
    cost = [(mine.loop_seconds - floor.loop_seconds) / floor.steps * 1e3 for floor, mine, _ in rounds]
    drawn = [floor.loop_seconds / floor.steps * 1e3 for floor, _, _ in rounds]
    print(f"milliseconds a step, rendering alone        {spread(drawn)}")
    print(f"milliseconds that recording adds to a step  {spread(cost)}")
    print(f"steps/s with capture ÷ rendering alone      {spread(pace)}   RecordVideo: {spread(upstream_pace)}")
    print(f"longest step ÷ rendering alone's longest    {spread(longest)}")
    print(f"until the last video stands ÷ RecordVideo's {spread(done)}")


if __name__ == "__main__":
    main()
