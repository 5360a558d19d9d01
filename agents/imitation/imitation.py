"""Imitation learning: trains an agent on the rewards of all actions, before reinforcement learning.

Demonstrations (:mod:`agents.imitation.demonstrations`) have the reward of *every* action at every step. That is more
information per tool run than the one reward per step of reinforcement learning, which continues from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from agents.agent import HIDDEN, RecurrentAgent
from agents.encoders import SpectralEncoder
from agents.imitation.demonstrations import EPISODES, Demonstrations, demonstrate, start_sampler
from restore_env.distortions.protocol import OTHERS, STRENGTHS, Levels
from restore_env.metrics import psnr
from restore_env.resolve import resolve_metric, task_sampler
from restore_env.task import Task

MIN_REWARD = -3.0
"""dB; lower rewards are clamped to it in the expected reward."""
SPREAD = 0.4
"""Standard deviation of PSNR rewards between tools, dB; other rewards are scaled to it."""
IMITATION_SHARE: Mapping[bool, float] = MappingProxyType({False: 0.5, True: 0.12})
"""Share of the time after pretraining for imitation, by whether the encoder is frozen; the rest is for
demonstrations."""
DECAY = 0.1
"""Weight decay with a frozen encoder, against overfitting to the demonstrations."""
LEARNING_RATE = 1e-3
"""AdamW's, after a short warm-up; falls to zero over the time."""
TEMPERATURE = 0.3
"""Of the softmax of the rewards, dB."""
BATCH_EPISODES, BATCH_PATCHES = 32, 64
CALIBRATION_DRAWS = 64
"""Batches of eight patches from which the encoder is calibrated."""
_FORBIDDEN = -1e8


def imitate(
    agent: RecurrentAgent,
    demonstrations: Demonstrations,
    seconds: float,
    seed: int,
    *,
    learning_rate: float = LEARNING_RATE,
    unit: float = 1.0,
    report: Callable[[float], None] = lambda _: None,
) -> None:
    """Train the agent, in place, to choose the action with the highest reward at each step, for so many seconds.

    The loss moves from the cross-entropy to the softmax of the rewards to the negative expected reward. For an agent of
    kind "q" it is the Huber loss to the rewards themselves. Images are flipped and rotated at random, which hardly
    changes the rewards. A calibrated encoder is frozen: it encodes every image once, without flips and rotations.

    Args:
        agent: of either kind.
        demonstrations: the training data.
        seconds: how long.
        seed: of the batches.
        learning_rate: see :data:`LEARNING_RATE`.
        unit: the reward that counts as 1 dB; for an agent of kind "q" rewards are what they are.
        report: called with the elapsed share of the time.
    """
    rng, encoder, began = np.random.default_rng(seed), agent.extractor.features, time.monotonic()
    agent.train().requires_grad_(True)
    encoded_once = None
    if encoder.calibrated:
        encoder.requires_grad_(False)
        chunks = [demonstrations.images[i : i + EPISODES] for i in range(0, len(demonstrations), EPISODES)]
        with torch.autocast(agent.device.type, enabled=False):
            encoded_once = torch.cat([_encode(agent, images) for images in chunks])

    def loss_at(share: float) -> Tensor:
        rows = rng.integers(len(demonstrations), size=BATCH_EPISODES)
        if encoded_once is None:
            images = np.rot90(demonstrations.images[rows], int(rng.integers(4)), axes=(2, 3))
            images = images[:, :, :, ::-1] if rng.integers(2) else images
            encoded = _encode(agent, np.ascontiguousarray(images))
        else:
            encoded = encoded_once[torch.from_numpy(rows).to(encoded_once.device)]
        masks = demonstrations.masks[rows]
        logits = _sequence_logits(agent, encoded, demonstrations.last_actions[rows], masks)
        rewards = torch.from_numpy(np.where(masks, demonstrations.rewards[rows], _FORBIDDEN)).float().to(logits)
        if agent.kind == "q":
            return F.smooth_l1_loss(logits, rewards)  # zero where both are forbidden
        logits, rewards = logits.flatten(0, 1), rewards.flatten(0, 1) / unit
        cross_entropy = F.cross_entropy(logits, F.softmax(rewards / TEMPERATURE, -1))
        expected = (F.softmax(logits, -1) * rewards.clamp(min=MIN_REWARD)).sum(-1).mean()
        return (1 - share) * cross_entropy - share * expected

    weights = [parameter for parameter in agent.parameters() if parameter.requires_grad]
    left = max(seconds / 2, seconds - (time.monotonic() - began))
    _descend(weights, loss_at, left, learning_rate, report, DECAY if encoder.calibrated else 0.0)
    agent.eval().requires_grad_(False)


