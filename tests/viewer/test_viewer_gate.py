from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.viewer.browsing import TOKEN, served
from tests.viewer.viewed_homes import SESSION, episode, film, make_home, session, step, video

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.viewer.browsing import Browser

SCRIPT = "<script>document.title='x'</script>\"'><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("gate")
    home = folder / "home"
    (folder / "secret.mp4").write_bytes(b"a stranger's")
    path = f"videos/{SESSION}/rl-video-episode-0.mp4"
    content = film(home / path)
    hostile = "r-hostile"
    anyio.run(
        make_home,
        home,
        [
            session(label=SCRIPT, env_id=SCRIPT, tags=[SCRIPT]),
            *video("r-0", 0, path, content),
            *episode(0, recording="r-0"),
            *video(hostile, 1, "../secret.mp4", content),
            *video("r-absolute", 2, str(folder / "secret.mp4"), content),
            *video("r-passwd", 3, "/etc/passwd", content),
            *video("r-json", 4, "home.json", content, thumbnail="../secret.mp4"),
            *episode(1, recording=hostile, session=SESSION),
            step(0, 1, info={SCRIPT: SCRIPT, "x": 1.0}),
        ],
    )
    with served(home) as browser:
        yield browser


def test_without_the_token_there_is_nothing_to_see(browser: Browser) -> None:
    for path in ("/", "/live", "/api/about", "/api/episodes", "/page/app.js", "/vendor/plotly.min.js", "/api/nothing"):
        answer = httpx.get(browser.url + path)
        assert answer.status_code == 401, path
    assert httpx.get(browser.url, params={"token": "wrong"}).status_code == 401
    assert httpx.get(browser.url, headers={"Cookie": "stepreel-1=x"}).status_code == 401
    forged = {"Cookie": browser.cookie[:-1] + ("0" if browser.cookie[-1] != "0" else "1")}
    assert httpx.get(browser.url + "/api/about", headers=forged).status_code == 401


def test_the_token_becomes_a_strict_cookie_and_leaves_the_url(browser: Browser) -> None:
    answer = httpx.get(browser.url + "/episodes", params={"token": TOKEN, "sort": "-return"})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/episodes?sort=-return"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    # From another site's link a strict cookie does not come along on a redirect, so the way on is the page's own.
    crossing = {"Sec-Fetch-Site": "cross-site"}
    answer = httpx.get(browser.url + "/", params={"token": TOKEN}, headers=crossing)
    assert answer.status_code == 200
    assert 'http-equiv="refresh"' in answer.text


def test_the_token_leads_to_no_other_place(browser: Browser) -> None:
    for path in ("//evil.example", "//evil.example/live", "/api/about", "/page/app.js"):
        answer = httpx.get(browser.url + path, params={"token": TOKEN})
        assert answer.status_code in (401, 404), path
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost@evil", "", "x y"]
)
def test_a_name_that_a_stranger_resolves_to_this_address_is_refused(browser: Browser, host: str) -> None:
    answer = browser.client.get("/api/about", headers={"Host": host})
    assert answer.status_code in (400, 421), host


def test_a_websocket_under_a_stranger_s_name_is_refused(browser: Browser) -> None:
    port = int(browser.url.rpartition(":")[2])
    for name, allowed in (("evil.example", False), ("localhost", True)):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            address, origin = f"ws://{name}:{port}/ws", f"http://{name}:{port}"
            cookie = {"Cookie": browser.cookie}
            if allowed:
                with connect(address, sock=connection, additional_headers=cookie, origin=Origin(origin)) as stream:
                    assert json.loads(stream.recv(30))["type"] == "hello"
                continue
            with pytest.raises(InvalidStatus) as refused:
                connect(address, sock=connection, additional_headers=cookie, origin=Origin(origin))
            assert refused.value.response.status_code == 403


def test_any_port_of_the_loopback_is_a_tunnel_s(browser: Browser) -> None:
    for host in ("localhost:9999", "127.0.0.1:1", "[::1]:8642", "LOCALHOST"):
        assert browser.client.get("/api/about", headers={"Host": host}).status_code == 200, host


def test_what_changes_something_is_taken_from_the_own_page_alone(browser: Browser) -> None:
    path = "/api/capture/once"
    for origin in ("http://evil.example", "null", "http://localhost:1", f"{browser.url}.evil.example", "file://"):
        assert browser.ask("POST", path, Origin=origin).status_code == 403, origin
    assert browser.client.post(path, json={}).status_code == 403, "no origin at all"
    crossing = {"Sec-Fetch-Site": "cross-site"}
    assert browser.client.post(path, json={}, headers=crossing).status_code == 403
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        headers = {"Origin": browser.url, "Content-Type": kind}
        assert browser.client.post(path, content="{}", headers=headers).status_code == 415, kind
    assert browser.client.get("/api/capture").status_code == 200
    assert browser.client.get(path).status_code == 405
    headers = {"Origin": browser.url, "Content-Type": "application/json"}
    for body in ("[]", "1", "{", '{"mode": "every", "evil": 1}', '{"mode": "nonsense"}', '{"every": 3}'):
        assert browser.client.post("/api/capture", content=body, headers=headers).status_code == 400, body
    large = json.dumps({"mode": "x" * 100_000})
    assert browser.client.post("/api/capture", content=large, headers=headers).status_code == 413


def test_a_stranger_s_websocket_is_refused(browser: Browser) -> None:
    for headers, origin in (
        ({"Cookie": browser.cookie}, "http://evil.example"),
        ({"Cookie": browser.cookie}, "null"),
        ({"Cookie": browser.cookie}, None),
        ({}, browser.url),
    ):
        with pytest.raises(InvalidStatus) as refused:
            _open(browser, headers, origin)
        assert refused.value.response.status_code == 403


