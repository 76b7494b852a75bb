"""`python -m tests.fuzz DECODER --seconds N`: feed a decoder with bytes that reach ever more of its code.

Needs atheris: `pip install -e ".[fuzz]"`. Exit code 0: so many seconds of processor time without a crash or a hang.
Else the input is left in the corpus's folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["kernel", "plugins"]):
    from tests.fuzz.decoders import DECODERS, without_waiting_for_the_disk
    from tests.fuzz.seeds import write_corpus

HANG_SECONDS = 20
MOST_BYTES = 8192


def main() -> None:
    """Read the arguments and fuzz until the time is over."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("decoder", choices=sorted(DECODERS))
    parser.add_argument("--seconds", type=float, default=60.0, help="of processor time")
    parser.add_argument("--corpus", type=Path, help="a folder to go on in; a new one where there is none")
    given = parser.parse_args()
    corpus = given.corpus or Path(tempfile.mkdtemp(prefix=f"fuzz-{given.decoder}-"))
    write_corpus(given.decoder, corpus / "inputs")
    without_waiting_for_the_disk()
    decode, runs, begun = DECODERS[given.decoder], 0, time.process_time()

    def one(content: bytes) -> None:
        nonlocal runs
        runs += 1
        decode(content)
        spent = time.process_time() - begun
        if spent > given.seconds:
            inputs = len(list((corpus / "inputs").iterdir()))
            print(f"{given.decoder}: {runs} inputs in {spent:.0f} s of processor time; the corpus has {inputs}")  # noqa: T201 - a command's answer
            sys.stdout.flush()
            os._exit(0)

    arguments = [
        f"-max_len={MOST_BYTES}",
        f"-timeout={HANG_SECONDS}",
        f"-artifact_prefix={corpus}/",
    ]
    atheris.Setup([sys.argv[0], *arguments, str(corpus / "inputs")], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
