"""Retention: which videos a policy displaces, and why; and which limits a home keeps to.

    displaced(entries, policy, now)   what would go, in the order in which it would: pure, for the pruner and whoever
                                      wants to know what it would do
    home/retention.json               the limits that the pruner keeps to, and what a user asked for (`LimitsInForce`)

The limits are looked at one after the other, each on what the ones before it left:

1. `keep`: a video that was kept for a reason, and has none left: it is no longer among the N best (or worst).
2. `max_videos`: a video that was recorded with this limit, and as many of its environment began after it.
3. `max_age`: a video that became available too long ago.
4. `max_videos_per_session`: more videos in a session than it may have. Pinned ones are not counted.
5. `max_bytes`: more bytes in all videos than there may be. Pinned ones are counted.

The first two are what the videos themselves ask for, whatever the policy says. Within 4 and 5, videos without a reason
go before those with one, where their session has any with a reason. Pinned videos never go.
"""

from __future__ import annotations

from collections import defaultdict
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from kernel.checked import NotAsWritten, read_checked, write_checked
from kernel.files import clear_up
from plugins.catalogue import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from plugins.events import Keep

DAY_SECONDS = 86_400.0


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What may stay; 0 stands for no limit."""

    max_videos_per_session: int = 50
    max_bytes: int = 0
    max_age_seconds: float = 0.0
    evict: Literal["oldest", "thin"] = "oldest"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The pruner's limits, as its options name them; 0 stands for no limit."""

    max_videos_per_session: int = 50
    max_bytes: int = 0
    max_age_days: float = 0.0
    evict: Literal["oldest", "thin"] = "oldest"

    @property
    def policy(self) -> Policy:
        """The limits, as the planner takes them."""
        return Policy(
            max_videos_per_session=self.max_videos_per_session,
            max_bytes=self.max_bytes,
            max_age_seconds=self.max_age_days * DAY_SECONDS,
            evict=self.evict,
        )


class AskedLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a user asked for while a kernel ran; None: as configured."""

    max_videos_per_session: int | None = None
    max_bytes: int | None = None
    max_age_days: float | None = None
    evict: Literal["oldest", "thin"] | None = None
    by: str = ""


class LimitsInForce(msgspec.Struct, frozen=True, kw_only=True):
    """What `retention.json` says."""

    limits: Limits = Limits()
    asked: AskedLimits = AskedLimits()


def limits_in_force(home: Path) -> LimitsInForce | None:
    """The limits that the home's last pruner kept to; None where there was none."""
    try:
        return read_checked(home / NAME, LimitsInForce)
    except (OSError, NotAsWritten):
        return None


def asked_limits(home: Path) -> AskedLimits:
    """What a user asked for, if anything."""
    in_force = limits_in_force(home)
    return AskedLimits() if in_force is None else in_force.asked


def write_limits(home: Path, limits: LimitsInForce) -> None:
    """Say which limits are in force; it lasts when this returns."""
    clear_up(home, NAME)
    write_checked(home / NAME, limits, lasting=True)


NAME = "retention.json"


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """A video that goes, by which limit, and why in a sentence."""

    entry: Entry
    policy: str
    reason: str


def displaced(entries: Iterable[Entry], policy: Policy, now: float, unfinished: Collection[str] = ()) -> list[Removal]:
    """What the policy removes of these videos, in order. Recordings that are `unfinished` are as if not there."""
    left = sorted((entry for entry in entries if entry.recording not in unfinished), key=_age)
    reasons = _reasons(left)
    removals: list[Removal] = []
    for limit in (_without_reason, _outnumbered, _too_old, _too_many, _too_large):
        beyond = list(limit(left, policy, now, reasons))
        gone = {removal.entry.recording for removal in beyond}
        left = [entry for entry in left if entry.recording not in gone]
        removals += beyond
    return removals


# Limits ----------------------------------------------------------------------------------------------------------


def _without_reason(left: Sequence[Entry], _policy: Policy, _now: float, reasons: Reasons) -> Iterator[Removal]:
    for entry in left:
        if entry.kept_for and entry.recording not in reasons.kept and not entry.pinned:
            kinds = " and ".join(f"the {getattr(entry.keep, kind)} {kind}" for kind in entry.kept_for)
            reward = "not finite" if entry.total_reward is None else f"{entry.total_reward:g}"
            reason = f"its return is {reward}, and others of its session are {kinds} by now"
            yield Removal(entry=entry, policy="keep", reason=reason)


