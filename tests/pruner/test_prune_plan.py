from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from plugins.catalogue import Entry, FileIdentity
from plugins.events import Keep
from plugins.retention import DAY_SECONDS, Policy, displaced

NOW = 1_790_000_000.0


def video(number: int, **fields: Any) -> Entry:
    """The recording `v<number>`, begun and available at second `number`, of 10 bytes."""
    values: dict[str, Any] = {
        "recording": f"v{number:02d}",
        "session": "s",
        "worker": 0,
        "first_episode": number,
        "last_episode": number,
        "env_id": "CartPole-v1",
        "path": f"videos/s/v{number:02d}.mp4",
        "identity": FileIdentity(size_bytes=fields.pop("size_bytes", 10), modified_ns=1, inode=number),
        "sha256": "",
        "frames": 3,
        "fps": 50.0,
        "width": 6,
        "height": 4,
        "codec": "h264",
        "seconds": 0.06,
        "thumbnail": None,
        "complete": True,
        "incomplete_because": "",
        "total_reward": float(number),
        "kept_for": [],
        "keep": Keep(),
        "started": float(number),
        "available": float(number),
    }
    return Entry(**{**values, **fields})


def best(number: int, total_reward: float | None, *, of: int = 2, **fields: Any) -> Entry:
    return video(number, total_reward=total_reward, kept_for=["best"], keep=Keep(best=of), **fields)


def gone(entries: list[Entry], unfinished: frozenset[str] = frozenset(), **policy: Any) -> list[int]:
    removals = displaced(entries, Policy(**policy), NOW, unfinished)
    return [int(removal.entry.recording[1:]) for removal in removals]


def videos(*numbers: int, **fields: Any) -> list[Entry]:
    return [video(number, **fields) for number in numbers]


def pinned(*numbers: int) -> list[Entry]:
    return videos(*numbers, pinned=True)


COUNT = {
    "none": ([], 1, []),
    "one below": (videos(1, 2), 3, []),
    "exactly as many": (videos(1, 2, 3), 3, []),
    "one too many": (videos(1, 2, 3, 4), 3, [1]),
    "many too many": (videos(1, 2, 3, 4, 5), 2, [1, 2, 3]),
    "no limit": (videos(*range(100)), 0, []),
    "the order of the list does not matter": (videos(3, 1, 5, 4, 2), 2, [1, 2, 3]),
    "by completion, not by beginning": (
        [video(1, available=9.0), video(2, available=5.0), video(3, available=7.0)],
        1,
        [2, 3],
    ),
    "equal completion: by name": ([video(2, available=1.0), video(1, available=1.0)], 1, [1]),
    "pinned stay": (pinned(1) + videos(2, 3, 4), 2, [2]),
    "pinned are not counted": (pinned(1, 2, 3) + videos(4, 5), 2, []),
    "all pinned": (pinned(1, 2, 3), 1, []),
    "each session for itself": (videos(1, 2, session="a") + videos(3, session="b"), 1, [1]),
}


@pytest.mark.parametrize(("entries", "limit", "expected"), COUNT.values(), ids=COUNT)
def test_the_oldest_beyond_the_count_go(entries: list[Entry], limit: int, expected: list[int]) -> None:
    assert gone(entries, max_videos_per_session=limit) == expected


THIN = {
    "first and last stay": (videos(0, 1, 2), 2, [1]),
    "the one that leaves the smallest gap": (videos(0, 10, 12, 20), 3, [12]),
    "evenly": (videos(0, 1, 2, 3, 4, 5, 6, 7, 8), 5, [1, 3, 5, 7]),
    "evenly, further": (videos(0, 1, 2, 3, 4, 5, 6, 7, 8), 3, [1, 3, 5, 7, 2, 6]),
    "a gap that grew counts as grown": (videos(0, 1, 2, 3, 20), 3, [1, 2]),
    "pinned ones hold their place": (videos(0) + pinned(1) + videos(2, 3, 4), 3, [2]),
    "the ends go when nothing else is left": (videos(0, 1, 2), 1, [1, 0]),
    "by the recording's beginning": ([video(0), video(5, available=1.0), video(6), video(20)], 3, [5]),
    "one": (videos(3), 1, []),
}


