"""One turn of one contender, in a process of its own: `python -m tests.benchmarks.turn ORDER MARK`.

Plays the load with the contender around it, and leaves what it saw in the file `turn.json`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from array import array
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import msgspec
import numpy as np

from kernel.log import read
from plugins.events import EpisodeEnded, EpisodeStarted, VideoAvailable
from tests.benchmarks.contenders import CONTENDERS
from tests.benchmarks.loads import LOADS, Load, Seen, make, player
from tests.benchmarks.looker import Looker
from tests.benchmarks.watching import Mark

if TYPE_CHECKING:
    from collections.abc import Callable

SB3 = ("SB3", "stepreel SB3")
"""Stable-Baselines3's VecVideoRecorder, and ours."""
RUNNER = "stepreel runner"
"""Our own environment runner, in worker processes."""
UNWATCHED = "stepreel runner + viewer"
"""The same beside the viewer, at which nobody looks."""
WATCHED = "stepreel runner + viewer (all tiles watched)"
UNREAD = "stepreel runner + viewer (who watches reads nothing)"
RUNNERS = (RUNNER, UNWATCHED, WATCHED, UNREAD)
KERNEL_PLUGINS = {
    "collector": "plugins.collector:Collector",
    "encoder": "plugins.encoder_pool:EncoderPool",
    "sqlite": "plugins.sqlite_sink:SqliteSink",
    "pruner": "plugins.pruner:Pruner",
}
WARM_UP_STEPS = 60
PERCENTILES = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9}


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be played, and how."""

    load: str
    contender: str
    steps: int
    """Of the loop; with several environments, each of them is stepped so often."""
    every: int = 1
    """Every so many episodes one is captured; 0: none."""
    envs: int = 1
    seed: int = 1
    env_kwargs: dict[str, Any] = {}
    options: dict[str, Any] = {}
    """Arguments of our own wrapper."""
    warm_up: bool = True
    """Record a video first that does not count."""
    keep_pictures: bool = False
    """Leave what was captured in `pictures.npy`."""
    settle_seconds: float = 0.0
    """Of a runner: its pace counts from so long behind its first episode."""


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """What the process itself saw of its turn."""

    steps: int
    loop_seconds: float
    done_seconds: float
    """Until the last video stood."""
    captured: int
    """Frames that the videos should have, all together."""
    ended: list[float]
    """When each of the captured episodes ended: Unix times."""
    stolen_seconds: float = 0.0
    """That the host of a virtual machine took away from its cores during the loop, all together."""
    step_seconds: dict[str, float] = {}
    """Percentiles of the steps; and the longest call of the loop, be it a step or a reset."""
    pictures_watched: int = 0
    """That came to who watches live."""


def play(env: gym.Env[Any, Any], order: Order, took: array[float]) -> tuple[list[float], float]:
    """The loop. Fills `took` with how long each step took; when episodes ended, and how long the longest reset took."""
    clock = time.perf_counter
    act = player(env, order.load, order.seed)
    ended: list[float] = []
    longest_reset = 0.0
    observation, _ = env.reset(seed=order.seed)
    step = env.step
    for place in range(len(took)):
        action = act(observation)
        entered = clock()
        observation, _, terminated, truncated, _ = step(action)
        took[place] = clock() - entered
        if terminated or truncated:
            ended.append(time.time())
            if place + 1 == len(took):
                break  # a reset would begin another video
            entered = clock()
            observation, _ = env.reset()
            longest_reset = max(longest_reset, clock() - entered)
    return ended, longest_reset


def play_several(envs: Any, order: Order, took: array[float]) -> tuple[list[float], float]:
    """The loop of a vector environment, which resets its environments itself; Stable-Baselines3's is one, too."""
    clock = time.perf_counter
    space = getattr(envs, "single_action_space", None) or envs.action_space
    acts = [LOADS[order.load].policy(int(space.n), order.seed + place) for place in range(order.envs)]
    if order.contender in SB3:
        envs.seed(order.seed)
        observations = envs.reset()
    else:
        observations, _ = envs.reset(seed=order.seed)
    for place in range(len(took)):
        actions = np.array([act(observation) for act, observation in zip(acts, observations, strict=True)])
        entered = clock()
        observations = envs.step(actions)[0]
        took[place] = clock() - entered
    return [], 0.0


def opened(order: Order, load: Load, folder: Path) -> tuple[Any, list[Seen]]:
    """What the loop steps, and the environments beneath, in which pictures are counted."""
    seen = [make(load, keep_pictures=order.keep_pictures, **order.env_kwargs) for _ in range(order.envs)]
    if order.contender in SB3:
        return _sb3(order, seen, folder), seen

    def due(episode: int) -> bool:
        return order.every > 0 and episode % order.every == 0

    wrap = partial(CONTENDERS[order.contender], **order.options)

    def wrapped(place: int) -> gym.Env[Any, Any]:
        own = folder / str(place) if order.envs > 1 else folder
        own.mkdir(parents=True, exist_ok=True)
        return wrap(seen[place], own, due)

    if order.envs == 1:
        return wrapped(0), seen
    return gym.vector.SyncVectorEnv([partial(wrapped, place) for place in range(order.envs)]), seen


