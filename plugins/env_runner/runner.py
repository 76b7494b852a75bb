"""The environment runner: the plugin that steps an environment in worker processes, one session a run."""

from __future__ import annotations

import os
import secrets
import sys
import time
from pathlib import Path
from typing import ClassVar

import anyio
import anyio.to_thread
import msgspec

from kernel.plugin import Plugin, on
from plugins.env_runner.crew import Crew
from plugins.env_runner.messages import Begin, Examined, Spec
from plugins.env_runner.options import EnvRunnerOptions
from plugins.env_runner.probe import probe
from plugins.events import SessionAsked, SessionStarted, WorkerEnded
from plugins.recorder.sessions import open_session
from plugins.recorder.spool import new_session_id

DEFAULT_FPS = 30.0
GRACE_SECONDS = 20.0
"""How long a worker that was told to stop, or is done, may take to end before it is killed."""


class EnvRunner(Plugin[EnvRunnerOptions], publishes=[SessionStarted]):
    """Steps an environment until the episodes, the steps or the time are used up.

    The workers leave what they record in the spool, each as a producer of its own. The runner itself publishes the
    `SessionStarted` that comes before all of it, and says in the session's folder how it ended.
    """

    source: ClassVar[bool] = True
    required: ClassVar[bool] = True

    _crew: Crew | None = None

    async def check(self) -> None:
        """Let a process of its own make the environment and the policy, and try both."""
        await probe(self._spec())

    async def run(self) -> None:
        """Run one session. Raises `Refused` when a worker keeps dying."""
        examined = await probe(self._spec())
        workers = min(self.options.workers, self.options.episodes or self.options.workers)
        begin = self._begin(examined, new_session_id())
        crew = self._crew = Crew(begin, workers=workers, episodes=self.options.episodes, steps=self.options.steps)
        session = await anyio.to_thread.run_sync(open_session, self.home, begin.session, "runner")
        try:
            await self.publish(self._started(begin, examined, workers))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._pass_on_the_stop, crew)
                await crew.work()
                tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(session.end, crew.outcome)

    def pending(self) -> str:
        """Which workers have not ended yet."""
        return self._crew.pending if self._crew is not None else ""

    @on(SessionAsked)
    async def obey(self, asked: SessionAsked) -> None:
        """Pause when the episodes at play have ended, go on, or stop."""
        if self._crew is None or asked.session != self._crew.begin.session:
            return
        if asked.action in {"pause", "resume", "stop"}:
            self._crew.obey(asked.action)

    @on(WorkerEnded)
    async def count_steps(self, ended: WorkerEnded) -> None:
        """Learn what a worker that died had done, so that the budget of steps is kept to the step."""
        if self._crew is not None and ended.session == self._crew.begin.session and ended.outcome == "lost":
            self._crew.collected(ended.worker, ended.steps)

    async def _pass_on_the_stop(self, crew: Crew) -> None:
        await self.stopping.wait()
        crew.obey("stop")

    def _spec(self) -> Spec:
        options = self.options
        return Spec(
            table=f"plugins.{self.name}",
            env=options.env,
            env_kwargs=options.env_kwargs,
            imports=options.imports,
            wrappers=options.wrappers,
            max_episode_steps=options.max_episode_steps,
            policy=options.policy,
            pictures=options.capture.settings.mode != "off",
        )

    def _begin(self, examined: Examined, session: str) -> Begin:
        options = self.options
        return Begin(
            python_path=sys.path,
            spec=self._spec(),
            home=str(self.home),
            session=session,
            worker=0,
            seed=secrets.randbelow(2**31) if options.seed is None else options.seed,
            eval_every=options.eval_every,
            steps=None,
            deadline=time.monotonic() + options.seconds if options.seconds else None,
            grace_seconds=GRACE_SECONDS,
            videos=_video_folder(self.home, options.video_folder, session),
            name_prefix=options.name_prefix,
            fps=options.fps or examined.render_fps or DEFAULT_FPS,
            capture=options.capture.settings,
            keep=options.keep,
            telemetry=options.telemetry,
            values=options.values,
            memory_bytes=options.memory_bytes,
            spool_bytes=options.spool_bytes,
        )

    def _started(self, begin: Begin, examined: Examined, workers: int) -> SessionStarted:
        return SessionStarted(
            session=begin.session,
            kind="runner",
            env_id=examined.env_id,
            env_kwargs=self.options.env_kwargs,
            label=self.options.label,
            tags=self.options.tags,
            workers=workers,
            seed=str(begin.seed),
            observation_space=examined.observation_space,
            action_space=examined.action_space,
            render_fps=begin.fps,
            configuration=msgspec.to_builtins(self.options),
            versions=examined.versions,
        )


def _video_folder(home: Path, video_folder: str, session: str) -> str:
    """Where a session's videos go: posix, relative to the home, or absolute where that is outside it."""
    folder = Path(os.path.normpath(home / Path(video_folder).expanduser())) / session
    return (folder.relative_to(home) if folder.is_relative_to(home) else folder).as_posix()
