"""Joint training: the tools learn from the final images of the toolchains that a policy composes.

A batch of distorted patches goes through chains of tools, as the policy chooses them; the error of each final image
goes back through all of its tools. A tool's gradient is averaged over its uses in the batch, and all tools step
together; a tool that no chain used stays as it is. Source: Yu et al., CVPR 2018, section 3.3 (algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from restore_env.distortions.protocol import check_severity, draw_levels
from restore_env.episodes.observation import observe, observed_patch
from restore_env.episodes.transition import StepRules
from restore_env.images.sources import ImageSource
from restore_env.metrics import psnr
from restore_env.patches import PatchSampler
from restore_env.policy import Policy
from restore_env.task import check_draws
from restore_env.toolbox import Toolbox, usable_device
from tools_zoo.backends.network_tool import NetworkTool
from tools_zoo.networks import NETWORKS, ToolNetwork
from tools_zoo.toolboxes import ToolWeights, passes, read_manifest, read_tool, update_toolbox
from tools_zoo.training.cards import source_version
from tools_zoo.training.curves import draw_run
from tools_zoo.training.initial_weights import begun
from tools_zoo.training.patches import drawing, drawn_on
from tools_zoo.training.run_log import RunLog
from tools_zoo.training.settings import Budget, Schedule
from tools_zoo.training.tools import CURVES, INPUT, OUTPUT, split_images, write_tools_card
from tools_zoo.training.trainer import LOSSES, PixelBatch, Progress, TrainingResult, as_tensor, digest, fit

FOLLOW = -1
"""In a batch's explored actions: follow the policy here."""
VALIDATION_PATCHES = 96
VALIDATION_SECONDS = 20.0

ChainBatch = tuple[PixelBatch, PixelBatch, npt.NDArray[np.int64]]
"""Inputs and targets, RGB ``(N, P, P, 3)``, and explored actions ``(N, length)``, mostly :data:`FOLLOW`."""