@pytest.mark.parametrize(("entries", "limit", "expected"), THIN.values(), ids=THIN)
def test_thinning_leaves_videos_all_over_the_session(entries: list[Entry], limit: int, expected: list[int]) -> None:
    assert gone(entries, max_videos_per_session=limit, evict="thin") == expected


def test_thinning_as_videos_arrive_stays_even() -> None:
    left: list[Entry] = []
    for number in range(400):
        left.append(video(number))
        for removal in displaced(left, Policy(max_videos_per_session=20, evict="thin"), NOW):
            left.remove(removal.entry)
    starts = sorted(entry.started for entry in left)
    gaps = [after - before for before, after in pairwise(starts)]
    assert (starts[0], starts[-1], len(starts)) == (0.0, 399.0, 20)
    assert max(gaps) <= 2.5 * 399 / 19


BYTES = {
    "no limit": (videos(1, 2, 3), 0, []),
    "exactly as many": (videos(1, 2, 3), 30, []),
    "one byte too many": (videos(1, 2, 3), 29, [1]),
    "as many as it takes": (videos(1, 2, 3), 11, [1, 2]),
    "over all sessions": (videos(1, session="a") + videos(2, session="b"), 10, [1]),
    "pinned stay, and count": (pinned(1, 2) + videos(3, 4), 25, [3, 4]),
    "a large one": ([video(1, size_bytes=100), video(2)], 50, [1]),
    "one that is larger than all may be": ([video(1, size_bytes=100)], 50, [1]),
}


@pytest.mark.parametrize(("entries", "limit", "expected"), BYTES.values(), ids=BYTES)
def test_the_oldest_beyond_the_bytes_go(entries: list[Entry], limit: int, expected: list[int]) -> None:
    assert gone(entries, max_bytes=limit, max_videos_per_session=0) == expected


def test_thinning_by_bytes_takes_from_the_session_that_has_most() -> None:
    entries = videos(0, 1, 2, 3, session="a") + videos(10, 11, 12, session="b")
    assert gone(entries, max_bytes=50, evict="thin") == [1, 11]


AGE = {
    "no limit": (videos(1, 2), 0.0, []),
    "on the day": ([video(1, available=NOW - DAY_SECONDS)], 1.0, []),
    "older": ([video(1, available=NOW - 2 * DAY_SECONDS), video(2, available=NOW)], 1.0, [1]),
    "pinned": ([video(1, available=NOW - 2 * DAY_SECONDS, pinned=True)], 1.0, []),
    "with a reason": ([best(1, 5.0, available=NOW - 2 * DAY_SECONDS)], 1.0, [1]),
    "the clock stepped back": ([video(1, available=NOW + 9 * DAY_SECONDS)], 1.0, []),
}


@pytest.mark.parametrize(("entries", "days", "expected"), AGE.values(), ids=AGE)
def test_the_old_go(entries: list[Entry], days: float, expected: list[int]) -> None:
    assert gone(entries, max_age_seconds=days * DAY_SECONDS) == expected


def own(number: int, *, of: int = 2, **fields: Any) -> Entry:
    """A video that was recorded with `max_videos`."""
    return video(number, max_videos=of, **fields)


OWN = {
    "as many as may stay": ([own(1), own(2)], []),
    "one too many": ([own(1), own(2), own(3)], [1]),
    "the newest stay": ([own(number, of=1) for number in (3, 1, 4, 2)], [1, 2, 3]),
    "no limit of its own": ([*videos(1, 2), own(3)], []),
    "those without a limit count": ([own(1), *videos(2, 3)], [1]),
    "by beginning, not by completion": ([own(1, of=1, available=9.0), own(2, of=1, available=5.0)], [1]),
    "equal beginning: by name": ([own(2, of=1, started=1.0), own(1, of=1, started=1.0)], [1]),
    "each worker for itself": ([own(1, of=1), own(2, of=1, worker=1)], []),
    "each session for itself": ([own(1, of=1), own(2, of=1, session="b")], []),
    "pinned are neither counted nor removed": ([own(1, pinned=True), own(2), own(3, pinned=True), own(4)], []),
    "what keep removes is not counted": ([own(1, of=1), best(2, 1.0, of=1, max_videos=1), best(0, 9.0, of=1)], [2]),
    "kept for a reason, too": ([best(number, 1.0, of=9, max_videos=1) for number in (1, 2)], [1]),
}


