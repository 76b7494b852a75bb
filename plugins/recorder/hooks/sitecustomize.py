"""What each Python under `stepreel exec` or `install()` runs when it starts; then any other sitecustomize on its path.

Any Python 3 may come here, of another environment too. It starts whatever is wrong with us, with no more than a line on
stderr, and finds its path as if our folder had never been on it.
"""

import os
import sys

HERE = os.path.dirname(__file__)


def watch() -> None:
    """Load install.py by its path and without its packages: a script may have a `plugins` of its own."""
    name = "plugins.recorder.install"
    if sys.version_info < (3, 11) or os.environ.get("STEPREEL_INSTALL") != "1" or name in sys.modules:
        return
    from importlib.machinery import ModuleSpec, SourceFileLoader  # noqa: PLC0415 - most Pythons have gone by now

    path = os.path.join(os.path.dirname(HERE), "install.py")
    loader = SourceFileLoader(name, path)
    module = type(sys)(name)
    module.__file__ = path
    module.__spec__ = ModuleSpec(name, loader, origin=path)
    loader.exec_module(module)
    sys.modules[name] = module  # before any other import of it could look for its packages
    module.watch()


def run_the_other() -> None:
    """Let the import that runs this file end with the next sitecustomize on the path, where there is one."""
    us = sys.modules.pop("sitecustomize")
    try:
        # Found now that our folder is off the path.
        import sitecustomize  # type: ignore[import-not-found]  # noqa: F401, PLC0415 - most environments have none
    except ImportError as missing:
        if missing.name != "sitecustomize":
            raise
        sys.modules["sitecustomize"] = us


sys.path[:] = [folder for folder in sys.path if folder != HERE]
try:
    watch()
except Exception as error:  # noqa: BLE001 - a Python has to start
    try:  # noqa: SIM105 - contextlib is not imported at the start of every Python
        sys.stderr.write("stepreel: does nothing in this process: " + repr(error) + "\n")
    except Exception:  # noqa: BLE001, S110 - there may be no stderr, or nobody who reads it
        pass
run_the_other()
