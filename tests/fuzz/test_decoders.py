"""The decoders, with the seeds of fuzzing and with what hypothesis makes of them; `python -m tests.fuzz` does more."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel.checked import pack, unpack
from kernel.event import Damaged, Event, Record, decode_batch, decode_record, decode_records, encode_lines
from kernel.files import is_name
from kernel.terminal import shown
from plugins.encoder_pool import EncoderPoolOptions
from plugins.env_runner.messages import Began, FromWorker, Inbox, encode
from plugins.recorder.spool import pack_batch, read_batches
from tests.fuzz.decoders import DECODERS
from tests.fuzz.seeds import seeds

ROOT = Path(__file__).parents[2]
SOME = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


class FuzzNote(Event):
    """Something with a place for anything."""

    text: str
    value: Any = None
    number: float = 0.0


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about what a disk holds."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize(("decoder", "seed"), [(name, seed) for name in DECODERS for seed in range(len(seeds(name)))])
def test_each_seed_and_each_input_that_once_broke_a_decoder_is_read_or_refused(decoder: str, seed: int) -> None:
    DECODERS[decoder](seeds(decoder)[seed])


@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("decoder", DECODERS)
def test_any_bytes_and_any_seed_with_bytes_changed_are_read_or_refused(decoder: str) -> None:
    known = seeds(decoder)

    @SOME
    @given(data=st.data())
    def any_bytes(data: st.DataObject) -> None:
        content = bytearray(data.draw(st.binary(max_size=200) | st.sampled_from(known)))
        for _ in range(data.draw(st.integers(0, 4)) if content else 0):
            place = data.draw(st.integers(0, len(content)))
            content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        DECODERS[decoder](bytes(content))

    any_bytes()


@SOME
@given(text=st.text(), value=plain, number=st.floats(), nth=st.integers(1, 2**40))
def test_what_a_producer_says_is_what_readers_of_the_log_get(text: str, value: Any, number: float, nth: int) -> None:
    said = {"type": "FuzzNote", "text": text, "value": value, "number": number}
    try:
        batch = pack_batch(nth, [msgspec.msgpack.encode(said)])
    except UnicodeEncodeError:  # half a character is no text
        return
    (event,) = decode_batch(batch[16:])
    (live,) = decode_records(encode_lines([Record(1, _NOW, "a", nth, event)]))
    assert encode_lines([live]) == encode_lines([Record(1, _NOW, "a", nth, event)])
    assert type(live.event) is type(event)
    assert encode_lines([live]).count(b"\n") == 1


@pytest.mark.parametrize("depth", [10, 200, 900, 5000])
def test_an_event_is_read_or_refused_however_deep_it_is_nested(depth: int) -> None:
    line = (
        b'{"seq":1,"time":"2026-11-22T06:27:18Z","source":"a","nth":1,"event":{"type":"FuzzNote","text":"","value":'
        + b"[" * depth
        + b"]" * depth
        + b"}}"
    )
    record = decode_record(line)
    assert (record.seq, record.source) == (1, "a")
    packed = msgspec.msgpack.encode({"type": "FuzzNote", "text": ""})[1:]
    batch = b"\x91\x83" + packed + b"\xa5value" + b"\x91" * depth + b"\xc0"
    if depth >= 5000:
        with pytest.raises(Damaged, match="nested too deeply"):
            decode_batch(batch)


@pytest.mark.parametrize("end", [b"", b"1,]"], ids=["whole", "broken"])
def test_what_a_deep_line_is_does_not_depend_on_how_deep_its_reader_is(end: bytes) -> None:
    head = b'{"seq":1,"time":"2026-11-22T06:27:18Z","source":"a","nth":1,"event":{"type":"X","value":'
    line = head + b"[" * 600 + b"]" * 599 + end + b"]}}"

    def read(calls: int) -> str:
        if calls:
            return read(calls - 1)
        try:
            return repr(decode_record(line))
        except Damaged as damage:
            return f"damaged: {damage}"

    found = {read(calls) for calls in range(0, 600, 50)}
    assert len(found) == 1
    assert found.pop().startswith("damaged") == bool(end)


@SOME
@given(content=st.dictionaries(st.text(max_size=8), st.integers(0, 2**53) | st.text(max_size=20), max_size=5))
def test_a_checked_file_says_what_was_written(content: dict[str, Any]) -> None:
    for pretty in (True, False):
        packed = pack(content, pretty=pretty)
        assert unpack(packed, dict[str, Any]) == content
        assert json.loads(packed)["crc32"]


@SOME
@given(text=st.text())
def test_what_is_shown_is_one_printable_line_and_a_name_is_one_place(text: str) -> None:
    assert shown(text).isprintable()
    if is_name(text):
        assert Path("folder", text).parent == Path("folder")
        assert Path("folder", text).name == text


@SOME
@given(pieces=st.lists(st.binary(max_size=30), max_size=5))
def test_what_comes_through_a_workers_pipe_is_a_message_or_a_decode_error(pieces: list[bytes]) -> None:
    inbox = Inbox(FromWorker)
    assert inbox.feed(encode(Began(3))) == [Began(3)]
    try:
        for piece in pieces:
            inbox.feed(piece)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass


def test_a_batch_that_claims_to_be_gigantic_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "events-000001.bin"
    with path.open("wb") as file:
        file.write(b"\xff\xff\xff\xff\0\0\0\0")
        file.truncate(1 << 40)  # a hole: it takes no space
    found = read_batches(path)
    assert found.whole == []
    assert found.rest == "damaged"


def test_pickle_is_nowhere_and_no_code_is_made_of_text() -> None:
    """What a home, a spool or a worker's pipe holds is data: nothing in them can be made to run."""
    runs_data = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
    for file in [*ROOT.glob("kernel/**/*.py"), *ROOT.glob("plugins/**/*.py"), ROOT / "stepreel.py"]:
        for node in ast.walk(ast.parse(file.read_bytes())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not runs_data.intersection(name.split(".")[0] for name in names), file
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), file
            assert not (isinstance(node, ast.keyword) and node.arg == "allow_pickle"), file


def test_no_option_of_the_encoder_takes_arguments_for_ffmpeg() -> None:
    kinds = {field.name: field.type for field in msgspec.structs.fields(EncoderPoolOptions)}
    assert {name for name, kind in kinds.items() if kind is str} == {"codec", "preset"}
    assert set(kinds.values()) <= {str, int, float, bool}


_NOW = decode_record(b'{"seq":1,"time":"2026-11-22T06:27:18Z","source":"a","nth":1,"event":{"type":"X"}}').time
