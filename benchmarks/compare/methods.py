"""The methods that can be compared, as a table: toolchains, oracles, one-network baselines and the input itself.

Every method is a policy with tools: a baseline is a toolbox of one tool that is always chosen, the input a policy that
stops at once. So the same code runs, measures and counts all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import nn

from agents.agent import PHOTO, UPSCALING, policy_of
from agents.policies.heuristics import FixedChain
from agents.policies.oracles import ExhaustiveOracle, GreedyOracle, Oracle
from agents.restoration.restorer import Restorer
from agents.rollout import draw_starts, play
from benchmarks.agents.evaluation import EvaluatedPolicy, search_chains
from benchmarks.baselines.catalog import BASELINES
from benchmarks.baselines.complexity import count_macs, parameter_count
from benchmarks.baselines.owan import read_published
from benchmarks.baselines.weights import SHIPPED, BaselineWeights, Training, as_tool, read_baseline
from benchmarks.compare.upscaling import ThenUpscale, UpscalingRequired
from benchmarks.super_resolution.peers import PEERS, load_peer
from restore_env import Task
from restore_env.policy import ScoringPolicy
from restore_env.toolbox import BICUBIC_X4, FunctionTool, Tool, Toolbox
from sr_models import load_super_resolver
from tools_zoo import load_toolbox, toolbox_names
from tools_zoo.training.trainer import digest

SUPER_RESOLVERS = {
    "sft_gan_psnr": ("SFT-Net, PSNR stage", "sft_gan", "psnr"),
    "sft_gan": ("SFT-GAN", "sft_gan", "gan"),
    "sed_psnr": ("SeD's generator, PSNR stage", "sed", "psnr"),
    "sed": ("SeD", "sed", "gan"),
}
"""The shipped super-resolvers alone: title in tables, name, and stage of training."""
CHAINS_X4 = {f"{toolbox}_{name}": (toolbox, name) for toolbox in ("default",) for name in ("sft_gan", "sed")}
"""Toolchains of an agent without super-resolver, and the super-resolver that upscales their result."""


@dataclass(frozen=True)
class Setting:
    """What methods need besides shipped weights."""

    factor: int = 1
    """The task: 1 same size, 4 low resolution."""
    toolbox: str = "default"
    """Whose oracle and whose best fixed chain are compared."""
    published: Path | None = None
    """Folder of the imported toolbox and agent of RL-Restore's authors."""
    owan: Path | None = None
    """OWAN's published weights."""
    peers: Path | None = None
    """Folder of RFDN's and CARN-M's published weights."""
    weights: Mapping[str, Path] = field(default_factory=dict)
    """Weights of baselines, in place of those shipped."""
    search_images: Path | None = None
    """Photographs that fixed chains are searched on; None: embedded ones."""
    search_patches: int = 32
    beam: int = 12
    device: str = "cpu"
    seed: int = 0

    def weights_of(self, name: str) -> Path:
        """The file of a baseline's weights."""
        return self.weights.get(name, SHIPPED / f"{name}.safetensors")


@dataclass(frozen=True)
class Method:
    """Something that restores."""

    name: str
    title: str
    """What tables call it."""
    evaluated: EvaluatedPolicy
    parameters: int
    """Of all that has to be loaded: every tool and the policy."""
    training: str = ""
    """How far a baseline was trained."""
    undertrained: bool = False
    """Or not known to be trained until it no longer improves."""
    sees_target: bool = False

    @cached_property
    def policy_gmacs(self) -> float:
        """10^9 multiply-accumulates of the policy for one patch."""
        policy, actions = self.evaluated.policy, len(self.evaluated.toolbox) + 1
        if isinstance(policy, ThenUpscale):
            actions -= 1
        if isinstance(policy, (ThenUpscale, UpscalingRequired)):
            policy = policy.policy
        if not isinstance(policy, nn.Module) or not isinstance(policy, ScoringPolicy):
            return 0.0
        side = int(getattr(policy, "patch_size", 63))
        observation: dict[str, Any] = {
            "image": np.zeros((1, side, side, 3), np.uint8),
            "last_action": np.array([actions]),
            "action_mask": np.ones((1, actions), np.int8),
        }
        return count_macs(policy, lambda twin: twin.scores(observation)) / 1e9

    def fingerprint(self) -> str:
        """A hash of everything that determines the method's outputs."""
        policy = self.evaluated.policy
        chain = repr(getattr(policy, "chain", ""))
        parts = [self.name, *map(_mark, self.evaluated.toolbox), _mark(getattr(policy, "policy", policy)), chain]
        return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]


def _mark(part: object) -> str:
    module = part.function if isinstance(part, FunctionTool) else part
    return digest(module) if isinstance(module, nn.Module) else str(getattr(part, "name", type(part).__name__))


Maker = Callable[[Setting], Method]


def _untouched(name: str, title: str, setting: Setting) -> Method:
    toolbox = Toolbox([BICUBIC_X4], setting.device)
    return Method(name, title, EvaluatedPolicy(name, FixedChain((), toolbox.stop), toolbox), 0)


def _one_tool(name: str, title: str, tool: Tool, setting: Setting, parameters: int) -> Method:
    toolbox = Toolbox([tool], setting.device)
    return Method(name, title, EvaluatedPolicy(name, FixedChain((0,), toolbox.stop), toolbox), parameters)


def _agent(name: str, title: str, folder: str | Path, setting: Setting, policy: str | Path | None = None) -> Method:
    evaluated = EvaluatedPolicy.load(name, folder, policy or policy_of(folder), device=setting.device)
    return Method(name, title, evaluated, parameter_count(*evaluated.toolbox, evaluated.policy))


