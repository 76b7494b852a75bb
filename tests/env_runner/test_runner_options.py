from __future__ import annotations

from typing import Any

import pytest

from kernel.config import convert
from plugins.env_runner import EnvRunnerOptions
from plugins.events import CaptureSettings, Keep


def read(**table: Any) -> EnvRunnerOptions:
    problems: list[str] = []
    options = convert({"env": "CartPole-v1", **table}, EnvRunnerOptions, "lab.toml: [plugins.runner]", problems)
    if options is None:
        raise ValueError("\n".join(problems))
    return options


def test_the_defaults_capture_every_episode_of_one_worker_at_random_for_ever() -> None:
    options = read()
    assert (options.workers, options.episodes, options.steps, options.seconds) == (1, 0, 0, 0)
    assert options.policy == {"use": "random"}
    assert options.capture.settings == CaptureSettings(mode="every", every=1)
    assert options.keep == Keep()


def test_import_is_the_key_for_modules_to_import() -> None:
    assert read(**{"import": ["ale_py"]}).imports == ["ale_py"]
    with pytest.raises(ValueError, match="imports: unknown key"):
        read(imports=["ale_py"])


@pytest.mark.parametrize(
    ("table", "settings"),
    [
        ({"every": 5}, CaptureSettings(mode="every", every=5)),
        ({"mode": "cubic"}, CaptureSettings(mode="cubic")),
        ({"mode": "manual"}, CaptureSettings(mode="manual")),
        ({"mode": "off"}, CaptureSettings(mode="off")),
        ({"off": True}, CaptureSettings(mode="off")),
        ({"off": False}, CaptureSettings(mode="every")),
    ],
)
def test_the_capture_table_says_when_to_capture(table: dict[str, Any], settings: CaptureSettings) -> None:
    assert read(capture=table).capture.settings == settings


def test_a_misspelt_key_of_the_capture_table_is_named_with_its_table() -> None:
    with pytest.raises(ValueError, match=r'\[plugins.runner.capture\] evry: unknown key \(did you mean "every"\?\)'):
        read(capture={"evry": 5})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"workers": 0}, "workers: 0 is too small; use 1 or more"),
        ({"episodes": -1}, "episodes: -1 is too small"),
        ({"seed": -4}, "seed: -4 is too small"),
        ({"seconds": -0.5}, "seconds: -0.5 is too small"),
        ({"max_episode_steps": 0}, "max_episode_steps: 0 is too small"),
        ({"fps": 0.0}, "fps: 0.0 is not a number of pictures a second"),
        ({"env": ""}, "env: is empty"),
        ({"video_folder": ""}, "video_folder: is empty"),
        ({"name_prefix": "a/b"}, 'name_prefix: "a/b" cannot begin a file name'),
        ({"policy": {"path": "model.zip"}}, "policy: has no `use`"),
        ({"wrappers": ["FlattenObservation"]}, "wrappers: 'FlattenObservation' names no wrapper"),
        ({"wrappers": [{"times": 3}]}, "wrappers: {'times': 3} names no wrapper"),
        ({"env_kwargs": {"render_mode": "human"}}, "env_kwargs: the runner sets the render_mode itself"),
        ({"env_kwargs": {"max_episode_steps": 5}}, "env_kwargs: max_episode_steps is a key of the runner's own table"),
        ({"steps": 3, "workers": 4}, "steps: 3 cannot be split over 4 workers"),
        ({"capture": {"off": True}, "keep": {"best": 3}}, "keep: there is nothing to keep, as capture is off"),
        ({"capture": {"off": True}, "telemetry": "captured"}, 'telemetry: "captured" records no step'),
        ({"capture": {"mode": "eval"}}, 'capture: the mode "eval" captures nothing'),
        ({"capture": {"mode": "cubic", "every": 3}}, 'every: counts for mode = "every" alone'),
        ({"capture": {"every": 0}}, "every: 0 is not a number of episodes"),
        ({"capture": {"off": True, "every": 3}}, "off: is true, so nothing is captured"),
        ({"keep": {"best": -1}}, "keep.best: -1 is too small"),
    ],
)
def test_what_makes_no_sense_or_contradicts_itself_is_refused_in_a_sentence(
    table: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as refusal:
        read(**table)
    assert message in str(refusal.value)
    assert str(refusal.value).startswith("lab.toml: [plugins.runner")


def test_all_contradictions_are_named_at_once() -> None:
    with pytest.raises(ValueError) as refusal:
        read(workers=0, fps=-1.0, capture={"mode": "eval"})
    assert [word for word in ("workers", "fps", "eval_every") if word in str(refusal.value)] == [
        "workers",
        "fps",
        "eval_every",
    ]