def _outnumbered(left: Sequence[Entry], _policy: Policy, _now: float, _reasons: Reasons) -> Iterator[Removal]:
    environments: defaultdict[tuple[str, int], list[Entry]] = defaultdict(list)
    for entry in left:
        if not entry.pinned:
            environments[entry.session, entry.worker].append(entry)
    for videos in environments.values():
        # By beginning: of two that were encoded side by side, the older one may have been ready last.
        videos.sort(key=_beginning(videos))
        for newer, entry in zip(reversed(range(len(videos))), videos, strict=True):
            if 0 < entry.max_videos <= newer:
                reason = f"{newer} videos of its environment are newer, and {entry.max_videos} in all are to stay"
                yield Removal(entry=entry, policy="max_videos", reason=reason)


def _too_old(left: Sequence[Entry], policy: Policy, now: float, _reasons: Reasons) -> Iterator[Removal]:
    for entry in left:
        if 0 < policy.max_age_seconds < now - entry.available and not entry.pinned:
            days, limit = (now - entry.available) / DAY_SECONDS, policy.max_age_seconds / DAY_SECONDS
            yield Removal(
                entry=entry, policy="max_age", reason=f"it is {days:.1f} days old, and {limit:g} is the limit"
            )


def _too_many(left: Sequence[Entry], policy: Policy, _now: float, reasons: Reasons) -> Iterator[Removal]:
    limit = policy.max_videos_per_session
    for videos in _by_session(left).values() if limit > 0 else ():
        count = sum(not entry.pinned for entry in videos)
        reason = f"its session has {count} videos without a pin, and {limit} is the limit"
        for entry in islice(_going(videos, policy, reasons), max(0, count - limit)):
            yield Removal(entry=entry, policy="max_videos_per_session", reason=reason)


def _too_large(left: Sequence[Entry], policy: Policy, _now: float, reasons: Reasons) -> Iterator[Removal]:
    size_bytes = sum(entry.identity.size_bytes for entry in left)
    excess_bytes = size_bytes - policy.max_bytes if policy.max_bytes > 0 else 0
    reason = f"all videos together have {size_bytes} bytes, and {policy.max_bytes} is the limit"
    for entry in _going(left, policy, reasons) if excess_bytes > 0 else ():
        yield Removal(entry=entry, policy="max_bytes", reason=reason)
        excess_bytes -= entry.identity.size_bytes
        if excess_bytes <= 0:
            return


def _age(entry: Entry) -> tuple[float, str]:
    return entry.available, entry.recording


def _beginning(entries: Iterable[Entry]) -> Callable[[Entry], tuple[float, str, int]]:
    """A sort key: the order in which recordings began.

    A producer counts its own: its clock may be set back meanwhile.
    """
    first: dict[str, float] = {}
    for entry in entries:
        producer, _ = _producer_of(entry)
        first[producer] = min(entry.started, first.get(producer, entry.started))

    def key(entry: Entry) -> tuple[float, str, int]:
        producer, count = _producer_of(entry)
        return first[producer], producer, count

    return key


def _producer_of(entry: Entry) -> tuple[str, int]:
    producer, _, count = entry.recording.rpartition("-")
    return (producer, int(count)) if producer and count.isdecimal() else (entry.recording, 0)


