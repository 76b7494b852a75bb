"""What a producer and the recorder process import stays light."""

from __future__ import annotations

import pytest

from tests.kernel.ticks import answer, python


@pytest.mark.parametrize("module", ["kernel", "kernel.event", "kernel.files"])
def test_the_producers_part_of_the_kernel_brings_no_event_loop(module: str) -> None:
    code = f"import sys, {module}; print([name for name in ('asyncio', 'anyio', 'rich') if name in sys.modules])"
    assert answer(python(code)) == "[]"


def test_the_public_names_are_there_when_they_are_used() -> None:
    code = "import kernel; print([name for name in kernel.__all__ if getattr(kernel, name).__name__ != name])"
    assert answer(python(code)) == "[]"
    assert "AttributeError" in python("import kernel; kernel.nothing").communicate()[1]


def test_the_recorder_process_brings_nothing_that_draws_on_a_terminal() -> None:
    code = "import sys, plugins.recorder_process.life; print({'rich', 'cyclopts'} & {*sys.modules})"
    assert answer(python(code)) == "set()"