@pytest.mark.parametrize(("entries", "expected"), OWN.values(), ids=OWN)
def test_the_oldest_beyond_their_own_limit_go(entries: list[Entry], expected: list[int]) -> None:
    removals = displaced(entries, Policy(max_videos_per_session=0), NOW)
    assert sorted(int(removal.entry.recording[1:]) for removal in removals) == expected
    assert {removal.policy for removal in removals} <= {"max_videos", "keep"}


def test_a_clock_that_was_set_back_does_not_make_a_producers_newest_video_its_oldest() -> None:
    entries = [own(n, of=1, recording=f"s-p-{n:04d}", started=20_000.0 - n) for n in (9999, 9998, 10_000)]
    removals = displaced(entries, Policy(max_videos_per_session=0), NOW)
    assert [removal.entry.recording for removal in removals] == ["s-p-9998", "s-p-9999"]


def test_without_limits_nothing_goes_but_what_the_videos_themselves_ask_for() -> None:
    entries = [
        *videos(*range(200)),
        *[own(300 + number, session="script", of=3) for number in range(5)],
        *[best(400 + number, float(number), of=3, session="chosen") for number in range(5)],
    ]
    removals = displaced(entries, Policy(max_videos_per_session=0), NOW)
    assert [(removal.entry.recording, removal.policy, removal.reason) for removal in removals] == [
        ("v400", "keep", "its return is 0, and others of its session are the 3 best by now"),
        ("v401", "keep", "its return is 1, and others of its session are the 3 best by now"),
        ("v300", "max_videos", "4 videos of its environment are newer, and 3 in all are to stay"),
        ("v301", "max_videos", "3 videos of its environment are newer, and 3 in all are to stay"),
    ]


def worst(number: int, total_reward: float | None) -> Entry:
    return video(number, total_reward=total_reward, kept_for=["worst"], keep=Keep(worst=1))


REASONS = {
    "as many as are kept": ([best(1, 5.0), best(2, 6.0)], []),
    "three of which two are best": ([best(1, 5.0), best(2, 7.0), best(3, 6.0)], [1]),
    "of workers, too": ([best(1, 5.0, worker=0), best(2, 7.0, worker=1), best(3, 6.0, worker=2)], [1]),
    "equal returns: the older stays": ([best(1, 5.0), best(2, 5.0), best(3, 5.0)], [3]),
    "a return that is not finite comes last": ([best(1, None), best(2, -9.0), best(3, -8.0)], [1]),
    "each session for itself": ([best(1, 5.0), best(2, 6.0), best(3, 7.0, session="b")], []),
    "not with those of another environment": (
        [best(1, 5.0, of=1), best(2, 9.0, of=1, env_id="Pong", worker=1)],
        [],
    ),
    "not with those of another folder: training and evaluation, say": (
        [best(1, 5.0, of=1, path="/mine/train/x.mp4"), best(2, 9.0, of=1, path="/mine/eval/x.mp4", worker=1)],
        [],
    ),
    "not with those of another policy": ([best(1, 5.0, of=1), best(2, 9.0, of=3, worker=1)], []),
    "the parts of an episode are one": (
        [best(1, 5.0), best(2, 6.0, first_episode=2), best(3, 6.0, first_episode=2), best(4, 4.0)],
        [4],
    ),
    "the worst": ([worst(1, 5.0), worst(2, -6.0), worst(3, 0.0)], [1, 3]),
    "pinned stays, and is one of the best": ([best(1, 9.0, pinned=True), best(2, 1.0), best(3, 2.0)], [2]),
    "pinned stays, though it is none of the best": ([best(1, 0.0, pinned=True), best(2, 1.0), best(3, 2.0)], []),
    "another reason stands for ever": (
        [
            best(1, 5.0),
            best(2, 6.0),
            video(3, total_reward=1.0, kept_for=["best", "every"], keep=Keep(best=2, every=5)),
        ],
        [],
    ),
    "failures, too": ([video(number, kept_for=["failure"], keep=Keep(failures=True)) for number in range(5)], []),
    "no policy, no reasons": (videos(1, 2, 3), []),
    "both reasons lost": (
        [
            video(number, total_reward=reward, kept_for=["best", "worst"], keep=Keep(best=1, worst=1))
            for number, reward in ((1, 5.0), (2, 6.0), (3, 4.0))
        ],
        [1],
    ),
}


