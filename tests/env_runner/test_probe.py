from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from kernel.plugin import Refused
from kernel.runtime import StartRefused, check
from kernel.wiring import Part
from plugins.env_runner import EnvRunner
from plugins.env_runner.messages import Spec
from plugins.env_runner.probe import probe
from tests.env_runner.runs import options

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_is_left")]

OFF = "  Choose another environment, or set [plugins.runner.capture] off = true to keep telemetry only."


async def refusal(home: Path, **table: Any) -> str:
    """What a check of the runner says."""
    table = {"capture": {"every": 1}, **table}
    with pytest.raises(StartRefused) as refused:
        await check(home, [Part("runner", EnvRunner, options(**table), required=True)])
    assert "Traceback" not in str(refused.value)
    assert not home.exists()
    return str(refused.value)


async def test_an_environment_that_cannot_draw_is_refused_with_the_modes_it_has(home: Path) -> None:
    assert await refusal(home, env="Text-v0") == (
        f'[plugins.runner] env: "Text-v0" offers the render modes human and ansi; recording needs rgb_array.\n{OFF}'
    )
    assert await refusal(home, env="Blind-v0") == (
        f'[plugins.runner] env: "Blind-v0" offers no render modes; recording needs rgb_array.\n{OFF}'
    )


async def test_an_environment_that_cannot_draw_is_fine_without_capture(home: Path) -> None:
    await check(home, [Part("runner", EnvRunner, options(env="Text-v0", capture={"off": True}), required=True)])
    assert not home.exists()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (
            {"env": "CartPol-v1"},
            (
                '[plugins.runner] env: "CartPol-v1" is not known to Gymnasium. '
                "Environment `CartPol` doesn't exist. Did you mean: `CartPole`?"
            ),
        ),
        (
            {"env": "CartPole-v7"},
            (
                '[plugins.runner] env: "CartPole-v7" is not known to Gymnasium. Environment version `v7` for '
                "environment `CartPole` doesn't exist. It provides versioned environments: [ `v0`, `v1` ]."
            ),
        ),
        (
            {"env": "ALE/Breakout-v5"},
            (
                '[plugins.runner] env: "ALE/Breakout-v5" is not known to Gymnasium. Namespace ALE not found. Have you '
                'installed the proper package for ALE? Install it with pip install "stepreel[atari]", and add '
                'import = ["ale_py"].'
            ),
        ),
        (
            {"env": "Lab/Maze-v0"},
            "Where a package registers it on import, add that package to `import`.",
        ),
        (
            {"env": "LunarLander-v2"},
            (
                '[plugins.runner] env: "LunarLander-v2" is out of date. Environment version v2 for `LunarLander` is '
                "deprecated. Please use `LunarLander-v3` instead."
            ),
        ),
        (
            {"env": "Incomplete-v0"},
            (
                '[plugins.runner] env: "Incomplete-v0" needs more than is installed. Box2D is not installed, run '
                '`pip install "gymnasium[box2d]"`.'
            ),
        ),
        (
            {"import": ["ale_pi"]},
            (
                '[plugins.runner] import: there is no module "ale_pi" to import for "ale_pi"; install it, or '
                "correct the name"
            ),
        ),
        (
            {"env": "labb:Maze-v0"},
            '[plugins.runner] env: there is no module "labb" to import for "labb"; install it, or correct the name',
        ),
        (
            {"env_kwargs": {"lenght": 3}},
            '[plugins.runner] env_kwargs: "Count-v0" takes no argument "lenght"; correct or remove it',
        ),
        (
            {"env_kwargs": {"does": "draws floats"}},
            '[plugins.runner] env: "Count-v0" drew what cannot be recorded: a frame must be of uint8',
        ),
        (
            {"wrappers": ["gymnasium.wrappers:FlatenObservation"]},
            (
                '[plugins.runner] wrappers: there is no "FlatenObservation" in gymnasium.wrappers (did you mean '
                '"FlattenObservation"?)'
            ),
        ),
        (
            {"wrappers": [{"use": "envs:Loud", "factor": 2}]},
            '[plugins.runner] wrappers: "envs:Loud" raised TypeError: ',
        ),
        (
            {"policy": {"use": "policies:leen"}},
            '[plugins.runner] policy: there is no "leen" in policies (did you mean "lean"?)',
        ),
        (
            {"policy": {"use": "sb4"}},
            '[plugins.runner] policy: "sb4" is not known; use "random", "sb3" or "module:function"',
        ),
        (
            {"policy": {"use": "policies:broken"}},
            '[plugins.runner] policy: "policies:broken" raised IndexError: no such observation (policies.py, line',
        ),
        (
            {"import": ["envs", "without_sb3"], "policy": {"use": "sb3", "path": __file__}},
            '[plugins.runner] policy: Stable-Baselines3 is not installed; run pip install "stepreel[sb3]"',
        ),
    ],
)
async def test_what_does_not_work_is_refused_in_a_sentence(home: Path, table: dict[str, Any], said: str) -> None:
    text = await refusal(home, **table)
    assert said in text
    assert len(text.splitlines()) <= 2


async def test_a_process_that_crashes_while_it_tries_is_refused_with_its_last_words(home: Path) -> None:
    text = await refusal(home, env="Crashing-v0")
    assert text.startswith(
        '[plugins.runner] env: the process that tried "Crashing-v0" ended with SIGSEGV before it could answer, '
        "after these lines:\n  about to crash\n  Fatal Python error: Segmentation fault"
    )


async def test_an_environment_that_takes_for_ever_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.env_runner.probe.PROBE_SECONDS", 0.05)
    assert await refusal(home) == '[plugins.runner] env: "Count-v0" could not be made and drawn within 0.05 s'


def cart_pole(**changes: Any) -> Spec:
    keys: dict[str, Any] = {
        "table": "plugins.runner",
        "env": "CartPole-v1",
        "env_kwargs": {},
        "imports": [],
        "wrappers": [],
        "max_episode_steps": None,
        "policy": {"use": "random"},
        "pictures": True,
    }
    return Spec(**{**keys, **changes})


async def test_the_answer_tells_what_the_environment_is_like() -> None:
    answer = await probe(cart_pole(env="CartPole"))
    assert answer.env_id == "CartPole-v1"
    assert answer.render_modes == ["human", "rgb_array"]
    assert (answer.render_fps, answer.frame_shape) == (50, [400, 600, 3])
    assert (answer.action_space.kind, answer.action_space.dtype) == ("Discrete", "int64")
    assert (answer.observation_space.shape, answer.observation_space.dtype) == ([4], "float32")


async def test_the_last_answer_is_kept_so_that_a_run_asks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = await probe(cart_pole())
    monkeypatch.setattr("sys.executable", "/there/is/no/python")
    assert await probe(cart_pole()) is answer
    with pytest.raises(FileNotFoundError):
        await probe(cart_pole(max_episode_steps=3))


async def test_a_cancelled_probe_leaves_no_process() -> None:
    with anyio.move_on_after(0.1):
        await probe(cart_pole(max_episode_steps=17))


async def test_a_refusal_is_raised_as_itself() -> None:
    with pytest.raises(Refused, match="is not known to Gymnasium"):
        await probe(cart_pole(env="CartPol-v1"))