def _sb3(order: Order, seen: list[Seen], folder: Path) -> Any:
    """All environments in one picture, in videos of 200 steps, one behind the other."""
    from stable_baselines3.common.vec_env import DummyVecEnv, VecVideoRecorder

    import stepreel

    recorder = VecVideoRecorder if order.contender == "SB3" else stepreel.VecVideoRecorder
    envs = DummyVecEnv([partial(seen.__getitem__, place) for place in range(len(seen))])
    return recorder(envs, str(folder), record_video_trigger=lambda _: True, video_length=200)


def turn(order: Order, folder: Path, mark: Callable[[str], None]) -> Played:
    """Warm up with a video that nobody looks at, and play."""
    load = LOADS[order.load]
    several = order.envs > 1 or order.contender in SB3
    loop = play_several if several else play
    if order.warm_up:
        warm, _ = opened(msgspec.structs.replace(order, keep_pictures=False), load, folder / "warm")
        loop(warm, order, array("d", bytes(8 * min(WARM_UP_STEPS, order.steps))))
        warm.close()

    env, seen = opened(order, load, folder / "videos")
    took = array("d", bytes(8 * order.steps))
    mark("begin")
    began, stolen = time.perf_counter(), stolen_seconds()
    ended, longest_reset = loop(env, order, took)
    loop_seconds, stolen = time.perf_counter() - began, stolen_seconds() - stolen
    env.close()
    done_seconds = time.perf_counter() - began
    pictures = sum(one.pictures for one in seen)
    if order.keep_pictures:
        np.save(folder / "pictures.npy", np.array(seen[0].kept))
    return Played(
        steps=order.steps * order.envs,
        loop_seconds=loop_seconds,
        done_seconds=done_seconds,
        captured=pictures // order.envs if order.contender in SB3 else pictures,
        ended=ended[:: order.every] if order.every else [],
        stolen_seconds=stolen,
        step_seconds={
            **{name: float(np.percentile(took, at)) for name, at in PERCENTILES.items()},
            "longest": max(*took, longest_reset),
        },
    )


def stolen_seconds() -> float:
    """What the host of this virtual machine has taken from its cores so far; it counts in ticks of 10 ms."""
    steal = Path("/proc/stat").read_text().split(maxsplit=9)[8]
    return int(steal) / os.sysconf("SC_CLK_TCK")


def turn_of_runner(order: Order, folder: Path, mark: Callable[[str], None]) -> Played:
    """A whole run of the kernel with its runner, a worker for each environment; its start is in its processor time."""
    home = folder / ".stepreel"
    (folder / "runner.toml").write_text(configuration(order, folder, home))
    mark("begin")
    looker = Looker(order.envs, reads=order.contender == WATCHED)
    with subprocess.Popen(
        [sys.executable, "-m", "kernel", "runner.toml"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("viewer: http") and order.contender in (WATCHED, UNREAD):
                looker.open(line.split()[1])
            sys.stderr.write(line)
    looker.close()
    if process.returncode:
        raise SystemExit(process.returncode)
    began = min(record.event.time for record in read(home, EpisodeStarted)) + order.settle_seconds
    ends = sorted((record.event for record in read(home, EpisodeEnded)), key=lambda end: end.episode)
    counted = [end for end in ends if end.time > began]
    loop_seconds = max(end.time for end in ends) - began
    return Played(
        steps=sum(end.steps for end in counted),
        loop_seconds=loop_seconds,
        done_seconds=max([loop_seconds, *(record.time.timestamp() - began for record in read(home, VideoAvailable))]),
        captured=sum(end.steps + 1 for end in ends if end.recording),
        ended=[end.time for end in ends if end.recording],
        pictures_watched=looker.pictures,
    )


def configuration(order: Order, folder: Path, home: Path) -> str:
    """The runner's, for this load."""
    load = LOADS[order.load]
    kwargs = {**load.kwargs, **order.env_kwargs}
    limit = f"max_episode_steps = {kwargs.pop('max_episode_steps')}" if "max_episode_steps" in kwargs else ""
    lines = [f'home = "{home}"']
    for name, use in KERNEL_PLUGINS.items():
        lines += [f"[plugins.{name}]", f'use = "{use}"']
    if order.contender in RUNNERS[1:]:
        lines += ["[plugins.viewer]", 'use = "plugins.viewer:Viewer"', "port = 0"]
    lines += [
        "[plugins.runner]",
        *('use = "plugins.env_runner:EnvRunner"', f'env = "{load.env_id}"', limit, f"seed = {order.seed}"),
        *(f"workers = {order.envs}", f"steps = {order.steps * order.envs}", f'video_folder = "{folder / "videos"}"'),
        "[plugins.runner.env_kwargs]",
        *(f"{name} = {value}" for name, value in kwargs.items()),
        "[plugins.runner.policy]",
        *('use = "tests.benchmarks.loads:player"', f'load = "{order.load}"', f"seed = {order.seed}"),
        *("[plugins.runner.capture]", f"every = {order.every}"),
    ]
    return "\n".join(lines)


def main() -> None:
    """The order is JSON; the working directory is empty, and all is left in it."""
    order, mark = msgspec.json.decode(sys.argv[1], type=Order), Mark(int(sys.argv[2]))
    warnings.simplefilter("ignore")
    gym.logger.min_level = gym.logger.ERROR
    played = (turn_of_runner if order.contender in RUNNERS else turn)(order, Path.cwd(), mark)
    Path("turn.json").write_bytes(msgspec.json.encode(played))
    mark.close()


if __name__ == "__main__":
    main()
