"""The methods that can be compared, as a table: toolchains, oracles, one-network baselines and the input itself."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from agents.agent import DEFAULT, load_policy, policy_of
from agents.policies.heuristics import FixedChain, RandomPolicy, best_chains
from agents.policies.oracles import ExhaustiveOracle, GreedyOracle
from agents.restoration.restorer import Restorer
from agents.rollout import draw_starts, play
from benchmarks.baselines.catalog import BASELINES, find_baseline
from benchmarks.baselines.complexity import parameter_count
from benchmarks.baselines.owan import read_published
from benchmarks.baselines.published_x4 import PUBLISHED, load_published
from benchmarks.baselines.weights import SHIPPED, BaselineWeights, Training, as_tool, read_baseline
from benchmarks.compare.method import Method
from benchmarks.compare.upscaling import ThenUpscale, UpscalingRequired
from restore_env import Task
from restore_env.toolbox import BICUBIC_X4, FunctionTool, Tool, Toolbox
from sr_models import load_super_resolver
from tools_zoo import load_toolbox, toolbox_names
from tools_zoo.training.losses import as_tensor

SUPER_RESOLVERS = {
    "sft_gan_psnr": ("SFT-Net, PSNR stage", "sft_gan", "psnr"),
    "sft_gan": ("SFT-GAN", "sft_gan", "gan"),
    "sed_psnr": ("SeD's generator, PSNR stage", "sed", "psnr"),
    "sed": ("SeD", "sed", "gan"),
    "light": ("LightNet, PSNR stage", "light", "psnr"),
}
"""The super-resolvers alone: title in tables, shipped name, and stage of training."""
CHAINS_X4 = {f"default_{name}": name for name in ("sft_gan", "sed")}
"""The default toolchain, and the super-resolver that upscales its result."""
ON_REQUEST = ("agent", "random", "fixed_1", "fixed_2", "exhaustive")
"""Methods that are compared only where they are named."""


@dataclass(frozen=True)
class Setting:
    """What methods need besides shipped weights."""

    factor: int = 1
    """The task: 1 same size, 4 low resolution."""
    toolbox: str = "default"
    """Of the methods "agent", "random", of oracles and constant chains."""
    policy: str | None = None
    """Of the method "agent"; None: the toolbox's own."""
    published: Path | None = None
    """Folder of the imported toolbox and agent of RL-Restore's authors."""
    owan: Path | None = None
    """OWAN's published weights."""
    peers: Path | None = None
    """Folder of RFDN's and CARN-M's published weights."""
    weights: Mapping[str, Path] = field(default_factory=dict)
    """Weights of baselines and super-resolvers, in place of those shipped."""
    search_images: Path | None = None
    """Photographs that constant chains are searched on; None: embedded ones."""
    search_patches: int = 32
    beam: int = 12
    device: str = "cpu"
    seed: int = 0

    def weights_of(self, name: str) -> Path:
        """The file of a baseline's weights."""
        return self.weights.get(name, SHIPPED / f"{name}.safetensors")


def _input(name: str, setting: Setting) -> Method:
    toolbox = Toolbox([BICUBIC_X4], setting.device)
    return Method(name, name, FixedChain((), toolbox.stop), toolbox, 0)


def _lanczos(name: str, setting: Setting) -> Method:
    return _one_tool(name, "Lanczos", FunctionTool("lanczos_x4", lanczos_upscale, 4, 0.0, 3), setting)


def lanczos_upscale(images: Tensor) -> Tensor:
    """Upscale ``(N, 3, H, W)`` by 4 with Lanczos' kernel of three lobes, as Pillow does."""
    height, width = images.shape[2:]
    planes = images.detach().cpu().float().flatten(0, 1).numpy()
    large = [Image.fromarray(plane).resize((4 * width, 4 * height), Image.Resampling.LANCZOS) for plane in planes]
    upscaled = torch.from_numpy(np.stack([np.asarray(plane) for plane in large]))
    return upscaled.view(*images.shape[:2], 4 * height, 4 * width).to(images)


