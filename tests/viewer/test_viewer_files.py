from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from plugins.viewer.answers import Wrong
from plugins.viewer.files import open_file
from tests.viewer.browsing import served
from tests.viewer.viewed_homes import SESSION, episode, film, make_home, session, video

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.viewer.browsing import Browser

PATH = f"videos/{SESSION}/rl-video-episode-0.mp4"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Browser, bytes, int]]:
    home = tmp_path_factory.mktemp("files") / "home"
    content = film(home / PATH)
    (home / "recordings").mkdir()
    (home / "recordings" / "r-0.jpg").write_bytes(b"\xff\xd8\xff a picture")
    said = [session(), *video("r-0", 0, PATH, content, thumbnail="recordings/r-0.jpg"), *episode(0, recording="r-0")]
    anyio.run(make_home, home, said)
    with served(home) as browser:
        number = browser.json(f"/api/episodes/{SESSION}~0~0")["video"]
        yield browser, content, number


def test_a_video_is_sent_whole_and_in_ranges(shown: tuple[Browser, bytes, int]) -> None:
    browser, content, number = shown
    path = f"/api/videos/{number}/file"
    whole = browser.get(path)
    assert (whole.status_code, whole.content) == (200, content)
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["accept-ranges"] == "bytes"
    size = len(content)
    for asked, start, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=100-", 100, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=5-{size + 1000}", 5, size),
        (f"bytes=-{size + 1000}", 0, size),
    ):
        answer = browser.client.get(path, headers={"Range": asked})
        assert answer.status_code == 206, asked
        assert answer.content == content[start:end], asked
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
    for asked in (f"bytes={size}-", f"bytes={size + 5}-{size + 9}", "bytes=-0"):
        answer = browser.client.get(path, headers={"Range": asked})
        assert answer.status_code == 416, asked
        assert answer.headers["content-range"] == f"bytes */{size}"
    for asked in ("bytes=5-2", "bytes=a-b", "bytes=0-1,5-6", "lines=1-2", "bytes=-", "bytes=" + "9" * 40 + "-"):
        answer = browser.client.get(path, headers={"Range": asked})
        assert (answer.status_code, answer.content) == (200, content), asked


def test_a_browser_that_has_the_video_is_told_so(shown: tuple[Browser, bytes, int]) -> None:
    browser, content, number = shown
    path = f"/api/videos/{number}/file"
    etag = browser.get(path).headers["etag"]
    assert browser.client.get(path, headers={"If-None-Match": etag}).status_code == 304
    fresh = browser.client.get(path, headers={"Range": "bytes=0-9", "If-Range": etag})
    assert (fresh.status_code, fresh.content) == (206, content[:10])
    stale = browser.client.get(path, headers={"Range": "bytes=0-9", "If-Range": '"another"'})
    assert (stale.status_code, stale.content) == (200, content)
    assert browser.client.head(path).headers["content-length"] == str(len(content))


def test_a_download_has_a_plain_name(shown: tuple[Browser, bytes, int]) -> None:
    browser, content, number = shown
    answer = browser.get(f"/api/videos/{number}/file", download=1)
    assert answer.content == content
    assert answer.headers["content-disposition"].startswith(f'attachment; filename="{SESSION}-rl-video-episode-0.mp4"')


def test_thumbnails_and_strips_never_change_under_their_url(shown: tuple[Browser, bytes, int]) -> None:
    import simplejpeg

    browser, _, _ = shown
    row = browser.json(f"/api/episodes/{SESSION}~0~0")
    thumbnail = browser.get(row["thumbnail"])
    assert thumbnail.content == b"\xff\xd8\xff a picture"
    strip = browser.get(row["strip"])
    for answer in (thumbnail, strip):
        assert answer.headers["content-type"] == "image/jpeg"
        assert "immutable" in answer.headers["cache-control"]
    picture = simplejpeg.decode_jpeg(strip.content)
    assert picture.shape == (120, 1600, 3)
    # film() brightens from picture to picture: the tiles go evenly through the video's 30.
    tiles = [int(picture[60, 80 + 160 * tile, 0]) for tile in range(10)]
    assert tiles == sorted(tiles)
    assert tiles[0] < 30
    assert tiles[-1] > 200
    for url in (row["thumbnail"], row["strip"]):
        assert browser.get(url.replace(".jpg", "0.jpg")).status_code == 404
        assert browser.get(url[:-5] + ("0" if url[-5] != "0" else "1") + ".jpg").status_code == 404


# The one function that opens files ---------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "home" / "videos").mkdir(parents=True)
    (tmp_path / "home" / "videos" / "a.mp4").write_bytes(b"a")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "b.mp4").write_bytes(b"b")
    return tmp_path


def opened(place: Path, path: str, *folders: Path, suffix: str = ".mp4") -> bytes:
    descriptor = open_file(place / "home", folders, path, suffix)
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


def test_a_file_of_the_home_or_a_named_folder_is_opened(place: Path) -> None:
    assert opened(place, "videos/a.mp4") == b"a"
    assert opened(place, str(place / "home" / "videos" / "a.mp4")) == b"a"
    assert opened(place, str(place / "outside" / "b.mp4"), place / "outside") == b"b"


def test_nothing_else_is_opened(place: Path) -> None:
    home = place / "home"
    (home / "videos" / "link.mp4").symlink_to(place / "outside" / "b.mp4")
    (home / "videos" / "near.mp4").symlink_to(home / "videos" / "a.mp4")
    (home / "linked").symlink_to(place / "outside")
    (home / "videos" / "folder.mp4").mkdir()
    os.mkfifo(home / "videos" / "pipe.mp4")
    (home / "home.json").write_text("{}")
    before = len(list(Path("/dev/fd").iterdir()))
    for path in (
        *("videos/link.mp4", "videos/near.mp4", "linked/b.mp4", "videos/folder.mp4", "videos/pipe.mp4"),
        *("videos/none.mp4", "../outside/b.mp4", "videos/../../outside/b.mp4", str(place / "outside" / "b.mp4")),
        *("home.json", "videos/a.mp4/", "", ".", "/", "videos", "videos/a.mp4\0", "/dev/stdin", "videos/a.jpg"),
        *(str(home), f"{home}/../outside/b.mp4", f"{home}-other/a.mp4", "videos/a.mp4/a.mp4"),
    ):
        if path == "videos/a.mp4/":
            continue  # the same name
        with pytest.raises(Wrong):
            opened(place, path)
    with pytest.raises(Wrong):
        opened(place, "videos/a.mp4", suffix=".jpg")
    assert len(list(Path("/dev/fd").iterdir())) == before, "every descriptor was closed again"


def test_a_folder_beside_the_named_one_is_not_it(place: Path) -> None:
    (place / "outside-too").mkdir()
    (place / "outside-too" / "c.mp4").write_bytes(b"c")
    with pytest.raises(Wrong, match="--folder"):
        opened(place, str(place / "outside-too" / "c.mp4"), place / "outside")