def test_every_answer_says_what_may_run(browser: Browser) -> None:
    answers = [
        browser.get(path)
        for path in ("/", "/live", "/api/about", "/api/nothing", "/page/none", "/vendor/plotly.min.js")
    ]
    answers.append(httpx.get(browser.url))
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        for part in ("default-src 'self'", "img-src 'self' data: blob:", "style-src 'self' 'unsafe-inline'"):
            assert part in policy
        assert "script" not in policy, "it falls back to default-src"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers


EVIL = [
    "../home.json",
    "..%2fhome.json",
    "%2e%2e%2fhome.json",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "..\\home.json",
    "a%00.jpg",
]
EVIL += [
    "1;DROP TABLE videos",
    "1 OR 1=1",
    "-1",
    "9" * 40,
    "٣",
    "1.5",
    "0x1",
    "~~~",
    "a~0~0~b~c",
    "%ff%fe",
    "x~-1~0",
    SCRIPT,
]


@pytest.mark.parametrize("evil", EVIL)
def test_no_parameter_reaches_a_file_or_breaks_an_answer(browser: Browser, evil: str) -> None:
    quoted = httpx.QueryParams({"x": evil})["x"].replace("/", "%2F").replace("?", "%3F").replace("#", "%23")
    for path in (
        *(f"/page/{evil}", f"/api/videos/{evil}/file", f"/api/thumbnails/{evil}", f"/api/thumbnails/{evil}-00.jpg"),
        *(f"/api/strips/{evil}", f"/api/strips/1-{evil}.jpg", f"/api/episodes/{evil}", f"/api/episodes/{evil}/steps"),
        *(f"/api/episodes/{evil}/series", f"/api/episodes/{evil}/rows", f"/api/episodes/{evil}/steps.csv"),
        *(f"/api/live/{evil}/frames", f"/api/live/S~0/frames/{evil}", f"/api/comparisons/{evil}"),
        *(f"/api/comparisons/{evil}/file", f"/vendor/{evil}"),
    ):
        for asked in {path, path.replace(evil, quoted)}:
            try:
                answer = browser.client.get(asked)
            except httpx.InvalidURL:
                continue
            assert answer.status_code in (400, 404, 405), (asked, answer.status_code, answer.text[:200])
            assert "root:" not in answer.text
            assert browser.json("/api/about")["home"] not in answer.text
    for name in ("session", "env", "agent", "outcome", "worker", "video", "q", "sort", "offset", "limit", "as_of"):
        assert browser.get("/api/episodes", **{name: evil}).status_code in (200, 400), name
    for name in ("session", "points"):
        assert browser.get("/api/progress", **{name: evil}).status_code in (200, 400, 404), name
    for name in ("from", "to", "points", "columns"):
        assert browser.get(f"/api/episodes/{SESSION}~0~0/steps", **{name: evil}).status_code in (200, 400, 404), name
    assert browser.get("/api/pairs", a=evil, b=evil).json() == {"pairs": []}
    assert browser.get("/api/system", seconds=evil).status_code in (200, 400)
    for method, path in (
        *(("DELETE", f"/api/videos/{quoted}"), ("PUT", f"/api/videos/{quoted}/pin")),
        *(("DELETE", f"/api/sessions/{quoted}/videos"), ("POST", f"/api/sessions/{quoted}/stop")),
        ("POST", f"/api/sessions/{SESSION}/{quoted}"),
    ):
        assert browser.ask(method, path).status_code in (400, 404, 405), path
    refused = browser.ask("POST", "/api/comparisons", {"ids": [evil, evil]})
    assert refused.status_code in (400, 404)
    assert browser.json("/api/episodes")["total"] == 2, "nothing was dropped"


def test_a_hostile_table_names_no_file_outside(browser: Browser) -> None:
    recordings = {"r-hostile": 403, "r-absolute": 403, "r-passwd": 403, "r-json": 403, "r-0": 200}
    rows = {row["recording"]: row for episode_ in (0, 1) for row in _videos(browser, episode_)}
    ids = {name: rows[name]["id"] for name in rows}
    assert rows["r-hostile"]["file"] is None
    assert "outside" in rows["r-hostile"]["text"]
    everything = [*ids.values(), *range(1, 40)]
    for number in everything:
        answer = browser.get(f"/api/videos/{number}/file")
        assert answer.status_code in (200, 403, 404)
        assert b"stranger" not in answer.content
        assert b"root:" not in answer.content
    for name, status in recordings.items():
        if name in ids:
            assert browser.get(f"/api/videos/{ids[name]}/file").status_code == status, name


def test_a_script_in_every_field_stays_text(browser: Browser) -> None:
    for path in (
        "/api/sessions",
        "/api/episodes",
        "/api/progress",
        f"/api/episodes/{SESSION}~0~0",
        f"/api/episodes/{SESSION}~0~0/rows",
    ):
        answer = browser.get(path)
        assert answer.headers["content-type"] == "application/json", path
    assert browser.json("/api/sessions")["sessions"][0]["label"] == SCRIPT
    wrong = browser.get("/api/episodes", sort=SCRIPT)
    assert wrong.headers["content-type"] == "application/json"
    answer = browser.get(f"/api/episodes/{SESSION}~0~0/steps.csv")
    assert answer.headers["content-disposition"].startswith("attachment")


def _videos(browser: Browser, number: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = browser.json(f"/api/episodes/{SESSION}~0~{number}")["videos"]
    return found


def _open(browser: Browser, headers: dict[str, str], origin: str | None) -> None:
    address = browser.url.replace("http", "ws") + "/ws"
    with connect(address, additional_headers=headers, origin=None if origin is None else Origin(origin)):
        pass