def _one_tool(name: str, title: str, tool: Tool, setting: Setting) -> Method:
    toolbox = Toolbox([tool], setting.device)
    return Method(name, title, FixedChain((0,), toolbox.stop), toolbox, parameter_count(*toolbox))


def _agent(name: str, title: str, folder: str | Path, policy: str | Path | None, setting: Setting) -> Method:
    policy = policy or policy_of(folder)
    toolbox = load_toolbox(folder, setting.device)
    agent = load_policy(policy, setting.device, toolbox.names)
    return Method(name, title, agent, toolbox, parameter_count(*toolbox, agent))


def _toolchain(name: str, setting: Setting) -> Method:
    return _agent(name, f"toolchain, {name}", name, None, setting)


def _own_agent(name: str, setting: Setting) -> Method:
    return _agent(name, f"agent, {setting.toolbox}", setting.toolbox, setting.policy, setting)


def _published(name: str, setting: Setting) -> Method:
    if setting.published is None:
        raise ValueError("give the folder that imagerestore import-rl-restore wrote by --published")
    return _agent(name, "RL-Restore, published", setting.published, None, setting)


def _random(name: str, setting: Setting) -> Method:
    toolbox = load_toolbox(setting.toolbox, setting.device)
    return Method(name, name, RandomPolicy(setting.seed), toolbox, parameter_count(*toolbox))


def _oracle(name: str, setting: Setting) -> Method:
    toolbox = load_toolbox(setting.toolbox, setting.device)
    oracle = GreedyOracle() if name == "greedy" else ExhaustiveOracle()
    title = f"{name} oracle, {setting.toolbox}"
    return Method(name, title, oracle, toolbox, parameter_count(*toolbox), sees_target=True)


def _fixed(name: str, setting: Setting) -> Method:
    """The best constant chain on other patches: of one tool, of two, or of any length."""
    toolbox = load_toolbox(setting.toolbox, setting.device)
    task = Task(images=setting.search_images, toolbox=toolbox, upscale=(1,))
    starts = draw_starts(task, setting.search_patches, setting.seed + 1)
    images, targets = (
        as_tensor(np.stack([getattr(start, side) for start in starts]), toolbox.device).contiguous()
        for side in ("distorted", "target")
    )
    length = int(name.partition("_")[2] or 0)
    with torch.inference_mode():
        found = best_chains(toolbox, images, targets, depth=length or task.max_steps, beam=setting.beam)
    chains = [FixedChain(best[0], toolbox.stop) for best in found.values()][length - 1 if length else 0 :]
    best = max(chains, key=lambda chain: play(chain, task, starts).gain)
    what = {0: "constant chain", 1: "single tool"}.get(length, f"constant chain of {length}")
    used = {toolbox[action] for action in best.chain}
    return Method(name, f"best {what} ({best.named(toolbox)})", best, toolbox, parameter_count(*used))


def _baseline(name: str, setting: Setting) -> Method:
    row = BASELINES[name]
    if name == "owan" and name not in setting.weights:
        if setting.owan is None:
            raise ValueError("give OWAN's published weights by --owan")
        weights = BaselineWeights(row, read_published(setting.owan), {})
        training, flat = "by its authors", True
    else:
        weights = read_baseline(setting.weights_of(name), name)
        trained = Training.of(weights.recipe)
        training, flat = str(trained), trained.flat
    method = _one_tool(name, row.title, as_tool(weights), setting)
    return replace(method, parameters=row.parameters, training=training, undertrained=not flat)


def _super_resolver(name: str, setting: Setting) -> Method:
    title, slot, stage = SUPER_RESOLVERS[name]
    tool = load_super_resolver(setting.weights.get(name, slot), setting.device, stage=stage)
    return _one_tool(name, title, tool, setting)