@dataclass(frozen=True)
class JointTraining:
    """The settings of ``imagerestore train joint``."""

    out: Path
    """Folder for the trained toolbox, checkpoints, logs and the model card."""
    toolbox: Path
    """Folder of the toolbox to start from."""
    budget: Budget
    """For all rounds together: minutes, or steps."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """Tools that begin as copies of others, as :func:`tools_zoo.training.initial_weights.begun` takes them."""
    zero_init: tuple[str, ...] = ()
    """Tools that at first hand on what they get."""
    frozen_tools: tuple[str, ...] = ()
    """Tools that stay as they are, for the others to learn what to make of their images."""
    severity: str = "moderate"
    single_share: float = 0.0
    """Share of the patches, of those for validation, too, that have one distortion alone, so that tools learn to be
    gentle; the others are of ``severity``."""
    saturation_prob: float = 0.0
    """Share of the patches, of those for validation, too, of which a part is white or black
    (:func:`restore_env.distortions.saturation.saturation_curve`)."""
    chain_length: int = 3
    """Tools in a chain at most."""
    exploration: float = 0.1
    """Probability that a step takes a random tool instead of the policy's."""
    rounds: int = 1
    """After each the policy may be refreshed; the learning rate decays anew, from a lower start, in each."""
    loss: str = "psnr"
    """Of the final images: a key of :data:`tools_zoo.training.trainer.LOSSES`; "mse" is the paper's."""
    intermediate_weight: float = 0.0
    """Weight of the losses of the images on the way: with it every prefix of a chain restores, so that an agent may
    stop anywhere; the paper has none."""
    batch_size: int = 32
    patch_size: int = 63
    seed: int = 0
    device: str = "cpu"
    draws: Literal["host", "device"] = "host"
    """Where patches are distorted: on the host one by one, or on the device all of a batch at once, as a GPU needs it;
    the same distribution."""
    workers: int = 1
    observe: Literal["uint8", "float32"] = "uint8"
    """What the policy sees, as the environment's ``dtype``."""
    policy: str = ""
    """What the first round's policy is called, for the model card and to tell runs apart."""
    command: str = ""
    """The command line, for the model card."""
    schedule: Schedule = field(default_factory=lambda: Schedule(learning_rate=5e-4))

    def __post_init__(self) -> None:
        check_severity(self.severity)
        check_draws(self.draws)
        for name in ("exploration", "single_share", "saturation_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.chain_length < 1 or self.rounds < 1 or self.batch_size < 1:
            raise ValueError("chain_length, rounds and batch_size must be 1 or more")
        if self.out.resolve() == self.toolbox.resolve():
            raise ValueError(f"{self.out}: is the toolbox to start from; choose another folder for the trained one")


@dataclass(frozen=True)
class JointProgress:
    """A glance at joint training, for display."""

    round: int
    """From 0."""
    progress: Progress
    psnr_input: float
    """Validation patches as they come in, dB."""
    psnr_output: float
    """The same patches after the policy's chains of the current tools, dB."""


Refresh = Callable[[Toolbox, int], Policy]
"""Returns the policy that fits the toolbox after a round; called with the round's number."""


class ToolChains(nn.Module):
    """A toolbox as one network: images in, through the chains that a policy picks, images out.

    Args:
        networks: the tools, in the order of their actions.
        policy: picks them; it sees what the environment would show it.
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
        """How often each tool was used in the latest batch."""
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
            with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
                observation = observe(observed_patch(images.detach(), self.image_type), actions, mask)
                chosen, state = self._picks(observation, state, np.full(n, step == 0), deterministic=True)
            if explored is not None:
                chosen = np.where(explored[:, step] == FOLLOW, chosen, explored[:, step])
            actions = np.where(over, self.toolbox.stop, chosen)
            used = actions[actions != self.toolbox.stop]
            over = rules.is_last(actions, step)
            images = self.toolbox.apply(images, actions)
            self.uses += np.bincount(used, minlength=len(self.toolbox))
            after.append(images)
        return after

    def _averaged(self, action: int, gradient: Tensor) -> Tensor:
        """From a mean over the batch's images to a mean over the tool's uses."""
        return gradient * (self._images / max(1, int(self.uses[action])))


def train_jointly(
    settings: JointTraining,
    source: ImageSource,
    policy: Policy,
    refresh: Refresh | None = None,
    report: Callable[[JointProgress], None] = lambda _: None,
) -> list[TrainingResult]:
    """Train the tools of a toolbox on a policy's chains and write them into ``settings.out`` after each round.

    Repeated after an interruption it goes on where it was.

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
    rows = read_manifest(settings.toolbox)
    found = {name: read_tool(settings.toolbox / f"{name}.safetensors", network) for name, network in rows}
    before = begun(found, settings.copies, settings.zero_init)
    unknown = [name for name in settings.frozen_tools if name not in before]
    if unknown:
        raise ValueError(f"unknown tool {unknown[0]!r} to keep: choose from {', '.join(before)}")
    networks: dict[str, ToolNetwork] = {}
    for name, weights in before.items():
        networks[name] = NETWORKS[weights.network]().to(settings.device)
        networks[name].load_state_dict(dict(weights.state))
        networks[name].requires_grad_(name not in settings.frozen_tools)
    chains = ToolChains(networks, policy, settings.chain_length, settings.observe)
    kept, held_out = split_images(len(source))
    results = []
    for number in range(settings.rounds):
        fitted = _train_round(settings, number, chains, source, kept, held_out, report)
        chains.load_state_dict(fitted.state)
        results.append(fitted)
        _write(settings, chains, before, results, len(kept))
        if refresh is not None:
            chains.use_policy(refresh(chains.toolbox, number))
    return results


def _train_round(
    settings: JointTraining,
    number: int,
    chains: ToolChains,
    source: ImageSource,
    kept: Sequence[int],
    held_out: Sequence[int],
    report: Callable[[JointProgress], None],
) -> TrainingResult:
    draw = partial(draw_levels, settings.severity, single_share=settings.single_share)
    cut = partial(
        PatchSampler,
        source,
        patch_size=settings.patch_size,
        draw_levels=draw,
        saturation_prob=settings.saturation_prob,
    )
    sampler = cut(indices=kept, device=drawn_on(settings.draws, settings.device))
    pairs = cut(indices=held_out).batch(np.random.default_rng([settings.seed, 1]), VALIDATION_PATCHES)
    inputs, targets = (as_tensor(side, settings.device) for side in pairs)
    psnr_input = float(psnr(inputs, targets).mean())
    logs = settings.out / "logs" / f"round-{number + 1}"
    tools = len(chains.toolbox)

    def batch_at(step: int) -> ChainBatch:
        rng = np.random.default_rng([settings.seed, number, 0, step])
        explored = rng.integers(0, tools, (settings.batch_size, settings.chain_length))
        explored[rng.random(explored.shape) >= settings.exploration] = FOLLOW
        return *sampler.batch(rng, settings.batch_size), explored

    def objective(batch: ChainBatch) -> Tensor:
        degraded, clean = (as_tensor(side, settings.device) for side in batch[:2])
        losses = [LOSSES[settings.loss](images, clean) for images in chains.steps(degraded, batch[2])]
        return losses[-1] + settings.intermediate_weight * sum(losses[:-1], losses[-1].new_zeros(())) / max(
            1, len(losses) - 1
        )

    def measure() -> dict[str, float]:
        with torch.no_grad():
            return {OUTPUT: float(psnr(chains(inputs), targets).mean())}

    checkpoint = settings.out / "checkpoints" / f"round-{number + 1}.pt"
    with RunLog(logs, measure, VALIDATION_SECONDS, {INPUT: psnr_input}) as log:
        fitted = fit(
            chains,
            batch_at,
            objective,
            _share(settings.budget, settings.rounds),
            _decayed(settings.schedule, number),
            checkpoint,
            parts=list(chains.networks.values()),
            device=settings.device,
            identity=_identity(settings, number, len(kept)) | {"start": digest(chains)},
            report=lambda now: report(JointProgress(number, now, psnr_input, log.note(now)[OUTPUT])),
            workers=settings.workers,
        )
    draw_run(checkpoint.with_suffix(".png"), logs, CURVES, "validation PSNR, dB")
    return fitted


def _identity(settings: JointTraining, number: int, images: int) -> dict[str, Any]:
    names = (
        "severity",
        "loss",
        "intermediate_weight",
        "chain_length",
        "exploration",
        "batch_size",
        "patch_size",
        "observe",
        "seed",
        "policy",
    )
    values = {name: getattr(settings, name) for name in names} | drawing(settings.draws)
    if settings.copies:
        values["begin"] = " ".join(f"{name}={other}" for name, other in settings.copies.items())
    if settings.zero_init:
        values["hand_on"] = " ".join(settings.zero_init)
    if settings.frozen_tools:
        values["keep"] = " ".join(settings.frozen_tools)
    for name in ("single_share", "saturation_prob"):
        if getattr(settings, name):
            values[name] = getattr(settings, name)
    return {"round": number, "images": images, **values}


def _share(budget: Budget, rounds: int) -> Budget:
    if budget.steps is not None:
        return Budget(steps=max(1, budget.steps // rounds))
    return Budget(minutes=(budget.minutes or 0) / rounds)


def _decayed(schedule: Schedule, number: int) -> Schedule:
    """The later the round, the smaller the steps: 1, 1/sqrt(2), 1/sqrt(3), ... of the first round's rate."""
    values = {name: getattr(schedule, name) for name in Schedule.__dataclass_fields__}
    return Schedule(**{**values, "learning_rate": schedule.learning_rate / (number + 1) ** 0.5})


def _write(
    settings: JointTraining,
    chains: ToolChains,
    before: Mapping[str, ToolWeights],
    results: Sequence[TrainingResult],
    images: int,
) -> None:
    recipe = {
        "joint": True,
        "steps": sum(fitted.steps for fitted in results),
        "seconds": round(sum(fitted.seconds for fitted in results), 1),
        "rounds": len(results),
        "precision": settings.schedule.precision,
        "optimizer": settings.schedule.optimizer,
        "learning_rate": settings.schedule.learning_rate,
        **_identity(settings, len(results) - 1, images),
        "version": source_version(),
        "command": settings.command,
    }
    tools = []
    for name, network in chains.networks.items():
        state = {key: value.detach().cpu() for key, value in network.state_dict().items()}
        if all(torch.equal(value, before[name].state[key]) for key, value in state.items()):
            blank = {"last_layer": "zeros"} if name in settings.zero_init else {}
            tools.append(replace(before[name], recipe={**before[name].recipe, **blank}))  # no chain used it
            continue
        tools.append(ToolWeights(name, before[name].network, state, {**recipe, "earlier": passes(before[name].recipe)}))
    update_toolbox(settings.out, tools)
    write_tools_card(settings.out)
