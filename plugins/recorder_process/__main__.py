"""Where the recorder process begins: it lets go of the script that started it, and imports Stepreel from its own place.

Started by `plugins.recorder.process`, never by hand. Up to the end of `begin` it must import nothing but the standard
library: the script's folders may have a `kernel` or a `plugins` of their own, and may hide any module.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path

REPORT = 3
"""The descriptor on which the script hears how it went; as `plugins.recorder.process` has it."""


def begin() -> None:
    """Become nobody's child, make our packages known by their place, and go on there."""
    os.setpgid(0, 0)
    order = json.loads(sys.stdin.readline())
    if os.fork():
        os._exit(0)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.closerange(REPORT + 1, os.sysconf("SC_OPEN_MAX"))  # what libraries of the script have left open
    os.set_inheritable(REPORT, False)
    here = str(Path(__file__).absolute().parent)
    own = [entry for entry in sys.path if entry != here]  # the standard library first: a script's folder may hide it
    sys.path[:] = [*own, *(entry for entry in order["path"] if entry not in own)]
    for name in ("kernel", "plugins"):
        _make_known(name, Path(order[name]))
    home = Path(sys.argv[1])
    lock = importlib.import_module("kernel.files").acquire(home / "recorder.lock")
    if lock is None:
        os.write(REPORT, b'{"state":"left","why":"another recorder process is here"}\n')
        return
    # From here on nobody starts another one, however long the rest takes on a busy machine.
    importlib.import_module("plugins.recorder_process.life").main(home, REPORT)
    lock.release()


def _make_known(name: str, folder: Path) -> None:
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


if __name__ == "__main__":
    begin()
