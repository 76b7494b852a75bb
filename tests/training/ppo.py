"""PPO in a single file, with numpy alone: a training script as people have them, to be run with and without Stepreel.

    python tests/training/ppo.py --seed 1 --capture-video

It knows nothing of Stepreel. For our wrapper, the line that imports `RecordVideo` is the only one to change.
"""
# ruff: noqa: T201 - a training script prints

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import RecordVideo

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, np.dtype[Any]]


def parse_arguments() -> argparse.Namespace:
    """What a user may set on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env-id", default="CartPole-v1")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--capture-video", action="store_true", help="record environment 0 into videos/RUN_NAME")
    parser.add_argument("--total-timesteps", type=int, default=50_000)
    parser.add_argument("--num-envs", type=int, default=4)
    parser.add_argument("--num-steps", type=int, default=128, help="steps of each environment between two updates")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--gamma", type=float, default=0.99)
    parser.add_argument("--gae-lambda", type=float, default=0.95)
    parser.add_argument("--num-minibatches", type=int, default=4)
    parser.add_argument("--update-epochs", type=int, default=4)
    parser.add_argument("--clip-coef", type=float, default=0.2)
    parser.add_argument("--ent-coef", type=float, default=0.01)
    parser.add_argument("--vf-coef", type=float, default=0.5)
    parser.add_argument("--max-grad-norm", type=float, default=0.5)
    return parser.parse_args()


def make_env(env_id: str, idx: int, run_name: str, *, capture_video: bool) -> Callable[[], gym.Env[Any, Any]]:
    """How one of the vector's environments is made."""

    def thunk() -> gym.Env[Any, Any]:
        env: gym.Env[Any, Any]
        if capture_video and idx == 0:
            env = gym.make(env_id, render_mode="rgb_array")
            env = RecordVideo(env, f"videos/{run_name}")
        else:
            env = gym.make(env_id)
        return gym.wrappers.RecordEpisodeStatistics(env)

    return thunk


class Network:
    """A small MLP with tanh between its layers, and its backpropagation."""

    def __init__(self, rng: np.random.Generator, sizes: list[int], last_gain: float) -> None:
        self.layers = len(sizes) - 1
        gains = [np.sqrt(2.0)] * (self.layers - 1) + [last_gain]
        self.weights = [_orthogonal(rng, sizes[i], sizes[i + 1], gains[i]) for i in range(self.layers)]
        self.biases = [np.zeros(size) for size in sizes[1:]]

    def parameters(self) -> list[Array]:
        """Its arrays, which the optimizer changes in place; `backward` gives gradients in the same order."""
        return self.weights + self.biases

    def forward(self, inputs: Array) -> list[Array]:
        """What each layer puts out, the inputs first."""
        outputs = [inputs]
        for i in range(self.layers):
            output = outputs[i] @ self.weights[i] + self.biases[i]
            outputs.append(output if i == self.layers - 1 else np.tanh(output))
        return outputs

    def backward(self, outputs: list[Array], gradient: Array) -> list[Array]:
        """The parameters' gradients, from that of the last layer's output."""
        of_weights: list[Array] = []
        of_biases: list[Array] = []
        for i in reversed(range(self.layers)):
            of_weights.append(outputs[i].T @ gradient)
            of_biases.append(gradient.sum(axis=0))
            if i:
                gradient = (gradient @ self.weights[i].T) * (1.0 - outputs[i] ** 2)
        return of_weights[::-1] + of_biases[::-1]


def _orthogonal(rng: np.random.Generator, rows: int, columns: int, gain: float) -> Array:
    """A matrix with orthogonal rows or columns, whichever are fewer."""
    q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
    q *= np.sign(np.diag(r))
    return gain * (q if rows >= columns else q.T)


class Adam:
    """Adam (Kingma and Ba, 2015), with the gradients' common norm clipped."""

    def __init__(self, parameters: list[Array], max_norm: float) -> None:
        self.parameters = parameters
        self.max_norm = max_norm
        self.first = [np.zeros_like(parameter) for parameter in parameters]
        self.second = [np.zeros_like(parameter) for parameter in parameters]
        self.steps = 0

    def step(self, gradients: list[Array], learning_rate: float) -> None:
        """Move the parameters by one step."""
        self.steps += 1
        norm = np.sqrt(sum(float((gradient**2).sum()) for gradient in gradients))
        scale = min(1.0, self.max_norm / (norm + 1e-6))
        rate = learning_rate * np.sqrt(1.0 - 0.999**self.steps) / (1.0 - 0.9**self.steps)
        for i, gradient in enumerate(gradients):
            self.first[i] += 0.1 * (scale * gradient - self.first[i])
            self.second[i] += 0.001 * ((scale * gradient) ** 2 - self.second[i])
            self.parameters[i] -= rate * self.first[i] / (np.sqrt(self.second[i]) + 1e-5)