def pretrain_encoder(
    agent: RecurrentAgent,
    task: Task,
    seconds: float,
    seed: int,
    *,
    extra_tasks: Sequence[tuple[Task, float]] = (),
    report: Callable[[float], None] = lambda _: None,
) -> None:
    """Train the agent's encoder, in place, to estimate a patch's blur, noise and JPEG strengths, for so many seconds.

    The best tool depends on them, and no tool has to be run for these labels. In mixtures of one severity the three are
    correlated; extra tasks of single distortions avoid that the encoder infers one from the others.

    Args:
        agent: of either kind.
        task: of the patches; with the protocol's distortions.
        seconds: how long.
        seed: of the patches.
        extra_tasks: other tasks with their shares, as in :func:`demonstrate`.
        report: called with the elapsed share of the time.
    """
    began = time.monotonic()
    on_host = [(replace(other, draws="host"), share) for other, share in extra_tasks]
    draw = start_sampler(replace(task, draws="host"), on_host, np.random.default_rng(seed))
    encoder = agent.extractor.features.train().requires_grad_(True)
    estimator = torch.nn.Linear(agent.extractor.features.width, 3).to(agent.device)

    def patches(count: int) -> tuple[Tensor, list[tuple[float, float, float]]]:
        starts = draw(count)
        images = torch.from_numpy(np.stack([start.distorted for start in starts])).to(agent.device)
        strengths = [Levels(*(start.distortion[key] for key in STRENGTHS)).strengths for start in starts]
        return images.permute(0, 3, 1, 2).float().div_(255), strengths

    if isinstance(encoder, SpectralEncoder):
        encoder.calibrate(torch.cat([patches(8)[0] for _ in range(CALIBRATION_DRAWS)]))

    def loss_at(_: float) -> Tensor:
        images, strengths = patches(BATCH_PATCHES)
        estimates = estimator(encoder(images))
        return F.smooth_l1_loss(estimates.float(), torch.tensor(strengths).to(agent.device), beta=0.5)

    left = max(seconds / 2, seconds - (time.monotonic() - began))
    _descend([*encoder.parameters(), *estimator.parameters()], loss_at, left, LEARNING_RATE, report)
    encoder.eval().requires_grad_(False)


def learn_from_oracle(
    agent: RecurrentAgent,
    task: Task,
    seconds: float,
    seed: int,
    *,
    pretrained: bool,
    precision: Literal["fp32", "bf16"] = "fp32",
    extra_tasks: Sequence[tuple[Task, float]] = (),
    report: Callable[[float], None] = lambda _: None,
) -> None:
    """Train an agent, in place, by imitation of a greedy oracle: collect demonstrations, then learn from them.

    The encoder of an untrained agent is pretrained first (:func:`pretrain_encoder`), if the distortions' strengths are
    known. :data:`IMITATION_SHARE` divides the rest of the time.

    Args:
        agent: to train.
        task: of the episodes.
        seconds: how long.
        seed: of starts, exploration and batches.
        pretrained: the agent is trained already; it plays half of the episodes itself.
        precision: bf16 is faster only where the hardware has it.
        extra_tasks: other tasks with their shares, as in :func:`demonstrate`.
        report: called with the elapsed share of the time.
    """
    began, encoder = time.monotonic(), agent.extractor.features
    pretraining = 0.0 if pretrained or not _has_levels(task) else encoder.pretrain_share * seconds
    autocast = torch.autocast(agent.device.type, torch.bfloat16, precision == "bf16", cache_enabled=False)

    def part(done: float, length: float) -> Callable[[float], None]:
        return lambda share: report((done + share * length) / seconds)

    with autocast, torch.enable_grad():  # no cache: weights change inside
        if pretraining:
            known = [(other, share) for other, share in extra_tasks if _has_levels(other)]
            pretrain_encoder(agent, task, pretraining, seed, extra_tasks=known, report=part(0, pretraining))
        imitating = (seconds - pretraining) * IMITATION_SHARE[bool(encoder.calibrated)]
        collecting = seconds - pretraining - imitating
        player = agent if pretrained else None
        demonstrations = demonstrate(task, collecting, seed, part(pretraining, collecting), player, extra_tasks)
        imitating = max(imitating, began + seconds - time.monotonic())  # collecting ends early at MOST_EPISODES
        unit = 1.0 if resolve_metric(task.reward) is psnr else max(demonstrations.reward_std, 1e-12) / SPREAD
        imitate(agent, demonstrations, imitating, seed, unit=unit, report=part(seconds - imitating, imitating))


def _descend(
    weights: Sequence[torch.nn.Parameter],
    loss_at: Callable[[float], Tensor],
    seconds: float,
    learning_rate: float,
    report: Callable[[float], None],
    decay: float = 0.0,
) -> None:
    """Minimize a loss, a function of the elapsed share of the time, for so many seconds; at least one step."""
    matrices, vectors = ([weight for weight in weights if (weight.ndim > 1) is wide] for wide in (True, False))
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate)
    began, share, step = time.monotonic(), 0.0, 0
    while share < 1:
        step += 1
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - share) * min(1.0, step / 50)
        loss = loss_at(share)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        share = min(1.0, (time.monotonic() - began) / max(seconds, 1e-9))
        report(share)


def _has_levels(task: Task) -> bool:
    """Whether the distortions' strengths are known: not for an own distortion or image pairs."""
    return (
        task.distortion is None
        and task.severity not in OTHERS
        and STRENGTHS[0] in task_sampler(task).draw(0).distortion
    )


def _encode(agent: RecurrentAgent, images: npt.NDArray[np.uint8]) -> Tensor:
    """Encode ``(E, T, P, P, 3)`` images: ``(E, T, width)``."""
    pixels = torch.from_numpy(images).to(agent.device).flatten(0, 1).permute(0, 3, 1, 2).float().div_(255)
    encoded: Tensor = agent.extractor.features(pixels)
    return encoded.view(*images.shape[:2], -1)


def _sequence_logits(
    agent: RecurrentAgent, encoded: Tensor, last_actions: npt.NDArray[np.int64], masks: npt.NDArray[np.bool_]
) -> Tensor:
    """The agent's logits ``(E, T, A)`` along whole episodes of encoded images ``(E, T, width)``."""
    n, length = encoded.shape[:2]
    previous = torch.from_numpy(last_actions).to(agent.device).flatten()
    features = agent.extractor.combine(encoded.flatten(0, 1), previous)
    zeros = features.new_zeros(1, n, HIDDEN)
    latent, _ = agent.lstm(features.reshape(n, length, -1).transpose(0, 1), (zeros, zeros))
    logits: Tensor = agent.head(latent.transpose(0, 1)).float()
    return logits.masked_fill(~torch.from_numpy(masks).to(logits.device), _FORBIDDEN)
