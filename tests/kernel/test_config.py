"""The configuration: typed, and every fault at once with its place and its fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kernel.config import ConfigRefused, LogOptions, Settings, convert, read_config
from kernel.plugin import Options


class Inner(Options):
    every: int = 1
    best: float | None = None


class Outer(Options):
    env: str
    workers: int = 2
    folder: Path = Path("videos")
    capture: Inner = Inner()
    fallback: Inner | None = None
    tags: dict[str, str] = {}
    first: int = 0
    last: int = 10

    def __post_init__(self) -> None:
        if self.first > self.last:
            raise ValueError("first: is behind last")


def config_file(folder: Path, text: str) -> Path:
    file = folder / "x.toml"
    file.write_text(text)
    return file


def converted(table: dict[str, Any]) -> Outer | list[str]:
    problems: list[str] = []
    outer = convert(table, Outer, "x.toml: [plugins.runner]", problems)
    assert (outer is None) == bool(problems)
    return outer or problems


def test_a_table_becomes_its_struct() -> None:
    table = {
        "env": "CartPole-v1",
        "folder": "out",
        "capture": {"every": 5},
        "fallback": {"best": 1},
        "tags": {"a": "b"},
    }
    assert converted(table) == Outer(
        env="CartPole-v1", folder=Path("out"), capture=Inner(every=5), fallback=Inner(best=1.0), tags={"a": "b"}
    )


def test_every_fault_is_said_at_once_with_table_key_and_suggestion() -> None:
    table = {"workres": 3, "workers": "two", "capture": {"evrey": 1, "best": "x"}, "fallback": 3, "tags": {"a": 1}}
    problems = converted(table)
    assert isinstance(problems, list)
    assert sorted(problems) == sorted(
        [
            'x.toml: [plugins.runner] workres: unknown key (did you mean "workers"?)',
            "x.toml: [plugins.runner] env: is required",
            "x.toml: [plugins.runner] workers: expected `int`, got `str`; it is 'two'",
            'x.toml: [plugins.runner.capture] evrey: unknown key (did you mean "every"?)',
            "x.toml: [plugins.runner.capture] best: expected `float | null`, got `str`; it is 'x'",
            "x.toml: [plugins.runner] fallback: expected `object | null`, got `int`; it is 3",
            "x.toml: [plugins.runner] tags: expected `str`, got `int` - at `$[...]`; it is {'a': 1}",
        ]
    )


def test_an_unknown_key_like_none_that_is_known_comes_with_the_known_ones() -> None:
    known = "capture, env, fallback, first, folder, last, tags, workers"
    assert converted({"env": "x", "zzz": 1}) == [f"x.toml: [plugins.runner] zzz: unknown key (known are {known})"]


def test_keys_that_contradict_each_other_are_said_in_the_plugins_words() -> None:
    assert converted({"env": "x", "first": 20}) == ["x.toml: [plugins.runner] first: is behind last"]


def test_a_file_is_read_with_its_defaults(tmp_path: Path) -> None:
    config = read_config(config_file(tmp_path, '[plugins.a]\nuse = "x:Y"\n'))
    assert config.problems == ()
    assert config.settings == Settings(plugins={"a": {"use": "x:Y"}})
    assert config.settings.home == Path("runtime/data")
    assert config.settings.log.keep_bytes == 20 * 2**30


def test_a_home_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_config(config_file(tmp_path, 'home = "~/runs"')).settings.home == tmp_path / "runs"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("hoem = 'x'", 'x.toml: hoem: unknown key (did you mean "home"?)'),
        ("home = 3", "x.toml: home: expected Path; it is 3"),
        ("drain_seconds = 'soon'", "x.toml: drain_seconds: expected `float`, got `str`; it is 'soon'"),
        ("[log]\nkeep_byte = 1", 'x.toml: [log] keep_byte: unknown key (did you mean "keep_bytes"?)'),
        ("[log]\nsegment_bytes = 1", "x.toml: [log] segment_bytes: at least 1024"),
        ("[log]\nkeep_bytes = 1000000", "x.toml: [log] keep_bytes: at least segment_bytes (67108864)"),
        ("plugins = 3", "x.toml: plugins: expected `object`, got `int`; it is 3"),
    ],
)
def test_a_fault_at_the_top_is_kept_for_wiring_to_say_with_the_others(tmp_path: Path, text: str, fault: str) -> None:
    (problem,) = read_config(config_file(tmp_path, text)).problems
    assert problem.startswith(f"{tmp_path}/{fault}")


def test_a_file_that_cannot_be_read_at_all_is_refused(tmp_path: Path) -> None:
    for file, fault in [
        (tmp_path / "missing.toml", "no such file"),
        (tmp_path, "Is a directory"),
        (config_file(tmp_path, "a = = 1"), "(at line 1, column 5)"),
    ]:
        with pytest.raises(ConfigRefused) as refused:
            read_config(file)
        (problem,) = refused.value.problems
        assert problem.startswith(f"{file}: ")
        assert fault in problem
    (tmp_path / "latin.toml").write_bytes(b"home = '\xff'")
    with pytest.raises(ConfigRefused, match=r"latin\.toml: "):
        read_config(tmp_path / "latin.toml")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("plugins.a.n=3", 3),
        ("plugins.a.n = 3.5", 3.5),
        ("plugins.a.n=true", True),
        ("plugins.a.n=[1, 2]", [1, 2]),
        ("plugins.a.n=word", "word"),
        ('plugins.a.n="3"', "3"),
        ("plugins.a.n=a=b", "a=b"),
        ("plugins.a.n=", ""),
        ("plugins.a.n=/tmp/x y", "/tmp/x y"),  # noqa: S108 - nothing is written there
    ],
)
def test_an_override_is_typed_as_in_toml_and_words_need_no_quotes(tmp_path: Path, override: str, value: Any) -> None:
    config = read_config(config_file(tmp_path, "[plugins.a]\nn = 0\nm = 1\n"), [override])
    assert config.settings.plugins == {"a": {"n": value, "m": 1}}


def test_overrides_make_tables_and_reach_every_level(tmp_path: Path) -> None:
    overrides = ["plugins.b.capture.every=5", "home=elsewhere", "log.segment_bytes=4096"]
    settings = read_config(config_file(tmp_path, "[plugins.a]\nn = 0\n"), overrides).settings
    assert settings.plugins == {"a": {"n": 0}, "b": {"capture": {"every": 5}}}
    assert (settings.home, settings.log) == (Path("elsewhere"), LogOptions(segment_bytes=4096))


@pytest.mark.parametrize("override", ["nonsense", "=3", "plugins.a.=3", "plugins.a.n.deep=3"])
def test_an_override_that_cannot_be_is_a_fault_like_any_other(tmp_path: Path, override: str) -> None:
    (problem,) = read_config(config_file(tmp_path, "[plugins.a]\nn = 0\n"), [override]).problems
    assert problem.startswith(f"--set {override}: ")
