"""Making the environment that the options ask for, and finding out in a sentence why that does not work."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from ctypes.util import find_library
from importlib.util import find_spec
from typing import Any

import gymnasium
from gymnasium.envs.registration import find_highest_version, get_env_id, load_env_creator, parse_env_id
from gymnasium.error import DependencyNotInstalled, DeprecatedEnv, UnregisteredEnv, VersionNotFound

from plugins.env_runner.loading import Unusable, import_module, load, said
from plugins.env_runner.messages import Examined, Spec
from plugins.env_runner.policy import make_policy
from plugins.events import Space
from plugins.recorder.frames import FrameRefused, layout_of

Environment = gymnasium.Env[Any, Any]


def prepare_to_draw_without_a_screen() -> None:
    """Let pygame and MuJoCo draw into memory. To be called before they are imported; a user's own settings stay."""
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    screen = sys.platform != "linux" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    if not screen and "MUJOCO_GL" not in os.environ and find_spec("mujoco") is not None:
        os.environ["MUJOCO_GL"] = "egl" if find_library("EGL") else "osmesa"


def make_environment(spec: Spec) -> Environment:
    """The environment with its wrappers, able to draw where it can. Raises `Unusable` with what is to be mended."""
    for module in spec.imports:
        import_module("import", module)
    module, colon, _ = spec.env.partition(":")
    if colon:
        import_module("env", module)
    render_modes = _render_modes(spec.env)
    draws = "rgb_array" in render_modes if render_modes is not None else spec.pictures
    if spec.pictures and not draws:
        raise _cannot_draw(spec, render_modes or [])
    keywords = {**spec.env_kwargs, "render_mode": "rgb_array"} if draws else spec.env_kwargs
    try:
        env: Environment = gymnasium.make(spec.env, max_episode_steps=spec.max_episode_steps, **keywords)
    except Exception as error:
        raise _unmakeable(spec, error) from error
    if spec.pictures and "rgb_array" not in (env.metadata.get("render_modes") or []):
        env.close()
        raise _cannot_draw(spec, env.metadata.get("render_modes") or [])
    for wrapper in spec.wrappers:
        env = _wrap(env, wrapper)
    return env


def examine(spec: Spec) -> Examined:
    """Make the environment and the policy, and try both. Raises `Unusable` with what is to be mended."""
    env = make_environment(spec)
    try:
        observation, _ = _reset(spec, env)
        frame_shape = _draw(spec, env) if spec.pictures else None
        policy = make_policy(spec.policy, env)
        try:
            policy.begin_episode(0)
            policy.act(observation)
        except Exception as error:
            raise Unusable(f'policy: "{spec.policy["use"]}" raised {said(error)} for a first observation') from error
        return Examined(
            env_id=env.spec.id if env.spec is not None else spec.env,
            observation_space=_in_words(env.observation_space),
            action_space=_in_words(env.action_space),
            render_modes=list(env.metadata.get("render_modes") or []),
            render_fps=env.metadata.get("render_fps"),
            frame_shape=frame_shape,
            versions=_versions(env),
        )
    finally:
        env.close()


def _render_modes(env_id: str) -> list[str] | None:
    """What the environment's class says it can do; None where it does not say, or where making it will say why not."""
    name = env_id.rpartition(":")[2]
    try:
        namespace, base, version = parse_env_id(name)
        if version is None:
            version = find_highest_version(namespace, base)
        registered = gymnasium.registry.get(name) or gymnasium.registry[get_env_id(namespace, base, version)]
        entry_point = registered.entry_point
        creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    except Exception:  # noqa: BLE001 - making it will fail in the same way, and say what is wrong
        return None
    metadata = getattr(creator, "metadata", None)
    return list(metadata.get("render_modes") or []) if isinstance(metadata, dict) else None


