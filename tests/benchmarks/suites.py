"""Which contenders play which loads, for which figures."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import msgspec

from tests.benchmarks.capture import rounds
from tests.benchmarks.loads import LOADS
from tests.benchmarks.samples import BARE
from tests.benchmarks.turn import SB3, Order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.samples import Sample

OURS, UPSTREAM = "stepreel", "RecordVideo"
REAL = ("cartpole", "lunarlander", "breakout", "textured")
OTHERS = ("imageio", "PyAV", "thread", *(SB3 if find_spec("stable_baselines3") else ()))


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
        """The loads to play of those that there are."""
        return [name for name in names if not self.loads or name in self.loads]

    def contenders_of(self, *names: str) -> list[str]:
        """The contenders to run of those that there are."""
        return [name for name in names if not self.contenders or name in self.contenders]

    def steps(self, load: str) -> int:
        """So many take bare about `seconds`."""
        return max(60, round(LOADS[load].steps_per_second * self.seconds))


def capture(scope: Scope) -> Iterator[Sample]:
    """Every episode captured: what it costs the loop, the machine, and how soon the videos stand."""
    for load in scope.loads_of(*REAL):
        orders = [
            (load, Order(load=load, contender=contender, steps=scope.steps(load)))
            for contender in scope.contenders_of(BARE, OURS, UPSTREAM, *OTHERS)
        ]
        yield from rounds("capture", orders, scope.rounds)


def sparse(scope: Scope) -> Iterator[Sample]:
    """Every 20th episode captured."""
    for load in scope.loads_of(*REAL):
        orders = [
            (load, Order(load=load, contender=contender, every=20, steps=4 * scope.steps(load)))
            for contender in scope.contenders_of(BARE, OURS, UPSTREAM)
        ]
        yield from rounds("sparse", orders, scope.rounds)
