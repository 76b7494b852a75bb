from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
import pytest

from plugins.viewer.columns import thin
from plugins.viewer.steps import series_of
from tests.viewer.browsing import served
from tests.viewer.viewed_homes import SESSION, episode, make_home, session, step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.viewer.browsing import Browser

STEPS = 5000
PLAIN = f"/api/episodes/{SESSION}~0~0"
ODD = f"/api/episodes/{SESSION}~0~1"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    home = tmp_path_factory.mktemp("steps") / "home"
    start, end = episode(0, STEPS)
    events: list[Any] = [session(), start]
    events += [
        step(0, number, reward=math.sin(number / 40), observation=[number / 2, -number])
        for number in range(1, STEPS + 1)
    ]
    events += [end, *episode(1, 4)[:1]]
    events += [
        step(1, 1, info={"reward_forward": 0.5, "rewards.ctrl": -0.1, "x": 3, "name": "a", "reward_total": 0.4}),
        step(
            1, 2, reward=None, nonfinite={"reward": "nan", "observation.1": "-inf"}, observation=[1.0, None, 2.0, 3.0]
        ),
        step(1, 3, action=[0.5, 1.5], info={"x": None, "late": True}, nonfinite={"info.x": "inf"}, frame=None),
        step(1, 4, observation={"image": {"shape": [8, 8], "dtype": "uint8", "min": 0, "max": 255}, "y": 2}),
        episode(1, 4)[1],
    ]
    anyio.run(make_home, home, events)
    with served(home) as browser:
        yield browser


def test_columns_say_what_the_steps_said(browser: Browser) -> None:
    header, columns = browser.columns(
        f"{PLAIN}/steps", columns="step,reward,return,observation.0,action,frame,terminated"
    )
    assert (header["rows"], header["total"], header["sampled"]) == (STEPS, STEPS, False)
    numbers = np.arange(1, STEPS + 1)
    assert columns["step"].tolist() == numbers.tolist()
    np.testing.assert_array_equal(columns["reward"], np.array([math.sin(number / 40) for number in numbers]))
    np.testing.assert_allclose(columns["return"], np.cumsum(columns["reward"]))
    np.testing.assert_array_equal(columns["observation.0"], numbers / 2)
    np.testing.assert_array_equal(columns["action"], numbers % 2)
    assert set(columns["frame"].tolist()) == {-1}


def test_a_range_is_cut_out(browser: Browser) -> None:
    header, columns = browser.columns(f"{PLAIN}/steps", **{"columns": "step,reward", "from": 100, "to": 199})
    assert columns["step"].tolist() == list(range(100, 200))
    assert (header["from"], header["to"], header["rows"]) == (100, 199, 100)
    header, columns = browser.columns(f"{PLAIN}/steps", **{"columns": "step", "from": 9000})
    assert header["rows"] == 0
    assert browser.get(f"{PLAIN}/steps", columns="step,nothing").status_code == 404


def test_what_is_thinned_keeps_every_peak(browser: Browser) -> None:
    _, whole = browser.columns(f"{PLAIN}/steps", columns="step,reward")
    header, columns = browser.columns(f"{PLAIN}/steps", columns="step,reward,observation.1", points=200)
    assert header["sampled"]
    assert header["rows"] == len(columns["step"]) <= 200
    assert columns["reward"].max() == whole["reward"].max()
    assert columns["reward"].min() == whole["reward"].min()
    assert columns["step"][0] == 1
    assert columns["step"][-1] == STEPS
    for first, last, one, other in zip(
        columns["step"][::2], columns["step"][1::2], columns["reward"][::2], columns["reward"][1::2], strict=True
    ):
        stretch = whole["reward"][first - 1 : last]
        assert {one, other} == {stretch.min(), stretch.max()}
        lowest_first = stretch.argmin() <= stretch.argmax()
        assert (one <= other) == lowest_first


def test_thinning_minds_gaps_and_odd_lengths() -> None:
    values = np.array([np.nan, 3.0, 1.0, np.nan, np.nan, np.nan, 2.0])
    found = thin({"step": np.arange(1, 8, dtype=np.int32), "x": values}, 6)
    assert found["step"].tolist() == [1, 3, 4, 6, 7, 7]
    assert found["x"][:2].tolist() == [3.0, 1.0]
    assert np.isnan(found["x"][2:4]).all()
    assert found["x"][4:].tolist() == [2.0, 2.0]


