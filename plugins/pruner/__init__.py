"""The pruner: which videos stay, and how the others go."""

from plugins.pruner.pruner import Pruner, PrunerOptions

__all__ = ["Pruner", "PrunerOptions"]