def _unmakeable(spec: Spec, error: Exception) -> Unusable:
    if isinstance(error, UnregisteredEnv):
        return Unusable(f'env: "{spec.env}" is not known to Gymnasium. {_sentence(error)}{_import_hint(spec, error)}')
    if isinstance(error, DeprecatedEnv):
        return Unusable(f'env: "{spec.env}" is out of date. {_sentence(error)}')
    if isinstance(error, DependencyNotInstalled):
        return Unusable(f'env: "{spec.env}" needs more than is installed. {_sentence(error)}')
    if isinstance(error, ImportError):
        return Unusable(f'env: "{spec.env}" needs a module that cannot be imported: {said(error)}')
    if isinstance(error, TypeError) and spec.env_kwargs and "unexpected keyword argument" in str(error):
        keyword = str(error).partition("unexpected keyword argument ")[2].partition(" ")[0].strip("'")
        return Unusable(f'env_kwargs: "{spec.env}" takes no argument "{keyword}"; correct or remove it')
    return Unusable(f'env: making "{spec.env}" raised {said(error)}')


def _import_hint(spec: Spec, error: Exception) -> str:
    if "Did you mean" in str(error) or isinstance(error, VersionNotFound):
        return ""
    if spec.env.startswith("ALE/"):
        return ' Install it with pip install "stepreel[atari]", and add import = ["ale_py"].'
    return " Where a package registers it on import, add that package to `import`."


def _cannot_draw(spec: Spec, render_modes: list[str]) -> Unusable:
    *others, last = render_modes or [""]
    offers = f"the render modes {', '.join(others)} and {last}" if others else f"the render mode {last}"
    return Unusable(
        f'env: "{spec.env}" offers {offers if last else "no render modes"}; recording needs rgb_array.\n'
        f"  {_way_out(spec)}"
    )


def _way_out(spec: Spec) -> str:
    return f"Choose another environment, or set [{spec.table}.capture] off = true to keep telemetry only."


def _wrap(env: Environment, wrapper: str | dict[str, Any]) -> Environment:
    keywords = {} if isinstance(wrapper, str) else {key: value for key, value in wrapper.items() if key != "use"}
    use = wrapper if isinstance(wrapper, str) else str(wrapper["use"])
    kind = load("wrappers", use)
    try:
        wrapped: Environment = kind(env, **keywords)
    except Exception as error:
        raise Unusable(f'wrappers: "{use}" raised {said(error)}') from error
    if not isinstance(wrapped, gymnasium.Env):
        raise Unusable(f'wrappers: "{use}" made {type(wrapped).__name__}, not an environment')
    return wrapped


def _reset(spec: Spec, env: Environment) -> tuple[Any, dict[str, Any]]:
    try:
        return env.reset(seed=0)
    except DependencyNotInstalled as error:
        raise _unmakeable(spec, error) from error
    except Exception as error:
        raise Unusable(f'env: resetting "{spec.env}" raised {said(error)}') from error


def _draw(spec: Spec, env: Environment) -> list[int]:
    try:
        picture: Any = env.render()
    except DependencyNotInstalled as error:
        raise _unmakeable(spec, error) from error
    except Exception as error:
        raise Unusable(f'env: drawing "{spec.env}" raised {said(error)}') from error
    try:
        layout = layout_of(picture)
    except FrameRefused as refused:
        raise Unusable(f'env: "{spec.env}" drew what cannot be recorded: {refused}.\n  {_way_out(spec)}') from None
    return [layout.height, layout.width, layout.channels]


def _in_words(space: gymnasium.Space[Any]) -> Space:
    return Space(
        kind=type(space).__name__,
        shape=None if space.shape is None else [int(length) for length in space.shape],
        dtype=None if space.dtype is None else str(space.dtype),
        description=repr(space)[:1024],
    )


def _versions(env: Environment) -> dict[str, str]:
    """Versions of what decides on what an episode looks like."""
    packages = importlib.metadata.packages_distributions()
    modules = {type(env.unwrapped).__module__.partition(".")[0], "gymnasium", "numpy"}
    optional = {name for name in ("stable_baselines3", "torch", "pygame", "mujoco", "Box2D") if name in sys.modules}
    named = {name for module in modules | optional for name in packages.get(module, [])}
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in sorted(named)}}


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if text.endswith((".", "?", "!")) else f"{text}."
