"""The pruner: which videos stay, and how the others go; and the command that shows what would go."""

from plugins.pruner.command import prune
from plugins.pruner.pruner import Pruner, PrunerOptions

__all__ = ["Pruner", "PrunerOptions", "prune"]
