"""Proximal policy optimization in one file, in the style of CleanRL, on the native vector environment.

The observation is one row of numbers (``observation="spectrum"``, ``flatten=True``), so a small perceptron is enough;
forbidden actions are masked by ``info["action_mask"]``.
Run from the checkout: ``python -m examples.cleanrl_ppo``.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor, nn
from torch.distributions import Categorical

import restore_env  # noqa: F401  registers the environment


@dataclass
class Args:
    """The configuration of a run; each field is an option of the command line."""

    env_id: str = "ImageRestorePureTrain-v0"
    """a level set: its transitions are looked up; ``ImageRestore-v0`` runs the tools"""
    seed: int = 1
    total_timesteps: int = 300_000
    learning_rate: float = 5e-4
    num_envs: int = 128
    num_steps: int = 8
    """steps of each environment between updates"""
    anneal_lr: bool = True
    gamma: float = 1.0
    """episodes have at most three steps"""
    gae_lambda: float = 0.95
    num_minibatches: int = 3
    update_epochs: int = 3
    clip_coef: float = 0.2
    ent_coef: float = 0.01
    vf_coef: float = 0.25
    max_grad_norm: float = 0.5


def layer(inputs: int, outputs: int, gain: float = 2**0.5) -> nn.Linear:
    """A linear layer with orthogonal weights."""
    linear = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear


class Agent(nn.Module):
    """Actor and critic, a perceptron each, on inputs divided by their ranges."""

    def __init__(self, space: gym.spaces.Box, actions: int) -> None:
        super().__init__()
        scale = np.maximum(np.abs(space.low), np.abs(space.high))
        self.scale = nn.Parameter(torch.from_numpy(1 / np.maximum(scale, 1e-6)), requires_grad=False)
        size = len(scale)
        self.critic = nn.Sequential(layer(size, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, 1, 1.0))
        self.actor = nn.Sequential(layer(size, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, actions, 0.01))

    def value(self, x: Tensor) -> Tensor:
        """The expected return, ``(N,)``."""
        return self.critic(x * self.scale)[:, 0]  # type: ignore[no-any-return]

    def policy(self, x: Tensor, mask: Tensor) -> Categorical:
        """The distribution of the allowed actions."""
        return Categorical(logits=self.actor(x * self.scale).masked_fill(~mask, -1e9))


def advantages(rewards: Tensor, values: Tensor, dones: Tensor, last: Tensor, args: Args) -> Tensor:
    """Generalized advantage estimation; ``dones[t]`` says that step ``t`` ended its episode."""
    result = torch.zeros_like(rewards)
    running, following = torch.zeros_like(last), last
    for t in reversed(range(len(rewards))):
        going = 1 - dones[t]
        delta = rewards[t] + args.gamma * following * going - values[t]
        running = delta + args.gamma * args.gae_lambda * going * running
        result[t], following = running, values[t]
    return result


def train(args: Args) -> float:
    """Train; return the mean return of the last 1,000 episodes, dB."""
    np.random.seed(args.seed)  # noqa: NPY002  as CleanRL does
    torch.manual_seed(args.seed)
    envs = gym.make_vec(
        args.env_id,
        num_envs=args.num_envs,
        observation="spectrum",
        flatten=True,
        autoreset_mode=AutoresetMode.SAME_STEP,  # every step is a transition
    )
    envs = gym.wrappers.vector.RecordEpisodeStatistics(envs, buffer_length=1000)
    space, actions = envs.single_observation_space, envs.single_action_space
    assert isinstance(space, gym.spaces.Box)
    assert isinstance(actions, gym.spaces.Discrete)
    agent = Agent(space, int(actions.n))
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)

    shape = (args.num_steps, args.num_envs)
    obs, masks = torch.zeros(*shape, *space.shape), torch.zeros(*shape, int(actions.n), dtype=torch.bool)
    chosen, logprobs, rewards = torch.zeros(shape, dtype=torch.long), torch.zeros(shape), torch.zeros(shape)
    dones, values = torch.zeros(shape), torch.zeros(shape)

    observation, infos = envs.reset(seed=args.seed)
    began, iterations = time.monotonic(), max(1, args.total_timesteps // (args.num_steps * args.num_envs))
    for iteration in range(iterations):
        if args.anneal_lr:
            optimizer.param_groups[0]["lr"] = args.learning_rate * (1 - iteration / iterations)
        for t in range(args.num_steps):
            obs[t] = torch.from_numpy(observation)
            masks[t] = torch.from_numpy(infos["action_mask"])
            with torch.no_grad():
                policy, values[t] = agent.policy(obs[t], masks[t]), agent.value(obs[t])
            chosen[t] = policy.sample()  # type: ignore[no-untyped-call]
            logprobs[t] = policy.log_prob(chosen[t])  # type: ignore[no-untyped-call]
            observation, reward, terminated, truncated, infos = envs.step(chosen[t].numpy())
            rewards[t] = torch.from_numpy(reward)
            dones[t] = torch.from_numpy(terminated | truncated)
        with torch.no_grad():
            last = agent.value(torch.from_numpy(observation))
        advantage = advantages(rewards, values, dones, last, args)
        returns = advantage + values

        batch = [x.flatten(0, 1) for x in (obs, masks, chosen, logprobs, advantage, returns)]
        for _ in range(args.update_epochs):
            for rows in torch.randperm(len(batch[0])).chunk(args.num_minibatches):
                x, mask, action, old, gain, target = (each[rows] for each in batch)
                policy = agent.policy(x, mask)
                ratio = (policy.log_prob(action) - old).exp()  # type: ignore[no-untyped-call]
                gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                clipped = ratio.clamp(1 - args.clip_coef, 1 + args.clip_coef)
                policy_loss = -torch.minimum(gain * ratio, gain * clipped).mean()
                value_loss = (agent.value(x) - target).square().mean() / 2
                entropy = policy.entropy().mean()  # type: ignore[no-untyped-call]
                loss = policy_loss - args.ent_coef * entropy + args.vf_coef * value_loss
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
                optimizer.step()
        steps = (iteration + 1) * args.num_steps * args.num_envs
        speed = steps / (time.monotonic() - began)
        result = float(np.mean(envs.return_queue or np.nan))
        print(f"{steps} steps, return {result:+.3f} dB, {speed:.0f} steps/s")
    envs.close()
    return result


def main(arguments: list[str] | None = None) -> float:
    """Read the options and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    for field in dataclasses.fields(Args):
        kind = argparse.BooleanOptionalAction if field.type == "bool" else None
        options = {"action": kind} if kind else {"type": type(field.default)}
        parser.add_argument(f"--{field.name.replace('_', '-')}", default=field.default, help=" ", **options)
    return train(Args(**vars(parser.parse_args(arguments))))


if __name__ == "__main__":
    main()
