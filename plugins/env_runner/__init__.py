"""The environment runner: worker processes that step an environment with a policy, and the plugin that keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plugins.env_runner.options import EnvRunnerOptions
    from plugins.env_runner.runner import EnvRunner

__all__ = ["EnvRunner", "EnvRunnerOptions"]


def __getattr__(name: str) -> Any:
    # A worker process imports this package too, and has no use for asyncio.
    if name == "EnvRunner":
        from plugins.env_runner.runner import EnvRunner  # noqa: PLC0415 - see above

        return EnvRunner
    if name == "EnvRunnerOptions":
        from plugins.env_runner.options import EnvRunnerOptions  # noqa: PLC0415 - see above

        return EnvRunnerOptions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
