"""Joint training: the tools learn from the final images of the toolchains that a policy composes.

A batch of distorted patches goes through chains of tools, as the policy chooses them; the error of each final image
goes back through all of its tools. A tool's gradient is averaged over its uses in the batch, and all tools step
together; a tool that no chain used stays as it is. Source: Yu et al., CVPR 2018, section 3.3 (algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from restore_env.distortions.mixed import Distortion, draw_distortion
from restore_env.distortions.protocol import check_severity
from restore_env.episodes.observation import observe, observed_patch
from restore_env.episodes.transition import StepRules
from restore_env.images.sources import ImageSource
from restore_env.patches import PatchSampler
from restore_env.policy import Policy
from restore_env.toolbox import Toolbox, usable_device
from tools_zoo.backends.network_tool import NetworkTool
from tools_zoo.catalog import SPECS, tools_of
from tools_zoo.networks import ToolNetwork, last_layer, zeroed
from tools_zoo.toolboxes import ToolWeights, passes, read_tools, tool_network, toolbox_folder, update_toolbox
from tools_zoo.training.distributed import by_first, count, total
from tools_zoo.training.losses import LOSSES, PixelBatch, as_tensor
from tools_zoo.training.runs import Validation, split_images
from tools_zoo.training.settings import RestorationTraining, option
from tools_zoo.training.tools import MOST_DRAWS, write_tools_card
from tools_zoo.training.trainer import Report, TrainingResult, digest, train_network

FOLLOW = -1
"""In a batch's explored actions: follow the policy here."""
VALIDATION_PATCHES, VALIDATION_SECONDS = 96, 20.0
IDENTITY = "identity"
"""Among initial weights: the last layer starts at zero, so that the tool returns its input."""

ChainBatch = tuple[PixelBatch, PixelBatch, npt.NDArray[np.int64]]
"""Inputs and targets, RGB ``(N, P, P, 3)``, and explored actions ``(N, length)``, mostly :data:`FOLLOW`."""


@dataclass(frozen=True, kw_only=True)
class JointTraining(RestorationTraining):
    """The settings of joint training. The budget is for all rounds together."""

    LEARNING_RATES: ClassVar[Mapping[str, float]] = MappingProxyType({"adam": 5e-4, "muon": 1e-3})

    toolbox: str = option("default", "what to start from: shipped name or folder", recorded=False)
    initial_weights: tuple[str, ...] = option(
        (),
        f"tools that start as copies of others, or, with {IDENTITY!r}, with a last layer of zeros: these return their"
        " input, so that a chain that grows by them loses nothing",
        metavar="TOOL=OTHER",
    )
    frozen_tools: tuple[str, ...] = option((), "tools that are not trained", metavar="TOOL")
    intermediate_weight: float = option(
        0.0,
        "weight of the intermediate images in the loss, so that chains may end anywhere (the paper has 0)",
        values="share",
    )
    severity: str = option(
        "mixed",
        "distortions: mixed, mild, moderate, severe, light, any, single; in numbers, as 12-13; several, as any+single",
    )
    saturation_prob: float = option(
        0.0, "share of the patches, in validation, too, of which a part is white or black", values="share"
    )
    chains: Literal["policy", "distortion"] = option(
        "policy",
        "which chains: those of the policy; or, of each patch's distortion, the tools of its parts, the strongest first"
        " and the last one until the chain is full",
    )
    chain_length: int = option(3, "tools in a chain at most", values="positive")
    exploration: float = option(0.1, "share of random tools", values="share")
    rounds: int = option(
        1,
        "rounds; after each the policy may be refreshed and the learning rate starts anew",
        values="positive",
        recorded=False,
    )
    batch_size: int = option(32, "chains in a batch", values="positive")
    patch_size: int = option(63, "pixels of the distorted patches", values="positive")
    observe: Literal["uint8", "float32"] = option("uint8")
    """What the policy observes, as the environment's ``dtype``."""
    policy: str | None = option(None, "the policy that picks the chains: shipped name or file")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_severity(self.severity)
        names: set[str] = set()
        for pair in self.initial_weights:
            name, _, other = pair.partition("=")
            if not (name and other):
                raise ValueError(f"initial_weights: {pair!r} is not of the form TOOL=OTHER")
            if name in names:
                raise ValueError(f"initial_weights: {name} is named twice")
            names.add(name)
        if self.out.resolve() == self.folder.resolve():
            raise ValueError(f"{self.out}: is the toolbox to start from; choose another folder for the trained one")

    @property
    def folder(self) -> Path:
        """The folder of the toolbox to start from."""
        return toolbox_folder(self.toolbox)


