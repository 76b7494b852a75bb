"""Scripts of somebody else's, each in a folder that is its own in every way, without network."""

from __future__ import annotations

import textwrap
from pathlib import Path

from tests.wrappers.pythons import ran

ROOT = Path(__file__).parent.parent.parent


def run_script(code: str, folder: Path, *by: str, **environment: str) -> str:
    """Run a script, which has to come to a good end; what it wrote to stderr. `by`: arguments of Python before it."""
    (folder / "script.py").write_text(textwrap.dedent(code))
    of_wandb = {f"WANDB_{what}_DIR": str(folder / "of_wandb") for what in ("CONFIG", "CACHE", "DATA")}
    without_network = {"WANDB_MODE": "offline", "WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    own = {"PYTHONPATH": str(ROOT), "STEPREEL_SESSION": None}
    done = ran(*by, "script.py", cwd=folder, env={**own, **without_network, **of_wandb, **environment})
    assert done.returncode == 0, done.stderr
    return done.stderr