def _toolchain(name: str, setting: Setting) -> Method:
    return _agent(name, f"toolchain, {name}", name, setting)


def _photo(setting: Setting) -> Method:
    return _agent(PHOTO, "toolchain, default, of photographs", "default", setting, PHOTO)


def _published(setting: Setting) -> Method:
    if setting.published is None:
        raise ValueError("give the folder that imagerestore import-rl-restore wrote by --published")
    return _agent("published", "RL-Restore, published", setting.published, setting)


ORACLES: Mapping[str, Callable[[], Oracle]] = MappingProxyType({"greedy": GreedyOracle, "exhaustive": ExhaustiveOracle})
"""Policies that see the target, by name."""
SLOW = "exhaustive"
"""Measured only on request: it takes seconds for a patch."""


def _oracle(name: str, setting: Setting) -> Method:
    toolbox = load_toolbox(setting.toolbox, setting.device)
    title = f"{name} oracle, {setting.toolbox}"
    return Method(
        name, title, EvaluatedPolicy(name, ORACLES[name](), toolbox), parameter_count(*toolbox), sees_target=True
    )


def _fixed(setting: Setting) -> Method:
    toolbox = load_toolbox(setting.toolbox, setting.device)
    task = Task(images=setting.search_images, toolbox=toolbox, upscale=(1,))
    found = search_chains(toolbox, task, setting.search_patches, setting.beam, setting.seed + 1)
    starts = draw_starts(task, setting.search_patches, setting.seed + 1)
    chains = [FixedChain(best[0], toolbox.stop) for best in found.values()]
    best = max(chains, key=lambda chain: play(chain, task, starts).gain)
    title = f"best fixed chain ({best.named(toolbox)})"
    used = {toolbox[action] for action in best.chain}
    return Method("fixed", title, EvaluatedPolicy("fixed", best, toolbox), parameter_count(*used))


def _baseline(name: str, setting: Setting) -> Method:
    row = BASELINES[name]
    if name == "owan" and name not in setting.weights:
        if setting.owan is None:
            raise ValueError("give OWAN's published weights by --owan")
        weights = BaselineWeights(row, read_published(setting.owan), {})
        training_text, flat = "by its authors", True
    else:
        weights = read_baseline(setting.weights_of(name), name)
        training = Training.of(weights.recipe)
        training_text, flat = str(training), training.flat
    method = _one_tool(name, row.title, as_tool(weights), setting, row.parameters)
    return replace(method, training=training_text, undertrained=not flat)


def _super_resolver(name: str, setting: Setting) -> Method:
    title, slot, stage = SUPER_RESOLVERS[name]
    tool = load_super_resolver(slot, setting.device, stage=stage)
    return _one_tool(name, title, tool, setting, parameter_count(tool))


def _peer(name: str, setting: Setting) -> Method:
    if setting.peers is None:
        raise ValueError(f"give the folder of the published {PEERS[name].file} by --peers")
    tool = load_peer(name, setting.peers)
    return _one_tool(name, name, tool, setting, parameter_count(tool.function))


def _chain_x4(name: str, setting: Setting) -> Method:
    toolbox, slot = CHAINS_X4[name]
    pipeline = Restorer(toolbox, policy_of(toolbox), setting.device, scale=4, super_resolver=slot).pipeline()
    if pipeline.final_upscaler is None:
        raise ValueError(f"the agent of {toolbox} upscales by itself")
    tools = Toolbox([*pipeline.toolbox, pipeline.final_upscaler], setting.device)
    evaluated = EvaluatedPolicy(name, ThenUpscale(pipeline.policy, tools), tools)
    return Method(name, f"toolchain, {toolbox}, then {slot}", evaluated, parameter_count(*tools, pipeline.policy))


def _upscaling_agent(name: str, setting: Setting) -> Method:
    pipeline = Restorer("default", name, setting.device, scale=4).pipeline()
    parameters = parameter_count(*pipeline.toolbox, pipeline.policy)
    evaluated = EvaluatedPolicy(name, UpscalingRequired(pipeline.policy, pipeline.toolbox), pipeline.toolbox)
    return Method(name, f"toolchain, {name}", evaluated, parameters)


METHODS: Mapping[int, Mapping[str, Maker]] = MappingProxyType(
    {
        1: {
            "input": partial(_untouched, "input", "input"),
            **{name: partial(_toolchain, name) for name in toolbox_names()},
            PHOTO: _photo,
            "published": _published,
            **{name: partial(_oracle, name) for name in ORACLES},
            "fixed": _fixed,
            **{name: partial(_baseline, name) for name, row in BASELINES.items() if row.factor == 1},
        },
        4: {
            "bicubic": partial(_untouched, "bicubic", "bicubic"),
            **{name: partial(_baseline, name) for name, row in BASELINES.items() if row.factor == 4},
            **{name: partial(_peer, name) for name in PEERS},
            **{name: partial(_super_resolver, name) for name in SUPER_RESOLVERS},
            **{name: partial(_chain_x4, name) for name in CHAINS_X4},
            UPSCALING: partial(_upscaling_agent, UPSCALING),
        },
    }
)
"""Makers of the methods of each task, by name."""


def usual_methods(setting: Setting) -> list[str]:
    """The methods of a task whose weights are available."""
    given = {"published": setting.published is not None, "owan": setting.owan is not None or "owan" in setting.weights}
    given |= {name: setting.weights_of(name).is_file() for name in BASELINES if name not in given}
    given |= dict.fromkeys(PEERS, setting.peers is not None) | {SLOW: False}
    return [name for name in METHODS[setting.factor] if given.get(name, True)]
