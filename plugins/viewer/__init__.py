"""The viewer: a web page for people who look at agents."""

from plugins.viewer.plugin import Viewer, ViewerOptions

__all__ = ["Viewer", "ViewerOptions"]
