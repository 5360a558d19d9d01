"""Imitation learning on level sets: the agent learns what every tool gains in states where all gains are known.

That is more information a tool run than the one reward a step of reinforcement learning, which continues from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from agents.agent import TEMPERATURE, PolicyError, RecurrentAgent, load_policy, save_policy, with_tools
from agents.encoders import CompactEncoder, EncoderName
from agents.imitation.demonstrations import Demonstrations, check_alike, split_by_photograph
from restore_env.episodes.spectrum import decoded, transposed_places
from restore_env.levels.optima import optima
from restore_env.levels.store import open_levels
from tools_zoo.training.runs import Validation
from tools_zoo.training.settings import NetworkTraining, option
from tools_zoo.training.trainer import Report, digest, train_network

HELD_OUT_EVERY = 20
"""The levels of one of so many photographs are kept for validation."""
FLOOR, REGRET_FLOOR = -10.0, -60.0
"""dB; a value that is lower is learned as the first, and counts as the second where it is chosen."""
RELEVANCE, LEAST_RELEVANCE = 1.5, 0.15
"""A tool that gains so much less than the best, in dB, has the weight 1/e in the loss of values; to it is added the
second."""
OFFSETS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""dB, by which the predictions of a trained agent may be lowered."""
HUBER = 0.25
"""dB, where the loss of values turns from quadratic to linear."""
REGRET_WEIGHT = 1.0
"""Of the expected loss by choosing, beside the loss of values."""
UNIFORM = 0.3
"""Share of the weight of the states after a tool that all tools have; the rest goes by their values."""
SAMPLED_TOOLS = 4
"""States after a tool of a level in a batch of images, which cost more to encode than compact observations."""
NORMALIZATION_LEVELS, VALIDATION_LEVELS, VALIDATION_SECONDS = 1000, 2000, 10.0
GAIN, SHARE = "gain/output", "share/output"
"""Tags: mean return on held-out levels, and the share of (best chain - best constant chain) that is reached."""


class Batch(NamedTuple):
    """States of ``N`` levels: that at the start, those after ``K`` tools, and, in sets beyond their depth, one more."""

    observed: Mapping[str, Tensor]
    """What the encoder observes, by name, ``(N, S, ...)`` each."""
    values: Tensor
    """What each tool gains, at the start with the best that may follow, ``(N, S, A)``; NaN where it is forbidden."""
    tools: Tensor
    """The tools before the states, ``(N, K)``."""
    chains: Tensor | None
    """Number of the chain before the last state, ``(N,)``; its first tool is one of ``tools``. None: no such state."""


@dataclass(frozen=True, kw_only=True)
class ImitationTraining(NetworkTraining):
    """The settings of ``imagerestore train imitation``."""

    MINUTES: ClassVar[float] = 10.0
    LEARNING_RATES: ClassVar[Mapping[str, float]] = {"adam": 1e-3, "adamw": 1e-3, "muon": 1e-3}

    levels: tuple[str, ...] = option((), "level sets to learn from: names or paths", metavar="SET", recorded=False)
    encoder: EncoderName | None = option(
        None, "of the patches (default: that of --init, or compact)", choices=("compact", "combined", "published")
    )
    agent_kind: Literal["q", "logits"] | None = option(
        None, "what the agent predicts: values (default), or a distribution over actions"
    )
    init: str | None = option(None, "agent whose weights training starts from", metavar="NAME|FILE", recorded=False)
    cost_weight: float = option(0.0, "price of computation, reward (dB) per GMAC")
    batch_size: int = option(64, "levels in a batch", values="positive")
    optimizer: Literal["adam", "adamw", "muon"] = option("adamw", "how weights are updated")
    clip_norm: float = option(1.0, "largest norm of a gradient", values="positive")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.levels:
            raise ValueError("name one or more level sets: 'imagerestore levels build' makes them")