@pytest.mark.parametrize(("entries", "expected"), REASONS.values(), ids=REASONS)
def test_a_video_stays_while_one_reason_stands(entries: list[Entry], expected: list[int]) -> None:
    assert gone(entries) == expected


ORDER = {
    "without a reason first": ([best(1, 5.0), best(2, 6.0), *videos(3, 4)], 2, "oldest", [3, 4]),
    "then by age": ([best(1, 5.0), best(2, 6.0), *videos(3, 4)], 1, "oldest", [3, 4, 1]),
    "no reasons in the session": (videos(1, 2, 3, 4), 2, "oldest", [1, 2]),
    "thin, without a reason first, even at the end": (
        [best(1, 5.0), *videos(2, 3), best(4, 6.0), video(5)],
        2,
        "thin",
        [3, 2, 5],
    ),
    "thin, then those with one": ([best(1, 5.0), *videos(2), best(3, 6.0), video(5)], 1, "thin", [2, 5, 1]),
}  # fmt: skip - a case is a line


@pytest.mark.parametrize(("entries", "limit", "evict", "expected"), ORDER.values(), ids=ORDER)
def test_videos_without_a_reason_go_first(entries: list[Entry], limit: int, evict: str, expected: list[int]) -> None:
    assert sorted(gone(entries, max_videos_per_session=limit, evict=evict)) == sorted(expected)


def test_a_session_without_a_keep_policy_does_not_go_before_others() -> None:
    entries = [*videos(3, 4, session="plain"), best(1, 5.0, session="chosen"), video(2, session="chosen")]
    assert gone(entries, max_bytes=20) == [2, 1]


def test_the_unfinished_are_as_if_not_there() -> None:
    assert gone(videos(1, 2, 3), frozenset({"v01"}), max_videos_per_session=1) == [2]


def test_limits_are_looked_at_one_after_the_other() -> None:
    entries = [
        best(1, 1.0, of=1, available=NOW),
        best(2, 2.0, of=1, available=NOW),
        video(3, session="old", available=NOW - 9 * DAY_SECONDS),
        *videos(4, 5, session="many", available=NOW),
        video(6, session="large", available=NOW, size_bytes=1000),
    ]
    policy = Policy(max_videos_per_session=1, max_age_seconds=DAY_SECONDS, max_bytes=1010)
    removals = displaced(entries, policy, NOW)
    assert [(removal.entry.recording, removal.policy, removal.reason) for removal in removals] == [
        ("v01", "keep", "its return is 1, and others of its session are the 1 best by now"),
        ("v03", "max_age", "it is 9.0 days old, and 1 is the limit"),
        ("v04", "max_videos_per_session", "its session has 2 videos without a pin, and 1 is the limit"),
        ("v02", "max_bytes", "all videos together have 1020 bytes, and 1010 is the limit"),
    ]


@pytest.mark.parametrize("evict", ["oldest", "thin"])
@pytest.mark.parametrize("seed", range(20))
def test_any_catalogue_fits_its_limits_afterwards_and_the_plan_is_always_the_same(evict: str, seed: int) -> None:
    chance = random.Random(seed)
    entries = [
        video(
            number,
            session=chance.choice("abc"),
            pinned=chance.random() < 0.1,
            started=chance.uniform(0, 100),
            available=chance.uniform(0, 100),
            size_bytes=chance.randrange(1, 100),
            total_reward=chance.choice([None, 1.0, 2.0, 3.0]),
            kept_for=chance.choice([[], ["best"], ["worst"], ["best", "every"]]),
            keep=Keep(best=3, worst=3, every=4),
        )
        for number in range(60)
    ]
    policy = Policy(max_videos_per_session=chance.randrange(1, 12), max_bytes=600, evict=evict)  # type: ignore[arg-type]  # a parameter is a str
    removals = displaced(entries, policy, NOW)
    removed = [removal.entry.recording for removal in removals]
    left = [entry for entry in entries if entry.recording not in removed]
    free = [entry for entry in left if not entry.pinned]
    assert len(removed) == len(set(removed))
    assert not any(removal.entry.pinned for removal in removals)
    for session in "abc":
        assert sum(entry.session == session for entry in free) <= policy.max_videos_per_session
    assert not free or sum(entry.identity.size_bytes for entry in left) <= policy.max_bytes
    chance.shuffle(entries)
    assert displaced(entries, policy, NOW) == removals
    assert displaced(left, policy, NOW) == []
