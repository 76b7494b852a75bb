"""Which contenders play which loads, for which figures."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import msgspec

from tests.benchmarks.capture import rounds
from tests.benchmarks.loads import LOADS
from tests.benchmarks.samples import BARE, BUSY
from tests.benchmarks.turn import RUNNER, RUNNERS, SB3, Order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.samples import Sample

OURS, UPSTREAM = "stepreel", "RecordVideo"
REAL = ("cartpole", "lunarlander", "breakout", "textured")
INLINE = ("imageio", "PyAV", "thread")
SB3_IF_THERE = SB3 if find_spec("stable_baselines3") else ()
LONG = (1_000, 50_000)
"""Steps of one episode."""
VIEWER_SECONDS = 2.0
"""So long does the viewer take until it is looked at."""


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """How much is to be run."""

    rounds: int
    seconds: float
    """About so long does bare's loop take in a turn."""
    quick: bool = False
    """Small enough to see that everything runs; the figures mean nothing."""
    loads: Sequence[str] = ()
    """Of those that a benchmark has, these; all where none is named."""
    contenders: Sequence[str] = ()

    def loads_of(self, *names: str) -> list[str]:
        """The loads to play of those that there are; when it is to be quick, the first."""
        found = [name for name in names if not self.loads or name in self.loads]
        return found[:1] if self.quick else found

    def contenders_of(self, *names: str, quick: Sequence[str]) -> list[str]:
        """The contenders to run of those that there are; these when it is to be quick."""
        wanted = self.contenders or (quick if self.quick else names)
        return [name for name in names if name in wanted]

    def play(
        self, benchmark: str, orders: Sequence[tuple[str, Order]], count: int, once: Sequence[str] = ()
    ) -> Iterator[Sample]:
        """Let the orders take turns for so many rounds; each is given with the name of its load.

        The contenders `once` are in the first round only, unless somebody asked for them.
        """
        if self.quick:
            orders = [(load, msgspec.structs.replace(order, warm_up=False)) for load, order in orders]
        yield from rounds(benchmark, orders, count, [name for name in once if name not in self.contenders])

    def steps(self, load: str) -> int:
        """So many take bare about `seconds`."""
        return max(60, round(LOADS[load].steps_per_second * LOADS[load].share * self.seconds))

    def sparse_steps(self, load: str) -> int:
        """The same where every 20th episode is captured."""
        return max(60, round(LOADS[load].sparse_steps_per_second * LOADS[load].share * self.seconds))


def capture(scope: Scope) -> Iterator[Sample]:
    """Every episode captured: what it costs the loop, the machine, and how soon the videos stand."""
    for load in scope.loads_of(*REAL):
        orders = [
            (load, Order(load=load, contender=contender, steps=scope.steps(load)))
            for contender in scope.contenders_of(
                BARE, BUSY, OURS, RUNNER, UPSTREAM, *INLINE, *SB3_IF_THERE, quick=(BARE, BUSY, OURS, UPSTREAM)
            )
        ]
        yield from scope.play("capture", orders, scope.rounds, once=(RUNNER, *INLINE, *SB3_IF_THERE))


def sparse(scope: Scope) -> Iterator[Sample]:
    """Every 20th episode captured."""
    for load in scope.loads_of(*REAL):
        orders = [
            (load, Order(load=load, contender=contender, every=20, steps=scope.sparse_steps(load)))
            for contender in scope.contenders_of(BARE, OURS, UPSTREAM, quick=(OURS,))
        ]
        yield from scope.play("sparse", orders, scope.rounds)


def unrendered(scope: Scope) -> Iterator[Sample]:
    """Nothing rendered, and every step told: what telemetry alone costs a loop that does nothing else."""
    if scope.loads_of("unrendered"):
        steps = scope.steps("unrendered")
        orders = [
            Order(load="unrendered", contender=BARE, steps=steps, every=0),
            Order(load="unrendered", contender=OURS, steps=steps, every=0, options={"telemetry": "all"}),
        ]
        yield from scope.play("unrendered", [("unrendered", order) for order in orders], scope.rounds)


