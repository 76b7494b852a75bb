"""The probe: a process of its own makes the environment and the policy, and tells whether they work."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anyio
import msgspec

from kernel.plugin import Refused
from plugins.env_runner.child import started
from plugins.env_runner.messages import Examine, Examined, Unusable

if TYPE_CHECKING:
    from plugins.env_runner.messages import FromWorker, Spec

PROBE_SECONDS = 120.0

_last: dict[bytes, Examined] = {}


async def probe(spec: Spec) -> Examined:
    """What the environment is like. Raises `Refused` with what is to be mended.

    The last answer is kept, as a run asks once before it creates anything and once when it begins.
    """
    key = msgspec.msgpack.encode(spec)
    if key not in _last:
        answer = await _ask(spec)
        _last.clear()
        _last[key] = answer
    return _last[key]


async def _ask(spec: Spec) -> Examined:
    answer: FromWorker | None = None
    with anyio.move_on_after(PROBE_SECONDS) as patience:
        async with started(Examine(python_path=sys.path, spec=spec), lambda _line: None) as child:
            answer = await child.listen()
    if isinstance(answer, Examined):
        return answer
    if isinstance(answer, Unusable):
        raise Refused(answer.reason)
    if patience.cancelled_caught:
        raise Refused(f'env: "{spec.env}" could not be made and drawn within {PROBE_SECONDS:g} s')
    words = "".join(f"\n  {line}" for line in child.last_lines)
    raise Refused(
        f'env: the process that tried "{spec.env}" ended with {child.end} before it could answer'
        f"{', after these lines:' if words else '.'}{words}"
    )
