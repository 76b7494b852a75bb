"""Dealing: which worker gets which episode."""

from __future__ import annotations

import heapq
import itertools
import math

AHEAD_SECONDS = 30.0
AHEAD_EPISODES = 1000
AHEAD_OF_ENDED = 8


class Hand:
    """What one worker has been dealt."""

    def __init__(self) -> None:
        self.waiting: list[int] = []
        """Dealt, not begun; in the order in which it will begin them."""
        self.playing: int | None = None
        self.asked_back = False
        """It was asked to give some back, and has not answered yet."""
        self._ended = 0
        self._seconds = 0.0

    def begin(self, episode: int) -> None:
        if episode in self.waiting:
            self.waiting.remove(episode)
        self.playing = episode

    def end(self, seconds: float) -> None:
        self.playing = None
        self._ended += 1
        self._seconds += seconds

    @property
    def idle(self) -> bool:
        return self.playing is None and not self.waiting

    @property
    def wanted(self) -> int:
        """How many it should have waiting, so that it never waits for the kernel, be that busy or suspended."""
        if not self._ended:
            return 1
        in_time = math.ceil(AHEAD_SECONDS * self._ended / max(self._seconds, 1e-3))
        # Not too many at first, when others are still starting: they would have to begin far behind.
        return min(in_time, AHEAD_OF_ENDED * self._ended, AHEAD_EPISODES)


class Dealer:
    """Deals the episodes of a session to its workers: in order, each once, and none that was begun a second time.

    A worker gets enough for about 30 s in advance, so that it never waits for the kernel; but no more than its share
    of half of what is left, so that all of them end at about the same time. One that has nothing to do is dealt what
    another has not begun yet.
    """

    def __init__(self, episodes: int, workers: int) -> None:
        self._fresh = itertools.count() if episodes == 0 else iter(range(episodes))
        self._fresh_left: float = episodes or math.inf
        self._returned: list[int] = []
        self._workers = workers
        self.hands: dict[int, Hand] = {}

    def sit_down(self, worker: int) -> None:
        """A worker begins, with an empty hand."""
        self.hands[worker] = Hand()

    def deal(self) -> dict[int, list[int]]:
        """Deal one to each worker that wants one, and round again. Returns who was dealt what."""
        dealt: dict[int, list[int]] = {}
        wanting = list(self.hands)
        while wanting and self.left:
            share = max(1, math.ceil(min(self.left / (2 * self._workers), AHEAD_EPISODES)))
            wanting = [worker for worker in wanting if self._wants(worker, share)]
            for worker in wanting[: int(min(self.left, len(wanting)))]:
                episode = self._next()
                self.hands[worker].waiting.append(episode)
                dealt.setdefault(worker, []).append(episode)
        return dealt

    def take_back(self, worker: int, episodes: list[int]) -> None:
        """A worker gave these back."""
        hand = self.hands[worker]
        hand.asked_back = False
        for episode in episodes:
            hand.waiting.remove(episode)
            heapq.heappush(self._returned, episode)

    def leave(self, worker: int) -> None:
        """A worker is gone: what it has not begun is dealt again, what it has begun is not."""
        hand = self.hands.pop(worker, None)
        for episode in hand.waiting if hand else []:
            heapq.heappush(self._returned, episode)

    def to_ask_back(self) -> tuple[int, int] | None:
        """A worker that should give episodes back, and how many: while another has none and none are left."""
        if self.left or not any(hand.idle for hand in self.hands.values()):
            return None
        worker = max(self.hands, key=lambda each: len(self.hands[each].waiting))
        hand = self.hands[worker]
        if hand.asked_back or len(hand.waiting) < (2 if hand.playing is None else 1):
            return None  # a worker's only episode stays with it, or two idle ones would pass it back and forth
        hand.asked_back = True
        return worker, (len(hand.waiting) + 1) // 2

    @property
    def left(self) -> float:
        """Episodes that are in nobody's hand; infinite without a limit."""
        return self._fresh_left + len(self._returned)

    @property
    def all_begun(self) -> bool:
        """No episode is left to begin, for anybody."""
        return not self.left and not any(hand.waiting for hand in self.hands.values())

    def _wants(self, worker: int, share: int) -> bool:
        hand = self.hands[worker]
        return len(hand.waiting) < min(hand.wanted, share)

    def _next(self) -> int:
        if self._returned:
            return heapq.heappop(self._returned)
        self._fresh_left -= 1
        return next(self._fresh)