def log_softmax(logits: Array) -> Array:
    """Log-probabilities of the actions."""
    shifted: Array = logits - logits.max(axis=-1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted


def main() -> None:  # noqa: PLR0915 - a single-file implementation is read from top to bottom
    """Train."""
    args = parse_arguments()
    run_name = f"{args.env_id}__{Path(__file__).stem}__{args.seed}"
    rng = np.random.default_rng(args.seed)
    envs = gym.vector.SyncVectorEnv(
        [make_env(args.env_id, i, run_name, capture_video=args.capture_video) for i in range(args.num_envs)]
    )
    assert isinstance(envs.single_action_space, gym.spaces.Discrete), "only discrete actions are supported"
    assert isinstance(envs.single_observation_space, gym.spaces.Box)
    n_inputs = int(np.prod(envs.single_observation_space.shape))
    n_actions = int(envs.single_action_space.n)
    actor = Network(rng, [n_inputs, 64, 64, n_actions], last_gain=0.01)
    critic = Network(rng, [n_inputs, 64, 64, 1], last_gain=1.0)
    optimizer = Adam(actor.parameters() + critic.parameters(), args.max_grad_norm)

    # Rollout buffers. Gymnasium's vectors reset an environment at the step after its last one: that step ignores its
    # action, and what it returns belongs to no transition. `valid` is False there.
    shape = (args.num_steps, args.num_envs)
    obs = np.zeros((*shape, n_inputs))
    actions = np.zeros(shape, np.int64)
    logprobs = np.zeros(shape)
    rewards = np.zeros(shape)
    terminated = np.zeros(shape, bool)
    done = np.zeros(shape, bool)
    valid = np.zeros(shape, bool)
    values = np.zeros((args.num_steps + 1, args.num_envs))

    global_step = 0
    longest_step = last_step_at = 0.0
    returns: list[float] = []
    start_time = time.perf_counter()
    observation, _ = envs.reset(seed=args.seed)
    next_obs = observation.reshape(args.num_envs, -1)
    next_done = np.zeros(args.num_envs, bool)
    batch_size = args.num_envs * args.num_steps
    num_iterations = max(1, args.total_timesteps // batch_size)
    for iteration in range(num_iterations):
        learning_rate = args.learning_rate * (1.0 - iteration / num_iterations)

        for step in range(args.num_steps):
            global_step += args.num_envs
            obs[step] = next_obs
            valid[step] = ~next_done
            values[step] = critic.forward(next_obs)[-1][:, 0]
            log_probabilities = log_softmax(actor.forward(next_obs)[-1])
            gumbel = rng.gumbel(size=log_probabilities.shape)
            actions[step] = action = (log_probabilities + gumbel).argmax(axis=1)
            logprobs[step] = log_probabilities[np.arange(args.num_envs), action]

            entered = time.perf_counter()
            observation, rewards[step], terminated[step], truncated, infos = envs.step(action)
            longest_step = max(longest_step, time.perf_counter() - entered)
            last_step_at = time.time()

            next_obs = observation.reshape(args.num_envs, -1)
            done[step] = next_done = terminated[step] | truncated
            if "episode" in infos:
                for i in np.flatnonzero(infos["_episode"]):
                    returns.append(float(infos["episode"]["r"][i]))
                    print(f"global_step={global_step}, episodic_return={returns[-1]:g}", flush=True)

        # Generalized advantage estimation (Schulman et al., 2016). The observation after an episode's last step is
        # its own last one, so a truncated episode is bootstrapped from `values[step + 1]`, too.
        values[args.num_steps] = critic.forward(next_obs)[-1][:, 0]
        advantages = np.zeros(shape)
        running = np.zeros(args.num_envs)
        for step in reversed(range(args.num_steps)):
            bootstrap = np.where(terminated[step], 0.0, values[step + 1])
            delta = rewards[step] + args.gamma * bootstrap - values[step]
            running = delta + args.gamma * args.gae_lambda * np.where(done[step], 0.0, running)
            advantages[step] = running

        kept = np.flatnonzero(valid.ravel())
        b_obs = obs.reshape(-1, n_inputs)
        b_actions, b_logprobs = actions.ravel(), logprobs.ravel()
        b_advantages = advantages.ravel()
        b_returns = b_advantages + values[:-1].ravel()
        for _ in range(args.update_epochs):
            for batch in np.array_split(rng.permutation(kept), args.num_minibatches):
                n, rows = len(batch), np.arange(len(batch))
                taken = b_actions[batch]
                advantage = b_advantages[batch]
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)

                # The clipped objective (Schulman et al., 2017) and its gradient: where the clipped term is the
                # worse one, it is constant.
                policy = actor.forward(b_obs[batch])
                log_probabilities = log_softmax(policy[-1])
                probabilities = np.exp(log_probabilities)
                ratio = np.exp(log_probabilities[rows, taken] - b_logprobs[batch])
                clipped = np.clip(ratio, 1.0 - args.clip_coef, 1.0 + args.clip_coef)
                of_logprob = np.where(advantage * ratio <= advantage * clipped, -advantage * ratio, 0.0) / n
                one_hot = np.zeros_like(probabilities)
                one_hot[rows, taken] = 1.0
                entropy = -(probabilities * log_probabilities).sum(axis=1, keepdims=True)
                of_logits = of_logprob[:, None] * (one_hot - probabilities)
                of_logits += args.ent_coef / n * probabilities * (log_probabilities + entropy)

                value = critic.forward(b_obs[batch])
                of_value = args.vf_coef / n * (value[-1] - b_returns[batch, None])
                optimizer.step(actor.backward(policy, of_logits) + critic.backward(value, of_value), learning_rate)

        print(f"SPS: {int(global_step / (time.perf_counter() - start_time))}", flush=True)

    envs.close()
    print(f"mean_return_of_last_20={np.mean(returns[-20:]) if returns else 0.0:.1f}")
    print(f"longest_step={longest_step:.6f} last_step_at={last_step_at:.6f}")


if __name__ == "__main__":
    main()
