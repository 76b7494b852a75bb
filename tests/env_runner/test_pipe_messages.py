from __future__ import annotations

import msgspec
import pytest

from plugins.env_runner.messages import (
    Began,
    Done,
    Ended,
    Episodes,
    Failed,
    FromWorker,
    HandBack,
    HandedBack,
    Lines,
    NoMore,
    Pause,
    Ready,
    Resume,
    Stop,
    ToWorker,
    encode,
)

TO_WORKER = [Episodes([3, 4, 2**60]), HandBack(2), NoMore(), Pause(), Resume(), Stop()]
FROM_WORKER = [
    Ready(),
    Began(0),
    Ended(0, 0.25, 17),
    HandedBack([4]),
    Failed(None, "ValueError: two\nlines and \N{SNOWMAN}", 0),
    Done(17),
]


def test_messages_come_out_as_they_went_in_however_the_pipe_cuts_them() -> None:
    for messages, kind in ((TO_WORKER, ToWorker), (FROM_WORKER, FromWorker)):
        stream = b"".join(encode(message) for message in messages)  # type: ignore[arg-type] # of one direction each
        for size in (1, 2, 7, 64, len(stream)):
            lines = Lines(kind)
            received = [message for at in range(0, len(stream), size) for message in lines.feed(stream[at : at + size])]
            assert received == messages


def test_a_torn_last_message_is_not_heard() -> None:
    lines = Lines(FromWorker)
    assert lines.feed(encode(Began(1)) + encode(Began(2))[:-1]) == [Began(1)]


def test_what_is_no_message_is_an_error() -> None:
    with pytest.raises(msgspec.DecodeError):
        Lines(FromWorker).feed(b"a line that an environment printed\n")
