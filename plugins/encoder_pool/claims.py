"""Claims: who may remove a video. The first intent in the log decides, and one behind a pin is void.

The pool is one of two who remove videos, where a new one takes a name; the pruner is the other, and reads the log by
the same rule. A video is pinned from the moment at which its pin is in the log, whoever has heard of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import anyio

from plugins.events import PruneIntended, VideoPinned, VideoPruned, VideoUnpinned

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from plugins.catalogue import Entry

PATIENCE_SECONDS = 5.0
"""How long another may take to remove what is his; he may not be able to."""

Answer = Literal["ours", "theirs", "pinned", "gone"]


class Claims:
    """What the log says of it, event by event, in its order."""

    def __init__(self) -> None:
        self.pinned: set[str] = set()
        """Since this pool is at work; the catalogue has the pins of before."""
        self._first: dict[str, str] = {}
        """The policy of the first intent that stands, for each video that is to go."""
        self._asked: dict[str, list[_Question]] = {}

    def follow(self, event: PruneIntended | VideoPinned | VideoUnpinned | VideoPruned) -> None:
        """Take one event in."""
        recording = event.recording
        if isinstance(event, PruneIntended):
            self._hear(event)
        elif isinstance(event, VideoPinned):
            self.pinned.add(recording)
            self._first.pop(recording, None)
            self._answer(recording, "pinned", late=True)
        elif isinstance(event, VideoUnpinned):
            self.pinned.discard(recording)
        else:
            self.pinned.discard(recording)
            self._first.pop(recording, None)
            self._answer(recording, "gone", late=True)

    async def claim(self, entry: Entry, recording: str, publish: Callable[[PruneIntended], Awaitable[None]]) -> bool:
        """Whether this video may be replaced by that of the recording; False where it is not there any more, or stays.

        The intent is in the log, and so was every pin that stands before it, when this returns.
        """
        question = _Question()
        self._asked.setdefault(entry.recording, []).append(question)
        try:
            await publish(
                PruneIntended(
                    recording=entry.recording,
                    session=entry.session,
                    path=entry.path,
                    size_bytes=entry.identity.size_bytes,
                    policy="replaced",
                    reason=f"the video of {recording} takes its name",
                )
            )
            await question.answered.wait()
            if question.answer == "theirs":  # and not answered anew meanwhile
                question.answered = anyio.Event()
                with anyio.move_on_after(PATIENCE_SECONDS):
                    await question.answered.wait()
            return question.answer in ("ours", "theirs")
        finally:
            self._asked[entry.recording].remove(question)
            if not self._asked[entry.recording]:
                del self._asked[entry.recording]

    def _hear(self, intent: PruneIntended) -> None:
        recording = intent.recording
        if recording in self.pinned:
            self._answer(recording, "pinned")
        else:
            ours = self._first.setdefault(recording, intent.policy) == "replaced"
            if intent.policy == "replaced":
                self._answer(recording, "ours" if ours else "theirs")

    def _answer(self, recording: str, answer: Answer, *, late: bool = False) -> None:
        """Answer the first question that has no answer; `late`, those of who waits for another to remove it."""
        for question in self._asked.get(recording, ()):
            if late and question.answer == "theirs":
                question.answer = answer
                question.answered.set()
            elif not late and question.answer is None:
                question.answer = answer
                question.answered.set()
                return


class _Question:
    """One who wants to know whether a video may be replaced."""

    def __init__(self) -> None:
        self.answer: Answer | None = None
        self.answered = anyio.Event()