def several(scope: Scope) -> Iterator[Sample]:
    """Two and eight environments (one is in `capture`): in one process, but for the runner's."""
    for load in scope.loads_of("cartpole"):
        for envs in (2,) if scope.quick else (2, 8):
            orders = [
                (
                    f"{load}, {envs} environments",
                    Order(load=load, contender=contender, envs=envs, steps=max(60, scope.steps(load) // (2 * envs))),
                )
                for contender in scope.contenders_of(BARE, OURS, RUNNER, UPSTREAM, *SB3_IF_THERE, quick=(RUNNER,))
            ]
            yield from scope.play("several", orders, scope.rounds, once=(RUNNER, UPSTREAM, *SB3_IF_THERE))


def long(scope: Scope) -> Iterator[Sample]:
    """One episode that goes on: what is held in memory meanwhile, and whether all is there in the end."""
    lengths = (300,) if scope.quick else LONG
    for load in scope.loads_of("bars", "balanced"):
        contenders = (OURS, UPSTREAM, *INLINE) if load == "bars" else (OURS,)  # 50,000 pictures of 720 kB in memory?
        endless = {"length": 2**16} if load == "bars" else {}
        for contender in scope.contenders_of(*contenders, quick=(OURS,)):
            for length in lengths:
                # moviepy looks through all of an episode's frames for each: 50,000 of them would take it minutes.
                steps = min(length, 10_000) if contender == UPSTREAM else length
                order = Order(load=load, contender=contender, steps=steps, env_kwargs=endless)
                yield from scope.play("long", [(f"{load}, {steps:,} steps", order)], 1)


def quality(scope: Scope) -> Iterator[Sample]:
    """How near the videos come to what was captured, and how large they are. The same in each round."""
    for load in scope.loads_of(*REAL):
        orders = [
            (load, Order(load=load, contender=contender, steps=60 if scope.quick else 400, keep_pictures=True))
            for contender in scope.contenders_of(OURS, UPSTREAM, *INLINE, quick=(OURS, UPSTREAM))
        ]
        yield from scope.play("quality", orders, 1)


def frames(scope: Scope) -> Iterator[Sample]:
    """Whether frame k is frame k: each picture tells its own index, and each frame is decoded."""
    everybody = (OURS, RUNNER, UPSTREAM, *INLINE, *SB3_IF_THERE)
    for load in scope.loads_of("bars"):
        orders = [
            (
                load,
                Order(
                    load=load,
                    contender=contender,
                    steps=130 if scope.quick else 2300,
                    # In one video after the other, over episodes, no frame would tell which one it is.
                    env_kwargs={"length": 2**16 if contender in SB3 else 50 if scope.quick else 700},
                ),
            )
            for contender in scope.contenders_of(*everybody, quick=everybody)
        ]
        yield from scope.play("frames", orders, 1)


def available(scope: Scope) -> Iterator[Sample]:
    """An episode of 500 frames of 600×400 ends, and nothing else is to be done: how long until its video stands?"""
    for load in scope.loads_of("balanced"):
        steps = 60 if scope.quick else 499  # and the picture of the reset
        orders = [
            (load, Order(load=load, contender=contender, steps=steps, env_kwargs={"max_episode_steps": steps}))
            for contender in scope.contenders_of(OURS, RUNNER, UPSTREAM, *INLINE, quick=(OURS,))
        ]
        yield from scope.play("available", orders, scope.rounds)


def viewer(scope: Scope) -> Iterator[Sample]:
    """Our runner with four workers: without the viewer, with nobody who looks, with four tiles watched, and so on."""
    steps = 300 if scope.quick else scope.sparse_steps("cartpole") // 2
    for load in scope.loads_of("cartpole"):
        orders = [
            (
                load,
                Order(
                    load=load,
                    contender=contender,
                    envs=4,
                    every=20,
                    steps=steps,
                    settle_seconds=0.0 if scope.quick else VIEWER_SECONDS,
                ),
            )
            for contender in scope.contenders_of(*RUNNERS, quick=RUNNERS[:2])
            if contender == RUNNER or find_spec("plugins.viewer")
        ]
        yield from scope.play("viewer", orders, scope.rounds)
