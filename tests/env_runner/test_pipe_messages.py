from __future__ import annotations

import math
import tomllib

import msgspec
import pytest

from plugins.env_runner.messages import (
    Began,
    Done,
    Ended,
    Episodes,
    Examine,
    Failed,
    FromWorker,
    HandBack,
    HandedBack,
    Inbox,
    NoMore,
    Pause,
    Ready,
    Resume,
    Spec,
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
    Failed(None, "ValueError: two\ninbox and \N{SNOWMAN}", 0),
    Done(17),
]


def test_messages_come_out_as_they_went_in_however_the_pipe_cuts_them() -> None:
    for messages, kind in ((TO_WORKER, ToWorker), (FROM_WORKER, FromWorker)):
        stream = b"".join(encode(message) for message in messages)  # type: ignore[arg-type] # of one direction each
        for size in (1, 2, 7, 64, len(stream)):
            inbox = Inbox(kind)
            received = [message for at in range(0, len(stream), size) for message in inbox.feed(stream[at : at + size])]
            assert received == messages


def test_a_torn_last_message_is_not_heard() -> None:
    inbox = Inbox(FromWorker)
    assert inbox.feed(encode(Began(1)) + encode(Began(2))[:-1]) == [Began(1)]


def test_what_is_no_message_is_an_error() -> None:
    with pytest.raises(msgspec.DecodeError):
        Inbox(FromWorker).feed(b"\x04\x00\x00\x00what")


def test_arguments_arrive_as_the_configuration_gave_them() -> None:
    given = tomllib.loads("limit = inf\nbegin = 2026-11-22T06:27:18Z\ndeep = {list = [1, 2.5, true]}")
    spec = Spec(
        table="plugins.runner",
        env="Count-v0",
        env_kwargs=given,
        imports=[],
        wrappers=["a:B", {"use": "c:D", "limit": math.inf}],
        max_episode_steps=None,
        policy={"use": "random"},
        pictures=True,
    )
    (received,) = Inbox(ToWorker).feed(encode(Examine(python_path=["/a"], spec=spec)))
    assert received.spec == spec
