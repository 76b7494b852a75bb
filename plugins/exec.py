"""The command `exec`: run a script in which the recording wrappers of its libraries are ours."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import cyclopts
import msgspec
from cyclopts import Parameter

from plugins.recorder.install import environment

USAGE = """\
usage: stepreel exec [--home DIR] SCRIPT [ARGUMENT ...]
       stepreel exec [--home DIR] -m MODULE [ARGUMENT ...]

Runs a training script as python does; its RecordVideo and VecVideoRecorder are Stepreel's, in its child processes, too.
All that stands behind SCRIPT or MODULE belongs to the script.

  --home DIR   the folder of Stepreel's data; without it $STEPREEL_HOME, or else ./.stepreel
"""

command = cyclopts.App(
    name="exec",
    help="Run a training script in which the recording wrappers of its libraries are Stepreel's.",
    # Every word comes as it stands, for --help, --version and -- may be the script's; no word holds a NUL.
    help_flags=[],
    version_flags=[],
    end_of_options_delimiter="\0",
)


class Start(msgspec.Struct, frozen=True):
    """What is to be run."""

    arguments: list[str]
    """What Python gets: a script, or -m and a module; and all that stands behind."""
    home: str | None = None


@command.default
def run(*words: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> int:
    """Become the Python that runs the script. Returns an exit code where there is none to run."""
    if words and words[0] in ("--help", "-h"):
        print(USAGE, end="")  # noqa: T201 - a command's answer
        return 0
    if not words or words[0] == "-":
        print(USAGE, end="", file=sys.stderr)  # noqa: T201 - the same
        return 2
    try:
        start = read(list(words))
        home = {} if start.home is None else {"STEPREEL_HOME": start.home}
        sys.stdout.flush()
        # The process stays, with its id and its terminal; so signals and the exit code are the script's own.
        os.execve(sys.executable, [sys.executable, *start.arguments], {**os.environ, **environment(), **home})  # noqa: S606 - a shell would be in between
    except (ValueError, OSError) as error:
        print(f"stepreel exec: {error}", file=sys.stderr)  # noqa: T201 - the same
        return 2


def read(words: list[str]) -> Start:
    """Our own options, and what Python gets. Raises `ValueError` with what is wrong."""
    home = None
    while words and words[0].startswith("-") and words[0] != "-m":
        option, equals, folder = words[0].partition("=")
        words = words[1:]
        if option == "--":
            break
        if option != "--home":
            raise ValueError(f"{option} is no option of ours; `stepreel exec --help` names those")
        if not equals and words:
            folder, words = words[0], words[1:]
        if not folder:
            raise ValueError("--home needs a folder")
        home = str(Path(folder).absolute())
    if not words:
        raise ValueError("name the script to run, or -m and a module")
    if words[0] == "-m":
        if len(words) == 1:
            raise ValueError("-m needs a module")
    elif not Path(words[0]).exists():
        raise ValueError(f"there is no script {Path(words[0]).absolute()}")
    return Start(words, home)
