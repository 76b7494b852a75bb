"""What is safe to show on a terminal: events and names may hold what would move its cursor, or worse."""

from __future__ import annotations


def shown(text: str) -> str:
    """The text with whatever is not printable in an escaped form; line breaks, too."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()