def _by_session(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    sessions: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        sessions[entry.session].append(entry)
    return sessions


# Reasons ---------------------------------------------------------------------------------------------------------


class Reasons(NamedTuple):
    """Which recordings are kept for a reason, by their names."""

    kept: set[str]
    """Those with a reason left."""
    dispensable: set[str]
    """Those without one, in sessions where others have one."""


def _reasons(entries: Sequence[Entry]) -> Reasons:
    """The reasons that stand.

    A worker keeps its own best N; of these, the best N of those that can be compared keep the reason: videos of one
    session, environment, policy and folder. Equal returns: the older stays.
    """
    reasons = Reasons(set(), set())
    best = _places([entry for entry in entries if "best" in entry.kept_for], sign=-1)
    worst = _places([entry for entry in entries if "worst" in entry.kept_for], sign=1)
    for session in _by_session(entries).values():
        kept = {entry.recording for entry in session if _has_reason(entry, best, worst)}
        reasons.kept.update(kept)
        if kept:
            reasons.dispensable.update(entry.recording for entry in session if entry.recording not in kept)
    return reasons


def _has_reason(entry: Entry, best: dict[str, int], worst: dict[str, int]) -> bool:
    return any(
        (reason == "best" and best[entry.recording] < entry.keep.best)
        or (reason == "worst" and worst[entry.recording] < entry.keep.worst)
        or reason not in ("best", "worst")
        for reason in entry.kept_for
    )


def _places(entries: Sequence[Entry], sign: int) -> dict[str, int]:
    """Each video's place by return, from 0, among those that it is compared with. Parts of an episode share theirs."""
    compared: defaultdict[tuple[str, str, Keep, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        compared[entry.session, entry.env_id, entry.keep, entry.path.rpartition("/")[0]].append(entry)

    def place(entry: Entry) -> tuple[bool, float, float, str]:
        total_reward = entry.total_reward  # one that is not finite comes last
        return (total_reward is None, sign * (total_reward or 0.0), *_age(entry))

    places: dict[str, int] = {}
    for group in compared.values():
        episodes: dict[tuple[int, int], int] = {}
        for entry in sorted(group, key=place):
            places[entry.recording] = episodes.setdefault((entry.worker, entry.first_episode), len(episodes))
    return places


# Order -----------------------------------------------------------------------------------------------------------


def _going(entries: Sequence[Entry], policy: Policy, reasons: Reasons) -> Iterator[Entry]:
    """Those of the videos that may go, in the order in which they do."""
    left = list(entries)
    free = [entry for entry in entries if not entry.pinned]
    first = [entry for entry in free if entry.recording in reasons.dispensable]
    then = [entry for entry in free if entry.recording not in reasons.dispensable]
    for tier in (first, then):
        if policy.evict == "oldest":
            yield from sorted(tier, key=_age)
        else:
            yield from _thinned(left, tier)
        left = [entry for entry in left if entry.pinned or entry.recording not in reasons.dispensable]


def _thinned(left: Sequence[Entry], tier: Sequence[Entry]) -> Iterator[Entry]:
    """The tier's videos, each from the session that then has the most bytes in it."""
    timelines = _by_session(left)
    sizes: dict[str, int] = {}
    orders: dict[str, Iterator[Entry]] = {}
    for session, videos in _by_session(tier).items():
        sizes[session] = sum(entry.identity.size_bytes for entry in videos)
        orders[session] = _least_missed_first(timelines[session], videos)
    while sizes:
        largest = max(sizes, key=lambda session: (sizes[session], session))
        entry = next(orders[largest], None)
        if entry is None:
            del sizes[largest]
        else:
            sizes[largest] -= entry.identity.size_bytes
            yield entry


def _least_missed_first(session: Sequence[Entry], tier: Sequence[Entry]) -> Iterator[Entry]:
    """The tier's videos, each the one that then leaves the smallest gap in its session's time.

    The first and the last of the session go after all the others, the older one first.
    """
    timeline = sorted(session, key=lambda entry: (entry.started, entry.recording))
    free = {entry.recording for entry in tier}
    before = list(range(-1, len(timeline) - 1))
    after = list(range(1, len(timeline) + 1))

    def gap(place: int) -> tuple[float, int]:
        return timeline[after[place]].started - timeline[before[place]].started, place

    heap = [gap(place) for place in range(1, len(timeline) - 1) if timeline[place].recording in free]
    heapify(heap)
    while heap:
        width, place = heappop(heap)
        if (width, place) != gap(place):  # a neighbour went since
            heappush(heap, gap(place))
            continue
        after[before[place]], before[after[place]] = after[place], before[place]
        yield timeline[place]
    ends = {entry.recording: entry for entry in (timeline[0], timeline[-1])}
    yield from sorted((entry for entry in ends.values() if entry.recording in free), key=_age)
