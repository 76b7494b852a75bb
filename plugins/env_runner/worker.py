"""A worker: the process that steps one environment with a policy, and records it.

`python -m plugins.env_runner.worker`, which only the runner calls. Its stepping thread waits for nobody: what comes
next it was told in advance, and its `Line` to the runner is a thread of its own.
"""

from __future__ import annotations

import faulthandler
import sys
import time
import traceback
from pathlib import Path

from plugins.env_runner.environment import Environment, examine, make_environment, prepare_to_draw_without_a_screen
from plugins.env_runner.line import Line
from plugins.env_runner.loading import Unusable, said
from plugins.env_runner.messages import Began, Begin, Done, Ended, Examine, Failed, Ready
from plugins.env_runner.messages import Unusable as UnusableMessage
from plugins.env_runner.policy import Policy, make_policy
from plugins.events import WorkerFailed
from plugins.recorder.recorder import Recorder
from plugins.recorder.spool import Producer

TRACEBACK_CHARACTERS = 8192


def main() -> int:
    """Do what the first message asks for. Returns the exit code: 1 where the environment or the policy raised."""
    faulthandler.enable(all_threads=False)
    line = Line.on_standard_streams()
    first = line.first()
    if first is None:
        return 0
    sys.path[:] = first.python_path
    prepare_to_draw_without_a_screen()
    try:
        return _examine(line, first) if isinstance(first, Examine) else _work(line, first)
    finally:
        line.close()


def _examine(line: Line, asked: Examine) -> int:
    try:
        line.say(examine(asked.spec))
    except Unusable as unusable:
        line.say(UnusableMessage(str(unusable)))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a stranger's code raises, the user gets a sentence
        line.say(UnusableMessage(f'env: trying "{asked.spec.env}" raised {said(error)}'))
    return 0


def _work(line: Line, begin: Begin) -> int:
    producer = Producer(Path(begin.home), begin.session, memory_bytes=begin.memory_bytes, spool_bytes=begin.spool_bytes)
    try:
        env = make_environment(begin.spec)
        policy = make_policy(begin.spec.policy, env)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a stranger's code raises is reported
        producer.say(_failure(begin, None, error))
        producer.close()
        line.say(Failed(None, said(error), 0))
        return 1
    work = _Work(line, begin, producer, env, policy)
    code = work.do()
    env.close()
    return code


class _Work:
    """Episodes of one environment, one after the other."""

    def __init__(self, line: Line, begin: Begin, producer: Producer, env: Environment, policy: Policy) -> None:
        self.line = line
        self.begin = begin
        self.producer = producer
        self.env = env
        self.policy = policy
        self.steps = 0
        self.steps_limit = sys.maxsize if begin.steps is None else begin.steps
        self.draws = env.render_mode == "rgb_array"
        self.recorder = Recorder(
            producer,
            worker=begin.worker,
            env_id=env.spec.id if env.spec is not None else begin.spec.env,
            fps=begin.fps,
            video_path=lambda episode: f"{begin.videos}/{begin.name_prefix}-episode-{episode}.mp4",
            capture=begin.capture,
            keep=begin.keep,
            telemetry=begin.telemetry,
            values=begin.values,
        )

    def do(self) -> int:
        """Step until it is time to end, and leave everything sealed."""
        self.recorder.start()
        self.line.say(Ready())
        episode: int | None = None
        try:
            while self.steps < self.steps_limit and (episode := self.line.next_episode()) is not None:
                self._play(episode)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a stranger's code raises is reported
            self.producer.say(_failure(self.begin, episode, error))
            self.recorder.close(outcome="failed")
            self.producer.close()
            self.line.say(Failed(episode, said(error), self.steps))
            return 1
        self.recorder.close()
        self.producer.close()
        self.line.say(Done(self.steps))
        return 0

    def _play(self, episode: int) -> None:
        """One episode, or as much of it as there is time for."""
        self.line.say(Began(episode))
        began = time.perf_counter()
        seed = self.begin.seed + episode
        evaluation = self.begin.eval_every > 0 and episode % self.begin.eval_every == 0
        self.policy.begin_episode(seed)
        observation, info = self.env.reset(seed=seed)
        self.recorder.reset(observation, info, seed=seed, episode=episode, evaluation=evaluation)
        if self.draws and self.recorder.recording:
            self.recorder.capture_frame(self.env.render())
        if self._step_to_the_end(observation):
            self.line.say(Ended(episode, time.perf_counter() - began, self.steps))

    def _step_to_the_end(self, observation: object) -> bool:
        """Step until the episode is over; False where it was cut short."""
        line, recorder, draws, clock = self.line, self.recorder, self.draws, time.perf_counter
        act, step, render, record = self.policy.act, self.env.step, self.env.render, self.recorder.step
        while self.steps < self.steps_limit and not line.stop:
            action = act(observation)
            before = clock()
            observation, reward, terminated, truncated, info = step(action)
            stepped = clock()
            picture = render() if draws and recorder.wanted else None
            drawn = clock()
            record(
                action, observation, reward, terminated, truncated, info, picture,
                stepped - before, "agent_0", drawn - stepped,
            )  # fmt: skip
            self.steps += 1
            if terminated or truncated:
                return True
        return False


def _failure(begin: Begin, episode: int | None, error: BaseException) -> WorkerFailed:
    return WorkerFailed(
        session=begin.session,
        worker=begin.worker,
        episode=episode,
        error=said(error),
        traceback="".join(traceback.format_exception(error))[-TRACEBACK_CHARACTERS:],
    )


if __name__ == "__main__":
    sys.exit(main())
