"""Warm start: learning from what every tool would have gained, before learning from what the chosen one did.

Demonstrations (:mod:`agents.imitation.demonstrations`) note the reward of *all* actions at every step. The agent
learns to prefer
actions by these rewards, which say more per tool run than reinforcement learning's one reward per step; the algorithm
goes on from there.
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
from agents.imitation.demonstrations import EPISODES, Demonstrations, demonstrate, drawing
from restore_env.distortions.protocol import Levels
from restore_env.metrics import psnr, resolve_metric
from restore_env.task import Task

WORST = -3.0
"""Rewards below it, in dB, count as this when the expected one is learnt."""
SPREAD = 0.4
"""Standard deviation of what the tools gain at a step, dB: by it other rewards are brought to the scale of PSNR."""
CHOOSING: Mapping[bool, float] = MappingProxyType({False: 0.5, True: 0.12})
"""Share of the time after that in which it learns to choose, by whether its eyes are calibrated; else it is shown."""
DECAY = 0.1
"""Of the weights while choices are learnt on what calibrated eyes tell: what was not shown is met more soberly."""
CALIBRATION_DRAWS = 64
"""Draws of eight patches from which eyes that need it learn what is usual."""
_FORBIDDEN = -1e8


def imitate(
    agent: RecurrentAgent,
    shown: Demonstrations,
    seconds: float,
    seed: int,
    *,
    learning_rate: float = 1e-3,
    batch_size: int = 32,
    temperature: float = 0.3,
    unit: float = 1.0,
    report: Callable[[float], None] = lambda _: None,
) -> None:
    """Train the agent, in place, to choose what pays most at each step, for so many seconds.

    The loss is the cross-entropy to the softmax of the rewards at first, by and by the reward that is to be expected;
    an agent of kind "q" is taught the rewards themselves (Huber loss), the beginning of their sums that it goes on to
    learn. Images are flipped and turned at random, which leaves the rewards nearly as they are. Settled eyes look at
    every image once, as it is, and do not learn here: a step of what is left to learn takes a fraction of the time.

    Args:
        agent: of either kind.
        shown: what to learn from.
        seconds: how long; the learning rate falls to zero over it.
        seed: of the batches.
        learning_rate: AdamW's, after a short warm-up.
        batch_size: episodes.
        temperature: of the softmax, dB.
        unit: the reward that counts as 1 dB; for an agent of kind "q" rewards are what they are.
        report: called with the share of the time that has passed.
    """
    rng, eyes, began = np.random.default_rng(seed), agent.extractor.features, time.monotonic()
    agent.train().requires_grad_(True)
    told = None
    if eyes.calibrated:
        eyes.requires_grad_(False)
        with torch.autocast(agent.device.type, enabled=False):
            told = torch.cat([_look(agent, shown.images[i : i + EPISODES]) for i in range(0, len(shown), EPISODES)])

    def loss_at(share: float) -> Tensor:
        rows = rng.integers(len(shown), size=batch_size)
        if told is None:
            seen = _look(agent, _turned(shown.images[rows], int(rng.integers(4)), bool(rng.integers(2))))
        else:
            seen = told[torch.from_numpy(rows).to(told.device)]
        logits = sequence_logits(agent, seen, shown.last_actions[rows], shown.masks[rows])
        rewards = torch.from_numpy(np.where(shown.masks[rows], shown.rewards[rows], _FORBIDDEN)).float().to(logits)
        if agent.kind == "q":
            return F.smooth_l1_loss(logits, rewards)  # zero where both are forbidden
        logits, rewards = logits.flatten(0, 1), rewards.flatten(0, 1) / unit
        likeness = F.cross_entropy(logits, F.softmax(rewards / temperature, -1))
        expected = (F.softmax(logits, -1) * rewards.clamp(min=WORST)).sum(-1).mean()
        return (1 - share) * likeness - share * expected

    weights = [parameter for parameter in agent.parameters() if parameter.requires_grad]
    left = max(seconds / 2, seconds - (time.monotonic() - began))
    _descend(weights, loss_at, left, learning_rate, report, DECAY if eyes.calibrated else 0.0)
    agent.eval().requires_grad_(False)


def pretrain_encoder(
    agent: RecurrentAgent,
    task: Task,
    seconds: float,
    seed: int,
    *,
    extra_tasks: Sequence[tuple[Task, float]] = (),
    learning_rate: float = 1e-3,
    batch_size: int = 64,
    report: Callable[[float], None] = lambda _: None,
) -> None:
    """Train the agent's eyes, in place, to tell how blurred, noisy and compressed a patch is, for so many seconds.

    What pays hangs on that, and patches that tell it need no tool to be run. In mixtures of one severity what is strong
    tells that the rest is weak; who has seen single distortions beside them does not guess one from the others.

    Args:
        agent: of either kind.
        task: whose patches; by the protocol's distortions.
        seconds: how long; the learning rate falls to zero over it.
        seed: of the patches.
        extra_tasks: other tasks with the shares of what is looked at that are theirs, as of :func:`demonstrate`.
        learning_rate: AdamW's, after a short warm-up.
        batch_size: patches.
        report: called with the share of the time that has passed.
    """
    began = time.monotonic()
    looked_at = [(replace(other, draws="host"), share) for other, share in extra_tasks]
    draw = drawing(replace(task, draws="host"), looked_at, np.random.default_rng(seed))
    eyes = agent.extractor.features.train().requires_grad_(True)
    tell = torch.nn.Linear(agent.extractor.features.width, 3).to(agent.device)

    def patches(count: int) -> tuple[Tensor, list[tuple[float, float, float]]]:
        starts = draw(count)
        images = torch.from_numpy(np.stack([start.degraded for start in starts])).to(agent.device)
        strengths = [
            Levels(**{key: start.distortion[key] for key in Levels.__dataclass_fields__}).strengths for start in starts
        ]
        return images.permute(0, 3, 1, 2).float().div_(255), strengths

    if isinstance(eyes, SpectralEncoder):
        eyes.calibrate(torch.cat([patches(8)[0] for _ in range(CALIBRATION_DRAWS)]))

    def loss_at(_: float) -> Tensor:
        images, strengths = patches(batch_size)
        told = tell(eyes(images))
        return F.smooth_l1_loss(told.float(), torch.tensor(strengths).to(agent.device), beta=0.5)

    left = max(seconds / 2, seconds - (time.monotonic() - began))
    _descend([*eyes.parameters(), *tell.parameters()], loss_at, left, learning_rate, report)
    eyes.eval().requires_grad_(False)


def learn_from_oracle(
    agent: RecurrentAgent,
    task: Task,
    seconds: float,
    seed: int,
    *,
    plays: bool,
    precision: Literal["fp32", "bf16"] = "fp32",
    extra_tasks: Sequence[tuple[Task, float]] = (),
    report: Callable[[float], None] = lambda _: None,
) -> None:
    """Let an agent, in place, be shown what pays and learn it (:data:`CHOOSING` says for how long each).

    One that knows nothing yet first learns to see (:func:`pretrain_encoder`), if distortions' strengths are known.

    Args:
        agent: learns.
        task: what is to be learnt.
        seconds: how long.
        seed: of starts, exploration and batches.
        plays: the agent knows something already, so that half of the episodes shown are its own.
        precision: bf16 is faster only where the hardware has it.
        extra_tasks: other tasks with the shares of what is shown that are theirs, as of :func:`demonstrate`.
        report: called with the share of the time that has passed.
    """
    began, eyes = time.monotonic(), agent.extractor.features
    looking = 0.0 if plays or not _has_levels(task) else eyes.seeing * seconds
    autocast = torch.autocast(agent.device.type, torch.bfloat16, precision == "bf16", cache_enabled=False)
    with autocast, torch.enable_grad():  # no cache: weights change inside
        if looking:
            known = [(other, share) for other, share in extra_tasks if _has_levels(other)]
            pretrain_encoder(
                agent, task, looking, seed, extra_tasks=known, report=lambda share: report(share * looking / seconds)
            )

        choosing = (seconds - looking) * CHOOSING[bool(eyes.calibrated)]
        showing = seconds - looking - choosing
        shown = demonstrate(
            task,
            showing,
            seed,
            lambda share: report((looking + share * showing) / seconds),
            agent if plays else None,
            extra_tasks,
        )
        choosing = max(choosing, began + seconds - time.monotonic())  # what the most demonstrations left over
        unit = 1.0 if resolve_metric(task.reward) is psnr else max(shown.spread, 1e-12) / SPREAD
        imitate(
            agent, shown, choosing, seed, unit=unit, report=lambda share: report(1 - (1 - share) * choosing / seconds)
        )


def _descend(
    weights: Sequence[torch.nn.Parameter],
    loss_at: Callable[[float], Tensor],
    seconds: float,
    learning_rate: float,
    report: Callable[[float], None],
    decay: float = 0.0,
) -> None:
    """Lower a loss, which is told the share of the time that has passed, for so many seconds; one step at least."""
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
    """Whether the strengths of its distortions are known: not of one's own, nor of pairs."""
    return task.distortion is None and "blur_sigma" in task.sampler().draw(0).distortion