def train_imitation(
    settings: ImitationTraining,
    report: Report = lambda _: None,
    agent: RecurrentAgent | None = None,
    trained: bool = False,
) -> tuple[RecurrentAgent, float]:
    """Train an agent on level sets and write it as ``settings.out / "agent.safetensors"``.

    Args:
        settings: what to do.
        report: called about twice a second.
        agent: to train, in place; None: a new one, or ``settings.init``.
        trained: whether ``agent`` is trained already, so that the normalization of its encoder stays.

    Returns:
        The agent, and its mean return on held-out levels.

    Raises:
        LevelError: a set that does not exist, lacks what the encoder needs, or sets that differ.
        PolicyError: an ``init`` with other tools, or with another encoder or kind than was asked for.
    """
    sets = [open_levels(name) for name in settings.levels]
    check_alike(sets)
    splits = [split_by_photograph(levels, HELD_OUT_EVERY, settings.cost_weight) for levels in sets]
    train, held_out = [pair[0] for pair in splits], [pair[1] for pair in splits]
    torch.manual_seed(settings.seed)
    tools = tuple(sets[0].manifest.tools)
    if agent is not None:
        agent.requires_grad_(True)
    elif settings.init is None:
        agent = RecurrentAgent(tools, settings.agent_kind or "q", encoder=settings.encoder or "compact")
    else:
        agent = with_tools(load_policy(settings.init), tools, settings.init).requires_grad_(True)
        for name, asked, own in (
            ("encoder", settings.encoder, agent.extractor.encoder),
            ("agent_kind", settings.agent_kind, agent.kind),
        ):
            if asked not in (None, own):
                raise PolicyError(f"{settings.init} has the {name} {own}: leave out {name} {asked}")
    settings = replace(settings, encoder=agent.extractor.encoder, agent_kind=agent.kind)
    agent.to(settings.device)
    unit = max(train, key=len).unit
    if not trained and settings.init is None:
        _normalize(agent, train, unit, settings.seed)
    sizes = np.array([len(part) for part in train], dtype=float)

    def batch_at(step: int) -> Batch:
        rng = np.random.default_rng([settings.seed, 0, step])
        part = train[int(rng.choice(len(train), p=sizes / sizes.sum()))]
        return batch_of(agent, part, rng.integers(len(part), size=settings.batch_size), rng)

    best = [optima(part.levels, part.levels.tree.depth, settings.cost_weight) for part in held_out]

    def measure() -> Mapping[str, float]:
        agent.eval()
        found, low, high = [], [], []
        for part, bounds in zip(held_out, best, strict=True):
            rows = part.rows[:VALIDATION_LEVELS]
            found.append(returns(agent, replace(part, rows=rows)))
            low.append(bounds.constant_return[rows])
            high.append(bounds.best_return[rows])
        agent.train()
        mean, constant, most = (float(np.concatenate(values).mean()) for values in (found, low, high))
        return {GAIN: mean, SHARE: (mean - constant) / max(most - constant, 1e-9)}

    label = "share of what choosing is worth"
    result, recipe = train_network(
        settings,
        "imitation",
        agent,
        batch_at,
        partial(loss, agent, unit),
        Validation(measure, VALIDATION_SECONDS, curves={SHARE: "held-out levels"}, label=label),
        identity={
            "toolbox": sets[0].manifest.fingerprint,
            "states": sum(len(part) * part.states for part in train),
            "start": None if settings.init is None else digest(agent),
        },
        report=report,
    )
    agent.load_state_dict(result.state)
    agent.eval().requires_grad_(False)
    if agent.kind == "q":
        offset = lower_predictions(agent, held_out, unit)
        measured = {tag.replace("/", "_"): round(value, 4) for tag, value in measure().items()}
        agent.eval()
        recipe = {**recipe, **measured, "offset": offset}
    agent.recipe = recipe | ({"decide": "values"} if agent.kind == "q" and sets[0].manifest.reward == "psnr" else {})
    save_policy(agent, settings.out / "agent.safetensors")
    return agent, float(recipe["gain_output"])


