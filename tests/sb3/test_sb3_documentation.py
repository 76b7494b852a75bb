"""The examples of docs/wrappers.md with Stable-Baselines3 run as they stand, and leave what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.end_to_end.homes import frames_of

if TYPE_CHECKING:
    from tests.training.scripts import Place

PAGE = (Path(__file__).parent.parent.parent / "docs" / "wrappers.md").read_text()
SECTION = PAGE.partition("\n## Stable-Baselines3\n")[2].partition("\n## ")[0]
FILMED, INSIDE = re.findall(r"^```python\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL)


def test_the_example_leaves_the_videos_that_the_page_names(place: Place) -> None:
    ended = place.run(place.write("train.py", FILMED).name)
    assert ended.code == 0, ended.err
    named = re.findall(r"rl-video-step-\d+-to-step-\d+\.mp4", SECTION)
    assert place.video_names() == sorted([*named, "rl-video-step-1000-to-step-1200.mp4"])
    assert [sum(1 for _ in frames_of(place.videos / name)) for name in named] == [201, 201]
    place.at_rest()


def test_the_example_with_record_video_inside_leaves_a_video_of_each_environment(place: Place) -> None:
    ended = place.run(place.write("train.py", INSIDE).name)
    assert ended.code == 0, ended.err
    names = [path.name for path in (place.folder / "each").iterdir()]
    assert {"rl-video-episode-0.mp4", "rl-video-w1-episode-0.mp4"} <= set(names)
    place.at_rest()