def test_series_are_found_named_and_grouped(browser: Browser) -> None:
    found = browser.json(f"{ODD}/series")
    series = {each["name"]: each for each in found["series"]}
    groups = {name: each["group"] for name, each in series.items()}
    assert groups["info.reward_forward"] == groups["info.rewards.ctrl"] == "terms"
    assert groups["info.x"] == groups["info.late"] == groups["info.reward_total"] == "info"
    assert groups["observation.1"] == groups["observation.image.min"] == groups["observation.y"] == "observation"
    assert groups["action"] == groups["action.0"] == "action"
    assert "info.name" not in series, "text is no series"
    assert "observation.image.shape.0" not in series
    assert series["observation.image.max"]["max"] == 255
    assert series["info.x"]["nonfinite"] == 1
    assert {(each["step"], each["name"], each["value"]) for each in found["nonfinite"]} == {
        (2, "reward", "nan"),
        (2, "observation.1", "-inf"),
        (3, "info.x", "inf"),
    }


def test_what_is_not_finite_comes_as_itself_and_breaks_no_sum(browser: Browser) -> None:
    _, columns = browser.columns(f"{ODD}/steps", columns="step,reward,return,observation.1,info.x,action.1")
    assert np.isnan(columns["reward"][1])
    assert columns["return"].tolist() == [1.0, 1.0, 2.0, 3.0]
    assert columns["observation.1"][1] == -math.inf
    assert columns["info.x"][2] == math.inf
    assert np.isnan(columns["action.1"][0])
    assert columns["action.1"][2] == 1.5


def test_rows_and_downloads_hold_every_step(browser: Browser) -> None:
    page = browser.json(f"{ODD}/rows", **{"from": 2, "limit": 2})
    assert [row["step"] for row in page["rows"]] == [2, 3]
    assert page["total"] == 4
    assert page["rows"][1]["action"] == [0.5, 1.5]
    everything = browser.get(f"{ODD}/steps.json").json()
    assert [row["step"] for row in everything] == [1, 2, 3, 4]
    assert everything[1]["nonfinite"] == {"reward": "nan", "observation.1": "-inf"}
    assert len(browser.get(f"{PLAIN}/steps.json").json()) == STEPS
    lines = list(csv.DictReader(io.StringIO(browser.get(f"{PLAIN}/steps.csv").text)))
    assert len(lines) == STEPS
    assert float(lines[99]["observation.0"]) == 50.0
    assert float(lines[99]["reward"]) == math.sin(100 / 40)


def test_json_of_all_kinds_becomes_series() -> None:
    assert series_of("action", [b"1", b"2", b"0"])["action"].tolist() == [1.0, 2.0, 0.0]
    assert {name: column.tolist() for name, column in series_of("o", [b"[1,2]", b"[3,null]"]).items()}["o.0"] == [
        1.0,
        3.0,
    ]
    ragged = series_of("o", [b"[1]", b"[1,2]", None])
    assert np.isnan(ragged["o.1"][0])
    assert ragged["o.1"][1] == 2.0
    assert series_of("i", [b'{"a":{"b":[1,{"c":2}]}}'])["i.a.b.1.c"].tolist() == [2.0]
    assert series_of("i", [b'"text"', b"null", b"{}"]) == {}
    assert series_of("i", [b'{"broken":', b'{"x":1}'])["i.x"][1] == 1.0, "who wrote this table wrote no JSON"
    assert series_of("i", [b"1" + b"0" * 400]) == {}
    assert series_of("i", [b"[" * 5000 + b"]" * 5000]) == {}
    assert series_of("i", []) == {}


def test_an_episode_that_goes_on_is_read_anew(browser: Browser, tmp_path: object) -> None:
    import pathlib

    home = pathlib.Path(str(tmp_path)) / "home"
    anyio.run(make_home, home, [session(), episode(0)[0], step(0, 1)])
    with served(home) as fresh:
        assert fresh.columns(f"{PLAIN}/steps")[0]["rows"] == 1
        anyio.run(make_home, home, [step(0, 2), step(0, 3)])
        assert fresh.columns(f"{PLAIN}/steps")[0]["rows"] == 3
