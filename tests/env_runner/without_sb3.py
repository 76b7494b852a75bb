"""Importing this makes Stable-Baselines3 one of the things that are not installed."""

from __future__ import annotations

import sys

sys.modules["stable_baselines3"] = None  # type: ignore[assignment] # which is how Python notes what cannot be imported