Refresh = Callable[[Toolbox, int], Policy]
"""Returns the policy that fits the toolbox after a round; called with the round's number."""


class ToolChains(nn.Module):
    """A toolbox as one network: images in, through the chains that a policy picks, images out.

    Args:
        networks: the tools, in the order of their actions.
        policy: picks them, from the observations that the environment would give.
        length: tools in a chain at most.
        image_type: of what it observes, as the environment's ``dtype``.
    """

    def __init__(
        self,
        networks: Mapping[str, ToolNetwork],
        policy: Policy,
        length: int,
        image_type: Literal["uint8", "float32"] = "uint8",
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(dict(networks))
        self.image_type = image_type
        self.use_policy(policy)
        self.toolbox = Toolbox(
            [NetworkTool(name, net, net.macs_per_pixel, net.receptive_radius) for name, net in networks.items()],
            next(parameter.device for network in networks.values() for parameter in network.parameters()),
        )
        self.rules = StepRules(self.toolbox, length)
        self.uses = np.zeros(len(networks), dtype=np.int64)
        """How often each tool was used in the latest batch, by all processes of a training together."""
        self._images = 1
        for action, network in enumerate(networks.values()):
            for parameter in filter(lambda one: one.requires_grad, network.parameters()):
                parameter.register_hook(partial(self._averaged, action))  # type: ignore[no-untyped-call]

    def use_policy(self, policy: Policy) -> None:
        """Let this policy pick the chains from now on; its weights are none of what is trained here."""
        self._picks = policy.predict

    def forward(self, images: Tensor, explored: npt.NDArray[np.int64] | None = None) -> Tensor:
        """Restore ``(N, 3, P, P)``, P the policy's patch size; ``explored`` ``(N, length)`` overrules the policy."""
        return self.steps(images, explored)[-1]

    def steps(self, images: Tensor, explored: npt.NDArray[np.int64] | None = None) -> list[Tensor]:
        """The images after each step of the chains, as :meth:`forward` makes them; a chain that stopped stays."""
        after: list[Tensor] = []
        n, rules = len(images), self.rules
        actions = np.full(n, rules.no_action, dtype=np.int64)
        over, state = np.zeros(n, dtype=np.bool_), None
        mask = rules.action_mask(np.ones(n, dtype=np.int64))
        self.uses[:] = 0
        self._images = n
        for step in range(rules.max_steps):
            if explored is not None and (explored != FOLLOW).all():
                chosen = explored[:, step]  # the policy is not asked
            else:
                with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
                    patches = {"image": observed_patch(images.detach(), self.image_type)}
                    observation = observe(patches, actions, mask, np.full(n, rules.max_steps - step, dtype=np.int64))
                    chosen, state = self._picks(observation, state, np.full(n, step == 0), deterministic=True)
                if explored is not None:
                    chosen = np.where(explored[:, step] == FOLLOW, chosen, explored[:, step])
            actions = np.where(over, self.toolbox.stop, chosen)
            used = actions[actions != self.toolbox.stop]
            over = rules.is_last(actions, step)
            images = self.toolbox.apply(images, actions)
            self.uses += np.bincount(used, minlength=len(self.toolbox))
            after.append(images)
        if self.training:
            self._images, self.uses[:] = n * count(), total(self.uses)
        return after

    def _averaged(self, action: int, gradient: Tensor) -> Tensor:
        """From a mean over the batch's images to a mean over the tool's uses."""
        return gradient * (self._images / max(1, int(self.uses[action])))


def train_jointly(
    settings: JointTraining,
    source: ImageSource,
    policy: Policy,
    refresh: Refresh | None = None,
    report: Report = lambda _: None,
) -> list[TrainingResult]:
    """Train the tools of a toolbox on a policy's chains and write them into ``settings.out`` after each round.

    A run that was interrupted goes on when it is repeated.

    Args:
        settings: what to do.
        source: clean photographs.
        policy: chooses the chains of the first round.
        refresh: gives the policy of the next round; None: the policy stays.
        report: called about twice a second.

    Returns:
        What each round gave.
    """
    usable_device(settings.device)
    start = initial_weights(settings)
    networks = {name: tool_network(weights).to(settings.device) for name, weights in start.items()}
    for name, network in networks.items():
        network.requires_grad_(name not in settings.frozen_tools)
    chains = ToolChains(networks, policy, settings.chain_length, settings.observe)
    results: list[TrainingResult] = []
    for number in range(settings.rounds):
        result, recipe = _train_round(settings, number, chains, source, report)
        results.append(result)
        steps, seconds = sum(each.steps for each in results), sum(each.seconds for each in results)
        recipe |= {"joint": True, "rounds": len(results), "steps": steps, "seconds": round(seconds, 1)}
        by_first(partial(_write, settings.out, _trained(chains, start, recipe)))
        if refresh is not None:
            chains.use_policy(refresh(chains.toolbox, number))
    return results


def initial_weights(settings: JointTraining) -> dict[str, ToolWeights]:
    """The tools as they start: those of the toolbox, or what ``settings.initial_weights`` says.

    Raises:
        ValueError: a tool that the toolbox does not have, or all tools are frozen.
    """
    tools = {tool.name: tool for tool in read_tools(settings.folder)}
    copies = dict(pair.split("=", 1) for pair in settings.initial_weights)
    others = [name for name in copies.values() if name != IDENTITY]
    for what, names in (("initial_weights", [*copies, *others]), ("frozen_tools", settings.frozen_tools)):
        for name in names:
            if name not in tools:
                raise ValueError(f"unknown tool {name!r} in {what}: choose from {', '.join(tools)}")
    if set(settings.frozen_tools).issuperset(tools):
        raise ValueError(f"frozen_tools {' '.join(settings.frozen_tools)}: nothing is left to learn")
    stuck = [name for name, other in copies.items() if other == IDENTITY and name in settings.frozen_tools]
    if stuck:
        raise ValueError(f"frozen_tools {stuck[0]}: it starts as the identity and would stay that; train it")
    start = {name: tools[name] for name in tools}
    for name, other in copies.items():
        if other != IDENTITY:
            start[name] = replace(tools[other], name=name)
            continue
        network = tool_network(tools[name])
        zeroed(last_layer(network))
        recipe = {**tools[name].recipe, "last_layer": "zeros"}
        start[name] = replace(tools[name], state=network.state_dict(), recipe=recipe)
    return start


def _train_round(
    settings: JointTraining, number: int, chains: ToolChains, source: ImageSource, report: Report
) -> tuple[TrainingResult, dict[str, Any]]:
    kept, held_out = split_images(len(source))
    by_distortion = settings.chains == "distortion"
    draw = _draw_for(settings, chains) if by_distortion else partial(_draw, settings)
    cut = partial(
        PatchSampler,
        source,
        patch_size=settings.patch_size,
        draw_distortion=draw,
        saturation_prob=settings.saturation_prob,
    )
    sampler = cut(indices=kept, device=settings.draw_device)
    *pairs, held = cut(indices=held_out).described_batch(np.random.default_rng([settings.seed, 1]), VALIDATION_PATCHES)
    tools = len(chains.toolbox)

    def batch_at(step: int) -> ChainBatch:
        rng = np.random.default_rng([settings.seed, number, 0, step])
        explored = rng.integers(0, tools, (settings.batch_size, settings.chain_length))
        explored[rng.random(explored.shape) >= settings.exploration] = FOLLOW
        *batch, distortions = sampler.described_batch(rng, settings.batch_size)
        if by_distortion:
            named = chains_of(distortions, chains)
            explored = np.where(explored == FOLLOW, named, explored)
        return batch[0], batch[1], explored

    def restore(images: Tensor) -> Tensor:
        restored: Tensor = chains(images, chains_of(held, chains) if by_distortion else None)
        return restored

    def objective(batch: ChainBatch) -> Tensor:
        distorted, clean = (as_tensor(side, settings.device) for side in batch[:2])
        losses = [LOSSES[settings.loss](images, clean) for images in chains.steps(distorted, batch[2])]
        intermediate = sum(losses[:-1], losses[-1].new_zeros(()))
        return losses[-1] + settings.intermediate_weight * intermediate / max(1, len(losses) - 1)

    budget = settings.budget
    return train_network(
        replace(
            settings,
            learning_rate=settings.highest_rate / (number + 1) ** 0.5,
            minutes=budget.minutes and budget.minutes / settings.rounds,
            steps=budget.steps and max(1, budget.steps // settings.rounds),
        ),
        f"round-{number + 1}",
        chains,
        batch_at,
        objective,
        Validation.of_network(chains, (pairs[0], pairs[1]), settings.device, VALIDATION_SECONDS, restore),
        parts=list(chains.networks.values()),
        identity={"round": number, "images": len(kept), "start": digest(chains)},
        report=report,
    )


def _draw(settings: JointTraining, rng: np.random.Generator) -> Distortion:
    return draw_distortion(settings.severity, rng)


def _draw_for(settings: JointTraining, chains: ToolChains) -> Callable[[np.random.Generator], Distortion]:
    """Draws distortions in whose chain a tool learns."""
    unknown = [name for name in SPECS if name not in chains.networks]
    if unknown:
        raise ValueError(f"chains of the distortion need the tool {unknown[0]!r}, which the toolbox does not have")
    learning = set(SPECS).difference(settings.frozen_tools)

    def draw(rng: np.random.Generator) -> Distortion:
        for _ in range(MOST_DRAWS):
            drawn = _draw(settings, rng)
            if learning.intersection(spec.name for spec in tools_of(drawn.strengths)[: settings.chain_length]):
                return drawn
        raise ValueError(f"severity {settings.severity!r} has no distortion for {', '.join(sorted(learning))}")

    return draw


def chains_of(distortions: Sequence[Distortion], chains: ToolChains) -> npt.NDArray[np.int64]:
    """The chains of distortions, strongest part first, the last tool repeated: ``(N, length)``."""
    length = chains.rules.max_steps
    named = [[chains.toolbox.action(spec.name) for spec in tools_of(each.strengths)] for each in distortions]
    return np.array([(chain + chain[-1:] * length)[:length] for chain in named], dtype=np.int64)


def _write(folder: Path, tools: Sequence[ToolWeights]) -> None:
    update_toolbox(folder, tools)
    write_tools_card(folder)


def _trained(chains: ToolChains, start: Mapping[str, ToolWeights], recipe: Mapping[str, Any]) -> list[ToolWeights]:
    """The tools with their recipes; one that did not change keeps its own."""
    tools = []
    for name, network in chains.networks.items():
        state = {key: value.detach().cpu() for key, value in network.state_dict().items()}
        if all(torch.equal(value, start[name].state[key]) for key, value in state.items()):
            tools.append(start[name])
        else:
            earlier = passes(start[name].recipe)
            tools.append(ToolWeights(name, start[name].network, state, {**recipe, "earlier": earlier}))
    return tools
