from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from starlette.routing import Route

from plugins.viewer import episodes
from plugins.viewer.following import Worker
from plugins.viewer.routes import Site
from plugins.viewer.settings import Settings

PAGE = (Path(__file__).parent.parent.parent / "docs" / "viewer.md").read_text()


def test_every_route_is_documented(tmp_path: Path) -> None:
    routes = Site(Settings(home=str(tmp_path))).app().routes
    paths = {route.path for route in routes if isinstance(route, Route)}
    assert len(paths) > 30
    shortened = PAGE.replace("…/steps.json", "/api/episodes/{id}/steps.json").replace(
        "`/resume`, `/stop`", "/api/sessions/{session}/{action}"
    )
    names = {
        "/page/{name:path}": "/page/{name}",
        "/api/thumbnails/{name}": "/api/thumbnails/{id}-{hash}.jpg",
        "/api/strips/{name}": "/api/strips/{id}-{hash}.jpg",
        "/api/live/{id}/frames": "/api/live/{worker id}/frames",
        "/api/live/{id}/frames/{name}": "/api/live/{worker id}/frames/{picture}.jpg",
        "/api/episodes/marks": "/api/episodes/marks?",
    }
    missing = [path for path in paths if names.get(path, path) not in shortened]
    assert not missing


@pytest.mark.parametrize("name", sorted(episodes.SHOWN))
def test_every_column_of_the_episodes_is_documented(name: str) -> None:
    section = PAGE[PAGE.index("### Episodes") : PAGE.index("### Steps")]
    assert f"`{name}`" in section


def test_every_field_of_a_worker_is_documented() -> None:
    section = PAGE[PAGE.index("Worker:") : PAGE.index("Picture (binary)")]
    fields = {field.encode_name for field in msgspec.structs.fields(Worker)}
    assert fields <= set(re.findall(r"`(\w+)`", section))


def test_every_sort_is_documented() -> None:
    (line,) = [line for line in PAGE.splitlines() if line.startswith("| `sort` |")]
    assert set(episodes.SORTS) <= set(re.findall(r"`(\w+)`", line))