def _published_x4(name: str, setting: Setting) -> Method:
    if setting.peers is None:
        raise ValueError(f"give the folder of the published {PUBLISHED[name][1]} by --peers")
    tool = load_published(name, setting.peers)
    return replace(_one_tool(name, name, tool, setting), parameters=parameter_count(tool.function))


def _chain_x4(name: str, setting: Setting) -> Method:
    slot = CHAINS_X4[name]
    policy = load_policy(DEFAULT, setting.device, load_toolbox().names)
    pipeline = Restorer("default", policy, setting.device, scale=4, super_resolver=slot).pipeline()
    assert pipeline.final_upscaler is not None
    tools = Toolbox([*pipeline.toolbox, pipeline.final_upscaler], setting.device)
    parameters = parameter_count(*tools, pipeline.policy)
    return Method(name, f"toolchain, default, then {slot}", ThenUpscale(pipeline.policy, tools), tools, parameters)


def _upscaling_agent(name: str, setting: Setting) -> Method:
    pipeline = Restorer("default", name, setting.device, scale=4).pipeline()
    parameters = parameter_count(*pipeline.toolbox, pipeline.policy)
    policy = UpscalingRequired(pipeline.policy, pipeline.toolbox)
    return Method(name, f"toolchain, {name}", policy, pipeline.toolbox, parameters)


METHODS: Mapping[int, Mapping[str, Callable[[str, Setting], Method]]] = MappingProxyType(
    {
        1: {
            "input": _input,
            **dict.fromkeys(toolbox_names(), _toolchain),
            "agent": _own_agent,
            "published": _published,
            "random": _random,
            **dict.fromkeys(("greedy", "exhaustive"), _oracle),
            **dict.fromkeys(("fixed_1", "fixed_2", "fixed"), _fixed),
            **{name: _baseline for name, row in BASELINES.items() if row.factor == 1},
        },
        4: {
            "bicubic": _input,
            "lanczos": _lanczos,
            **{name: _baseline for name, row in BASELINES.items() if row.factor == 4},
            **dict.fromkeys(PUBLISHED, _published_x4),
            **dict.fromkeys(SUPER_RESOLVERS, _super_resolver),
            **dict.fromkeys(CHAINS_X4, _chain_x4),
            DEFAULT: _upscaling_agent,
        },
    }
)
"""Makers of the methods of each task, by name."""


def make_method(name: str, setting: Setting) -> Method:
    """Load the method of that name.

    Raises:
        ValueError: weights that are missing, damaged or of another method.
    """
    return METHODS[setting.factor][name](name, setting)


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where weights are."""
    parser.add_argument("--peers", type=Path, metavar="DIR", help="published weights of RFDN and CARN-M, for x4")
    parser.add_argument(
        "--weights",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=FILE",
        help="of baselines and super-resolvers (default: shipped ones)",
    )


def named_weights(texts: Sequence[str]) -> dict[str, Path]:
    """The files of ``NAME=FILE``, by the names of baselines and super-resolvers.

    Raises:
        ValueError: no ``NAME=FILE``, or nothing of that name has weights.
    """
    weights = {}
    for text in texts:
        name, separator, path = text.partition("=")
        if not (separator and path):
            raise ValueError(f"--weights takes NAME=FILE, got {text!r}")
        weights[name if name in SUPER_RESOLVERS else find_baseline(name).name] = Path(path)
    return weights


def usual_methods(setting: Setting) -> list[str]:
    """The methods of a task whose weights are available."""
    given = {"published": setting.published is not None, "owan": setting.owan is not None or "owan" in setting.weights}
    given |= {name: setting.weights_of(name).is_file() for name in BASELINES if name not in given}
    given |= dict.fromkeys(PUBLISHED, setting.peers is not None) | dict.fromkeys(ON_REQUEST, False)
    return [name for name in METHODS[setting.factor] if given.get(name, True)]