def _look(agent: RecurrentAgent, images: npt.NDArray[np.uint8]) -> Tensor:
    """What the agent's eyes tell of ``(E, T, P, P, 3)`` images: ``(E, T, width)``."""
    pixels = torch.from_numpy(images).to(agent.device).flatten(0, 1).permute(0, 3, 1, 2).float().div_(255)
    told: Tensor = agent.extractor.features(pixels)
    return told.view(*images.shape[:2], -1)


def sequence_logits(
    agent: RecurrentAgent, seen: Tensor, last_actions: npt.NDArray[np.int64], masks: npt.NDArray[np.bool_]
) -> Tensor:
    """The agent's logits along whole episodes: what its eyes told, ``(E, T, width)``, to ``(E, T, A)``."""
    n, length = seen.shape[:2]
    previous = torch.from_numpy(last_actions).to(agent.device).flatten()
    features = agent.extractor.join(seen.flatten(0, 1), previous)
    zeros = features.new_zeros(1, n, HIDDEN)
    latent, _ = agent.lstm(features.reshape(n, length, -1).transpose(0, 1), (zeros, zeros))
    logits: Tensor = agent.head(latent.transpose(0, 1)).float()
    return logits.masked_fill(~torch.from_numpy(masks).to(logits.device), _FORBIDDEN)


def _turned(images: npt.NDArray[np.uint8], turns: int, flip: bool) -> npt.NDArray[np.uint8]:
    turned = np.rot90(images, turns, axes=(2, 3))
    return np.ascontiguousarray(turned[:, :, :, ::-1] if flip else turned)
