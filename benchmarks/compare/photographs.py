"""Methods on whole photographs in bounded memory: agents by the vote of tiles, other policies tool by tool."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from agents.restoration.restorer import Restorer
from agents.rollout import EpisodeResults, concatenate
from benchmarks.compare.method import Method
from benchmarks.compare.upscaling import MAX_TOOLS, ThenUpscale
from benchmarks.report.machine import peak_memory
from restore_env import Task
from restore_env.distortions.mixed import draw_distortion
from restore_env.distortions.protocol import downscale, quantize
from restore_env.distortions.saturation import apply_curve, draw_curve
from restore_env.images.sources import ImageSource, open_images
from restore_env.images.tiling import apply_tool, to_tensor
from restore_env.metrics import Metric, psnr
from restore_env.policy import ScoringPolicy
from restore_env.resolve import task_distortion
from restore_env.sampling import EpisodeStart
from restore_env.toolbox import FunctionTool, Tool, Toolbox, bicubic_upscale

SMALLEST = 16
"""Pixels along a side, of the input, of the smallest photograph."""
COST_SIDE = 512
"""Pixels along a side, of the result, of the photograph that costs are measured on."""
COST_ROUNDS = 3
"""How often it is restored."""


def tiled(tool: Tool) -> Tool:
    """The tool, applied to large images tile by tile; computation without the overlap of tiles."""

    def restore(images: Tensor) -> Tensor:
        return torch.cat([apply_tool(tool, image, images.device) for image in torch.split(images, 1)])

    return FunctionTool(tool.name, restore, tool.scale, tool.macs_per_pixel, tool.receptive_radius)


def draw_photographs(task: Task, factor: int, seed: int, side: int | None = None) -> Iterator[EpisodeStart]:
    """Distort the photographs of a task as a whole, one after the other.

    Args:
        task: photographs and distortion.
        factor: 1 same size, 4 low resolution; photographs are cropped to a multiple of it at the right and the bottom.
        seed: of the distortions.
        side: crop to the centre of this many pixels, at most, along each side; None: do not crop.

    Raises:
        ValueError: the images are pairs.
    """
    source = open_images(task.images, min_size=SMALLEST * factor)
    if not isinstance(source, ImageSource):
        raise ValueError("methods are compared on clean photographs, not on pairs")
    for index in range(len(source)):
        rng = np.random.default_rng([seed, index])
        image = source.pixels(index)
        height, width = (min(length, side or length) // factor * factor for length in image.shape[:2])
        top, left = (0, 0) if side is None else ((image.shape[0] - height) // 2, (image.shape[1] - width) // 2)
        target = np.ascontiguousarray(image[top : top + height, left : left + width])
        target = apply_curve(target, draw_curve(target, task.saturation_prob, rng))
        distortion, levels = task_distortion(task), {}
        if distortion is None:
            drawn = draw_distortion(task.severity, rng)
            window = (0, 0, height // factor, width // factor)
            distorted, levels = drawn.patch(target, window, rng, factor), drawn.as_dict()
        else:
            small = target if factor == 1 else quantize(downscale(target.astype(np.float32) / np.float32(255), factor))
            distortion.set_random_state(rng, random.Random(int(rng.integers(2**31))))
            distorted = np.asarray(distortion(image=small)["image"])
        yield EpisodeStart(distorted, target, factor, source.identity(index), seed, levels)


def play_photographs(
    method: Method,
    task: Task,
    starts: Sequence[EpisodeStart],
    metrics: Mapping[str, Metric] = MappingProxyType({}),
) -> EpisodeResults:
    """Restore whole photographs, one by one.

    An agent's tiles vote, as :class:`agents.Restorer` lets them; computation includes its calls at them. Other policies
    play an episode with the whole photograph as its patch.
    """
    tools, device = list(method.toolbox), method.toolbox.device
    if isinstance(method.agent, ScoringPolicy):
        final_upscaler = tools.pop() if isinstance(method.policy, ThenUpscale) else None
        own = Toolbox(tools, device)
        restorer = Restorer(own, method.agent, str(device), MAX_TOOLS, super_resolver=final_upscaler)
        return concatenate([_restore(method, restorer, start, metrics) for start in starts])
    toolbox = Toolbox([tiled(tool) for tool in tools])
    toolbox.device = device
    whole = replace(method, toolbox=toolbox)
    parts = []
    for start in starts:
        patch_size = min(task.patch_size, *start.distorted.shape[:2])
        parts.append(whole.play(replace(task, patch_size=patch_size), [start], metrics))
    return concatenate(parts)


def _restore(method: Method, restorer: Restorer, start: EpisodeStart, metrics: Mapping[str, Metric]) -> EpisodeResults:
    result = restorer.restore(start.distorted, scale=start.factor, keep_float=True)
    assert result.float_image is not None
    before, after, target = (to_tensor(image) for image in (start.distorted, result.float_image, start.target))
    toolbox = restorer.pipeline(start.factor).toolbox
    calls = sum(vote.grid.size for vote in result.votes)
    initial = psnr(bicubic_upscale(before, start.factor), target).numpy()
    final = psnr(after, target).numpy()
    return EpisodeResults(
        initial_psnr=initial,
        psnr=final,
        returns=final - initial,
        gmacs=np.array([result.gmacs + calls * method.policy_gmacs]),
        actions=(tuple(toolbox.action(vote.action) for vote in result.votes),),
        seconds=result.seconds,
        images=(start.image,),
        scores={name: np.asarray(metric(after.clamp(0, 1), target)) for name, metric in metrics.items()},
    )


@dataclass(frozen=True)
class Cost:
    """What a method costs on a photograph."""

    seconds_per_megapixel: float
    """Of the result."""
    peak_mib: float | None
    """Additional memory; None where the system does not report it."""


def measure_cost(method: Method, task: Task, start: EpisodeStart) -> Cost:
    """Restore one photograph a few times; take memory at the first, and the shortest time."""
    seconds, peak = peak_memory(lambda: play_photographs(method, task, [start]).seconds, method.toolbox.device)
    seconds = min(seconds, *(play_photographs(method, task, [start]).seconds for _ in range(COST_ROUNDS - 1)))
    height, width = start.target.shape[:2]
    return Cost(seconds / (height * width / 1e6), peak)
