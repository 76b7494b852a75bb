from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.utils.save_video import capped_cubic_video_schedule

from plugins.events import CaptureSettings, Keep
from plugins.recorder.triggers import KeepPolicy, due, success_of


@pytest.mark.parametrize(
    ("capture", "captured", "why"),
    [
        (CaptureSettings(mode="every", every=5), [0, 5, 10], "every 5"),
        (CaptureSettings(), list(range(12)), "every 1"),
        (CaptureSettings(mode="every", every=0), [], "off"),
        (CaptureSettings(mode="every", every=-3), [], "off"),
        (CaptureSettings(mode="cubic"), [0, 1, 8], "cubic"),
        (CaptureSettings(mode="eval"), [], "no evaluation"),
        (CaptureSettings(mode="manual"), [], "on request only"),
        (CaptureSettings(mode="off"), [], "off"),
        (lambda episode: episode in (3, 4), [3, 4], "trigger"),
    ],
)
def test_episodes_are_due(capture: CaptureSettings, captured: list[int], why: str) -> None:
    verdicts = [due(capture, episode, evaluation=False) for episode in range(12)]
    assert [episode for episode, (yes, _) in enumerate(verdicts) if yes] == captured
    assert {reason for yes, reason in verdicts if yes} == ({why} if captured else set())
    assert {reason for yes, reason in verdicts if not yes} <= ({"not due"} if captured else {why})


def test_evaluation_episodes_are_due_by_their_tag() -> None:
    assert due(CaptureSettings(mode="eval"), 7, evaluation=True) == (True, "evaluation")


def test_cubic_is_gymnasiums_default_schedule() -> None:
    capture = CaptureSettings(mode="cubic")
    for episode in range(5001):
        assert due(capture, episode, evaluation=False)[0] == capped_cubic_video_schedule(episode)


@pytest.mark.parametrize(
    ("info", "success"),
    [
        ({"is_success": True}, True),
        ({"is_success": np.False_}, False),
        ({"success": 1.0}, True),
        ({"is_success": False, "success": True}, False),
        ({"is_success": None, "success": False}, False),
        ({"is_success": np.array([True, False])}, None),
        ({"score": 1}, None),
        (None, None),
    ],
)
def test_success_is_what_the_info_says(info: object, success: Any) -> None:
    assert success_of(info) is success


def kept_for(keep: Keep, *returns: float | None) -> list[list[str]]:
    policy = KeepPolicy(keep)
    return [
        policy.judge(episode=episode, total_reward=total, success=None, aborted=False).kept_for
        for episode, total in enumerate(returns)
    ]


def test_without_a_policy_everything_is_kept_for_no_reason() -> None:
    policy = KeepPolicy(Keep())
    assert not policy.decides
    verdict = policy.judge(episode=1, total_reward=None, success=None, aborted=True)
    assert (verdict.kept, verdict.kept_for) == (True, [])


@pytest.mark.parametrize(
    ("keep", "returns", "kept"),
    [
        (Keep(best=1), [1.0, 2.0, 0.0, 2.0, 3.0], "b b - - b"),
        (Keep(best=2), [1.0, 2.0, 1.5, 1.5, 9.0, 1.0], "b b b - b -"),
        (Keep(worst=1), [1.0, 2.0, 0.0, 0.0, -3.0], "w - w - w"),
        (Keep(worst=2), [1.0, 2.0, 3.0, 1.5], "w w - w"),
        (Keep(best=1, worst=1), [5.0, 6.0, 5.5, 4.0], "bw b - w"),
        (Keep(best=3), [None, 1.0, None], "- b -"),
        (Keep(every=2), [1.0, 1.0, 1.0, None, None], "e - e - e"),
        (Keep(best=1, every=3), [1.0, 0.0, 2.0, 0.0], "be - b e"),
    ],
)
def test_what_is_kept(keep: Keep, returns: list[float | None], kept: str) -> None:
    letters = ["".join(reason[0] for reason in reasons) or "-" for reasons in kept_for(keep, *returns)]
    assert letters == kept.split()


def test_the_best_of_all_are_always_among_the_kept() -> None:
    returns = np.random.default_rng(0).normal(size=300).tolist()
    kept = [total for total, reasons in zip(returns, kept_for(Keep(best=5), *returns), strict=True) if reasons]
    assert set(sorted(returns)[-5:]) <= set(kept)
    assert len(kept) < 50


@pytest.mark.parametrize(("success", "kept"), [(False, ["failure"]), (True, []), (None, [])])
def test_failures_are_kept_where_the_info_says_so(success: Any, kept: list[str]) -> None:
    verdict = KeepPolicy(Keep(failures=True)).judge(episode=1, total_reward=1.0, success=success, aborted=False)
    assert (verdict.kept, verdict.kept_for) == (bool(kept), kept)


def test_an_aborted_episode_is_kept_only_where_it_is_due_by_every() -> None:
    policy = KeepPolicy(Keep(best=1, worst=1, failures=True, every=10))
    discarded = policy.judge(episode=9, total_reward=1e9, success=False, aborted=True)
    assert (discarded.kept, discarded.why) == (False, "aborted, and not due by every")
    assert policy.judge(episode=10, total_reward=0.0, success=None, aborted=True).kept_for == ["every"]
    assert policy.judge(episode=11, total_reward=0.0, success=None, aborted=False).kept_for == ["best", "worst"], (
        "the aborted ones are no rivals"
    )


def test_the_reason_names_the_policy() -> None:
    policy = KeepPolicy(Keep(best=1, failures=True))
    policy.judge(episode=0, total_reward=1.0, success=None, aborted=False)
    verdict = policy.judge(episode=1, total_reward=0.0, success=None, aborted=False)
    assert verdict.why == "not among best 1, failures"
