from __future__ import annotations

import itertools

from plugins.env_runner.episodes import AHEAD_EPISODES, Dealer


def seated(dealer: Dealer, *workers: int) -> Dealer:
    for worker in workers:
        dealer.sit_down(worker)
    dealer.deal()
    return dealer


def play(dealer: Dealer, worker: int, seconds: float = 0.1) -> int:
    """Let a worker play the next episode in its hand."""
    hand = dealer.hands[worker]
    episode = hand.waiting[0]
    hand.begin(episode)
    dealer.deal()
    hand.end(seconds)
    dealer.deal()
    return episode


def in_hand(dealer: Dealer, worker: int) -> list[int]:
    return dealer.hands[worker].waiting


def test_each_episode_is_dealt_once_whoever_plays_it() -> None:
    dealer = seated(Dealer(40, workers=3), 0, 1, 2)
    played = []
    while not dealer.all_begun:
        asked = dealer.to_ask_back()
        if asked is not None:
            worker, count = asked
            dealer.take_back(worker, in_hand(dealer, worker)[-count:])
            dealer.deal()
        played += [play(dealer, worker) for worker in range(3) if in_hand(dealer, worker)]
    assert sorted(played) == list(range(40))


def test_workers_that_are_equally_fast_play_the_episodes_in_order() -> None:
    dealer = seated(Dealer(0, workers=2), 0, 1)
    played = [play(dealer, worker) for worker in itertools.islice(itertools.cycle((0, 1)), 400)]
    assert set(range(300)) < set(played)


def test_a_worker_that_began_its_first_episode_has_the_next_one_in_hand() -> None:
    dealer = seated(Dealer(0, workers=2), 0)
    dealer.hands[0].begin(0)
    dealer.deal()
    assert in_hand(dealer, 0) == [1]


def test_a_worker_has_half_a_minute_of_episodes_in_hand() -> None:
    dealer = seated(Dealer(0, workers=1), 0)
    for _ in range(20):
        play(dealer, 0, seconds=0.5)
    assert len(in_hand(dealer, 0)) == 60


def test_a_worker_has_a_thousand_episodes_in_hand_at_most() -> None:
    dealer = seated(Dealer(0, workers=1), 0)
    for _ in range(1000):
        play(dealer, 0, seconds=0.0001)
    assert len(in_hand(dealer, 0)) == AHEAD_EPISODES == 1000


def test_a_worker_whose_first_episodes_are_short_leaves_the_next_ones_to_those_who_are_starting() -> None:
    dealer = seated(Dealer(0, workers=2), 0)
    play(dealer, 0, seconds=0.0001)
    assert in_hand(dealer, 0) == [1, 2, 3, 4, 5, 6, 7, 8]
    dealer.sit_down(1)
    dealer.deal()
    assert in_hand(dealer, 1) == [9]


def test_long_episodes_are_dealt_one_ahead() -> None:
    dealer = seated(Dealer(0, workers=1), 0)
    play(dealer, 0, seconds=100)
    assert len(in_hand(dealer, 0)) == 1


def test_no_worker_takes_more_than_its_share_of_half_of_what_is_left() -> None:
    dealer = seated(Dealer(18, workers=2), 0, 1)
    play(dealer, 0, seconds=0.001)
    assert len(in_hand(dealer, 0)) == 4


def test_what_a_lost_worker_had_not_begun_is_dealt_first_and_what_it_had_begun_is_not() -> None:
    dealer = seated(Dealer(100, workers=2), 0, 1)
    play(dealer, 0, seconds=1.0)
    begun, *waiting = in_hand(dealer, 0)
    dealer.hands[0].begin(begun)
    dealer.leave(0)
    seated(dealer, 0)
    assert in_hand(dealer, 0) == [waiting[0]]
    played = set()
    while in_hand(dealer, 0):
        played.add(play(dealer, 0))
    assert played == set(range(100)) - {0, begun} - set(in_hand(dealer, 1))


def test_an_idle_worker_is_dealt_half_of_what_another_has_not_begun() -> None:
    dealer = seated(Dealer(100, workers=2), 0, 1)
    play(dealer, 0, seconds=0.001)
    waiting = list(in_hand(dealer, 0))
    assert len(waiting) == 8
    dealer.hands[0].begin(waiting.pop(0))
    while in_hand(dealer, 1):
        assert dealer.to_ask_back() is None
        play(dealer, 1)
    waiting = list(in_hand(dealer, 0))
    assert dealer.to_ask_back() == (0, (len(waiting) + 1) // 2)
    assert dealer.to_ask_back() is None  # it was asked already
    dealer.take_back(0, waiting[4:])
    assert dealer.deal() == {1: [waiting[4]]}


def test_the_only_episode_of_a_worker_that_has_begun_none_stays_with_it() -> None:
    dealer = seated(Dealer(1, workers=2), 0, 1)
    assert (in_hand(dealer, 0), in_hand(dealer, 1)) == ([0], [])
    assert dealer.to_ask_back() is None


def test_all_is_begun_when_nothing_is_left_and_nothing_waits_in_a_hand() -> None:
    dealer = seated(Dealer(2, workers=2), 0, 1)
    dealer.hands[0].begin(0)
    assert not dealer.all_begun
    dealer.hands[1].begin(1)
    assert dealer.all_begun