def batch_of(
    agent: RecurrentAgent,
    part: Demonstrations,
    chosen: npt.NDArray[np.int64],
    rng: np.random.Generator | None = None,
) -> Batch:
    """A batch of some of the levels; with ``rng`` it is transposed at random, and of images fewer states are flipped.

    A patch and its mirror images have nearly the same compact observation.
    """
    observes = agent.extractor.features.observes
    tools = part.tools_after_start(chosen, SAMPLED_TOOLS, rng if "image" in observes else None)
    known, chains = part.values[chosen[:, None], np.pad(1 + tools, ((0, 0), (1, 0)))], None
    if part.beyond:
        known = np.concatenate([known, part.beyond_gains[chosen, None]], axis=1)
        chains = torch.from_numpy(part.best_chains[chosen]).to(agent.device)
    values = torch.from_numpy(known).to(agent.device)
    observed: dict[str, Tensor] = {}
    transposed, down, across = (False, 1, 1) if rng is None else (rng.random() < 0.5, *rng.choice([1, -1], 2).tolist())
    for name in observes:
        array = part.observed(name, chosen, tools)
        if name == "image":
            array = array[:, :, ::down, ::across]
            array = array.swapaxes(2, 3) if transposed else array
        elif transposed:
            array = array[..., transposed_places()]
        own = torch.from_numpy(decoded(array) if name == "spectrum" else np.ascontiguousarray(array)).to(agent.device)
        observed[name] = own.permute(0, 1, 4, 2, 3).float().div_(255) if name == "image" else own
    return Batch(observed, values, torch.from_numpy(tools).to(agent.device), chains)


def scores_of(agent: RecurrentAgent, batch: Batch) -> Tensor:
    """The agent's scores in the states of levels, ``(N, S, A + 1)``, each remembering those before it."""
    chains, (n, after_tools), n_tools = batch.chains, batch.tools.shape, len(agent.tools)
    encoded = _encoded(agent, batch).view(n, 1 + after_tools + (chains is not None), -1)
    zeros = encoded.new_zeros(1, n, agent.hidden)
    first, state = agent.step(encoded[:, 0], torch.full((n,), n_tools + 1, device=encoded.device), (zeros, zeros))
    scores = [first[:, None]]
    if after_tools:
        repeated = tuple(part.repeat_interleave(after_tools, dim=1) for part in state)
        last = batch.tools.flatten()
        then, after = agent.step(encoded[:, 1 : 1 + after_tools].flatten(0, 1), last, (repeated[0], repeated[1]))
        scores.append(then.view(n, after_tools, -1))
    if chains is not None:
        if after_tools:  # the chain's first tool leads to the state before
            first_tool = (chains - 1) // n_tools - 1
            places = (batch.tools == first_tool[:, None]).int().argmax(dim=1)
            places += torch.arange(n, device=encoded.device) * after_tools
            state = (after[0][:, places], after[1][:, places])
        scores.append(agent.step(encoded[:, -1], (chains - 1) % n_tools, state)[0][:, None])
    return torch.cat(scores, dim=1)


def _encoded(agent: RecurrentAgent, batch: Batch) -> Tensor:
    """The encoded states of a batch, one after the other: ``(N * S, width)``."""
    encoder, flat = agent.extractor.features, {name: each.flatten(0, 1) for name, each in batch.observed.items()}
    if isinstance(encoder, CompactEncoder):
        return encoder.forward(flat.get("image"), flat["spectrum"])
    return encoder.forward(flat["image"])


def loss(agent: RecurrentAgent, unit: float, batch: Batch) -> Tensor:
    """The loss of values and of choices, averaged over the states; those after a tool count by how good it is.

    Args:
        agent: to train.
        unit: what counts as 1 dB.
        batch: states.
    """
    scores = scores_of(agent, batch).float() / (unit if agent.kind == "q" else 1)
    allowed = ~torch.isnan(batch.values)
    values = with_own_choice(batch, scores.detach())
    real = F.pad((values / unit).nan_to_num(0.0).clamp(min=REGRET_FLOOR), (0, 1))  # stop gains nothing
    known = F.pad((values / unit).nan_to_num(FLOOR).clamp(min=FLOOR), (0, 1))
    may = F.pad(allowed, (0, 1), value=True)
    if agent.kind == "q":
        errors = F.smooth_l1_loss(scores.clamp(min=2 * FLOOR), known, reduction="none", beta=HUBER) * may
        relevance = (torch.exp((known - known.amax(-1, keepdim=True)) / RELEVANCE) + LEAST_RELEVANCE) * may
        own = (relevance * errors).sum(-1) / relevance.sum(-1)
        logits = scores / TEMPERATURE
    else:
        logits = scores
        own = -(F.softmax((known / TEMPERATURE).masked_fill(~may, -torch.inf), -1) * F.log_softmax(logits, -1)).sum(-1)
    chosen = F.softmax(logits.masked_fill(~may, -1e8), -1)
    regret = known.max(-1).values - (chosen * real).sum(-1)
    each = own + REGRET_WEIGHT * regret
    total, after_tools = each[:, 0].mean(), batch.tools.shape[1]
    if after_tools:
        weights = (1 - UNIFORM) * F.softmax(known[:, 0, :-1] / TEMPERATURE, -1) + UNIFORM / len(agent.tools)
        weights = weights.gather(1, batch.tools)
        total = total + ((weights / weights.sum(1, keepdim=True)) * each[:, 1 : 1 + after_tools]).sum(-1).mean()
    if batch.chains is not None:
        total = total + each[:, -1].mean()
    return total


