"""The crew: a session's workers, each kept at work, and replaced when it dies."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

import anyio
import msgspec

from kernel.plugin import Refused
from plugins.env_runner.child import Child, started
from plugins.env_runner.echo import Echo, say
from plugins.env_runner.episodes import Dealer
from plugins.env_runner.messages import (
    Began,
    Begin,
    Done,
    Ended,
    Episodes,
    Failed,
    FromWorker,
    HandBack,
    HandedBack,
    NoMore,
    Pause,
    Ready,
    Resume,
    Stop,
    ToWorker,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DEATHS_IN_A_ROW = 5
BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0
COLLECTED_SECONDS = 10.0
"""How long the step budget waits to hear from the log what a killed worker had done."""


class Seat:
    """The place of one worker, through all processes that fill it."""

    def __init__(self, index: int, steps: int | None) -> None:
        self.index = index
        self.steps_left = steps
        """Of its share of the budget; None: no limit."""
        self.deaths = 0
        """In a row, without an episode between them that came to its end."""
        self.child: Child | None = None
        self.begin_life()

    def begin_life(self) -> None:
        self.ready = False
        self.over = False
        """It has said that it is done, or has failed."""
        self.failure = ""
        self.episode: int | None = None
        self.steps = 0
        """Of the process, as far as is known."""
        self.collected = anyio.Event()
        self.patience = anyio.CancelScope()


class Crew:
    """Runs the workers of one session until its episodes, steps or seconds are used up, or it is stopped."""

    def __init__(self, begin: Begin, *, workers: int, episodes: int, steps: int) -> None:
        self.begin = begin
        """What each worker is told, but for its index and its share of the steps."""
        self.outcome: Literal["finished", "stopped", "failed"] = "failed"
        """How the session has ended, once `work` has; `stopped` is by a signal or a user."""
        self._seats = [Seat(worker, _share(steps, workers, worker)) for worker in range(workers)]
        self._dealer = Dealer(episodes, workers)
        self._paused = False
        self._all_begun = False
        self._ending = anyio.Event()
        self._echo = Echo()

    async def work(self) -> None:
        """Return when every worker has ended. Raises `Refused` when one keeps dying."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._end_at_the_deadline)
                async with anyio.create_task_group() as seats:
                    for seat in self._seats:
                        seats.start_soon(self._keep, seat)
                tasks.cancel_scope.cancel()
            if self.outcome != "stopped":
                self.outcome = "finished"
        finally:
            self._echo.say_what_was_left_out()

    def obey(self, action: Literal["pause", "resume", "stop"]) -> None:
        """Do what a user asked for. A pause begins when the episodes at play have ended."""
        if action == "stop":
            self.outcome = "stopped"
            self._end()
        else:
            self._paused = action == "pause"
            self._say_to_all(Pause() if self._paused else Resume())

    @property
    def pending(self) -> str:
        """In a few words, who has not ended yet."""
        at_work = [f"worker {seat.index}" for seat, _ in self._filled()]
        return f"the step of {', '.join(at_work)}" if at_work else ""

    def collected(self, worker: int, steps: int) -> None:
        """A worker that died had done so many steps; all of them are in the log."""
        seat = self._seats[worker]
        seat.steps = steps
        seat.collected.set()

    # One seat ----------------------------------------------------------------------------------------------------

    async def _keep(self, seat: Seat) -> None:
        """Fill the seat, again and again, until there is nothing left to do for it."""
        while self._has_work_for(seat):
            end, last_lines = await self._live(seat)
            if not seat.failure and (seat.over or self._ending.is_set()):
                return
            await self._count_steps(seat)
            seat.deaths += 1
            what = self._what_happened(seat, end)
            if seat.deaths == DEATHS_IN_A_ROW:
                raise Refused(self._why_it_is_given_up(seat, what, last_lines))
            if not self._has_work_for(seat):
                say(what)
                return
            delay = min(BACKOFF_SECONDS * 2 ** (seat.deaths - 1), LONGEST_BACKOFF_SECONDS)
            say(f"{what}; another one goes on in {delay:g} s")
            with anyio.move_on_after(delay):
                await self._ending.wait()

    def _has_work_for(self, seat: Seat) -> bool:
        has_steps_left = seat.steps_left is None or seat.steps_left > 0
        return has_steps_left and not self._ending.is_set() and not self._dealer.all_begun

    async def _live(self, seat: Seat) -> tuple[str, list[str]]:
        """One process, from its start to its end. Returns how it ended, and what it wrote last."""
        seat.begin_life()
        begin = msgspec.structs.replace(self.begin, worker=seat.index, steps=seat.steps_left)
        async with started(begin, lambda line: self._echo.hear(f"worker {seat.index}", line)) as child:
            seat.child = child
            self._dealer.sit_down(seat.index)
            self._deal()
            if self._paused:
                child.say(Pause())
            if self._all_begun:
                child.say(NoMore())
            if self._ending.is_set():
                self._part_with(seat)
            try:
                with seat.patience:
                    while (message := await child.listen()) is not None:
                        self._hear(seat, message)
                        self._deal()
                if seat.patience.cancelled_caught:
                    say(f"worker {seat.index} did not end within {self.begin.grace_seconds:g} s and is killed")
            finally:
                seat.child = None
                self._dealer.leave(seat.index)
                self._deal()
        return child.end, list(child.last_lines)

    def _hear(self, seat: Seat, message: FromWorker) -> None:
        hand = self._dealer.hands[seat.index]
        match message:
            case Ready():
                seat.ready = True
            case Began(episode):
                seat.episode = episode
                hand.begin(episode)
            case Ended(_, seconds, steps):
                seat.episode, seat.steps, seat.deaths = None, steps, 0
                hand.end(seconds)
            case HandedBack(indices):
                self._dealer.take_back(seat.index, indices)
            case Failed(episode, error, steps):
                seat.episode, seat.steps, seat.failure = episode, steps, error
                self._expect_the_end(seat)
            case Done(steps):
                seat.steps = steps
                self._expect_the_end(seat)

    async def _count_steps(self, seat: Seat) -> None:
        """Take what the process did off the seat's share: of one that was killed, only the log knows that."""
        if seat.steps_left is None:
            return
        if seat.ready and not seat.over:
            with anyio.move_on_after(COLLECTED_SECONDS):
                await seat.collected.wait()
        seat.steps_left -= seat.steps

    def _expect_the_end(self, seat: Seat) -> None:
        seat.over = True
        seat.patience.deadline = anyio.current_time() + self.begin.grace_seconds

    def _what_happened(self, seat: Seat, end: str) -> str:
        where = "" if seat.episode is None else f" in episode {seat.episode}"
        how = f"failed{where}: {seat.failure}" if seat.failure else f"died of {end}{where}"
        return f"worker {seat.index} {how}"

    def _why_it_is_given_up(self, seat: Seat, what: str, last_lines: list[str]) -> str:
        words = "".join(f"\n  {line}" for line in last_lines)
        return (
            f"worker {seat.index} ended {DEATHS_IN_A_ROW} times in a row before an episode "
            f"did. The last time, {what}{', after these lines:' if words else '.'}{words}"
        )

    # All seats ---------------------------------------------------------------------------------------------------

    def _deal(self) -> None:
        """Give everybody enough to do, or say that there is nothing more."""
        dealt = self._dealer.deal()
        for seat, child in self._filled():
            if seat.index in dealt:
                child.say(Episodes(dealt[seat.index]))
        while (asked := self._dealer.to_ask_back()) is not None:
            worker, count = asked
            for seat, child in self._filled():
                if seat.index == worker:
                    child.say(HandBack(count))
        if self._dealer.all_begun and not self._all_begun:
            self._all_begun = True
            self._say_to_all(NoMore())

    async def _end_at_the_deadline(self) -> None:
        deadline = self.begin.deadline
        if deadline is not None:
            await anyio.sleep(max(0.0, deadline - time.monotonic()))
            self._end()

    def _end(self) -> None:
        self._ending.set()
        for seat, _ in self._filled():
            self._part_with(seat)

    def _part_with(self, seat: Seat) -> None:
        assert seat.child is not None
        seat.child.say(Stop())
        seat.patience.deadline = min(seat.patience.deadline, anyio.current_time() + self.begin.grace_seconds)

    def _say_to_all(self, message: ToWorker) -> None:
        for _, child in self._filled():
            child.say(message)

    def _filled(self) -> Iterator[tuple[Seat, Child]]:
        return ((seat, seat.child) for seat in self._seats if seat.child is not None)


def _share(steps: int, workers: int, worker: int) -> int | None:
    """A worker's share of a budget of steps; the shares add up to all of it."""
    return steps // workers + (worker < steps % workers) if steps else None
