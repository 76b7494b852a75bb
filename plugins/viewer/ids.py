"""Ids: how an episode or a worker is named in a URL, and back."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, unquote

LONE_AGENT = "agent_0"
MOST_CHARACTERS = 600


class EpisodeId(NamedTuple):
    """An episode of one agent."""

    session: str
    worker: int
    episode: int
    agent: str = LONE_AGENT

    def __str__(self) -> str:
        agent = "" if self.agent == LONE_AGENT else f"~{_quoted(self.agent)}"
        return f"{_quoted(self.session)}~{self.worker}~{self.episode}{agent}"


class WorkerId(NamedTuple):
    """A worker of a session."""

    session: str
    worker: int

    def __str__(self) -> str:
        return f"{_quoted(self.session)}~{self.worker}"


def episode_id(text: str) -> EpisodeId | None:
    """The episode that an id names; None where it is no id."""
    session, *rest = text.split("~")
    if len(rest) not in (2, 3) or len(text) > MOST_CHARACTERS or not session:
        return None
    worker, episode = _index(rest[0]), _index(rest[1])
    if worker is None or episode is None:
        return None
    return EpisodeId(unquote(session), worker, episode, unquote(rest[2]) if rest[2:] else LONE_AGENT)


def worker_id(text: str) -> WorkerId | None:
    """The worker that an id names; None where it is no id."""
    session, *rest = text.split("~")
    if len(rest) != 1 or len(text) > MOST_CHARACTERS or not session:
        return None
    worker = _index(rest[0])
    return None if worker is None else WorkerId(unquote(session), worker)


def _quoted(text: str) -> str:
    return quote(text, safe="").replace("~", "%7E").replace(".", "%2E")


def _index(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None