def with_own_choice(batch: Batch, scores: Tensor) -> Tensor:
    """The values of a batch, at the start with what the agent would choose after each tool, and not the best.

    Args:
        batch: its values are those with the best that may follow.
        scores: the agent's, ``(N, S, A + 1)``.
    """
    values, after_tools = batch.values, batch.tools.shape[1]
    if not after_tools:
        return values
    following = F.pad(values[:, 1 : 1 + after_tools], (0, 1))  # stop gains nothing
    choice = scores[:, 1 : 1 + after_tools].masked_fill(following.isnan(), -torch.inf).argmax(-1, keepdim=True)
    best = following.nan_to_num(-torch.inf).amax(-1)
    change = torch.zeros_like(values)
    change[:, 0].scatter_(1, batch.tools, following.gather(-1, choice)[..., 0] - best)
    return values + change


@torch.no_grad()
def lower_predictions(agent: RecurrentAgent, parts: Sequence[Demonstrations], unit: float = 1.0) -> float:
    """Lower all predictions of an agent by the offset of :data:`OFFSETS` with which it gains most, and return that.

    The highest of many predictions is too high on average, so that an agent calls tools that are not worth it.

    Args:
        agent: changed in place.
        parts: levels that it was not trained on.
        unit: what counts as 1 dB.
    """
    bias, gained = agent.head.bias[:-1].clone(), []
    for offset in OFFSETS:
        agent.head.bias[:-1] = bias - offset * unit
        gained.append(float(np.concatenate([returns(agent, part) for part in parts]).mean()))
    best = OFFSETS[int(np.argmax(gained))]
    agent.head.bias[:-1] = bias - best * unit
    return best


@torch.inference_mode()
def returns(agent: RecurrentAgent, part: Demonstrations) -> npt.NDArray[np.float64]:
    """What the agent's chains gain on the levels, ``(levels,)``: its highest score at each step."""
    tree, gained = part.levels.tree, []
    for first in range(0, len(part), 256):
        chosen = np.arange(first, min(first + 256, len(part)))
        batch = batch_of(agent, part, chosen)
        scores = scores_of(agent, batch).masked_fill(F.pad(torch.isnan(batch.values), (0, 1)), -torch.inf)
        actions = scores.argmax(-1).cpu().numpy()
        rows, tool = np.arange(len(chosen)), actions[:, 0]
        node = np.where(tool < tree.n_tools, 1 + tool, 0)
        if part.states > 1:
            then = actions[rows, np.minimum(node, tree.n_tools)]
            goes_on = (node > 0) & (then < tree.n_tools)
            node = np.where(goes_on, node * tree.n_tools + 1 + then, node)
        score = part.levels.score[part.rows[chosen]] - part.cost_weight * part.gmacs
        gained.append(score[rows, node] - score[:, 0])
    return np.concatenate(gained)


def _normalize(agent: RecurrentAgent, parts: Sequence[Demonstrations], unit: float, seed: int) -> None:
    """Set the normalization of an untrained agent's encoder, if it has one, and its values' means."""
    rng, encoder = np.random.default_rng([seed, 1]), agent.extractor.features
    part = max(parts, key=len)
    chosen = rng.permutation(len(part))[:NORMALIZATION_LEVELS]
    batch = batch_of(agent, part, chosen)
    if isinstance(encoder, CompactEncoder):
        encoder.normalize_by(batch.observed["spectrum"].flatten(0, 1))
    if agent.kind == "q":
        with torch.no_grad():
            agent.head.bias.zero_()
            agent.head.bias[:-1] = batch.values[:, 0].nan_to_num(FLOOR * unit).clamp(min=FLOOR * unit).mean(0)
