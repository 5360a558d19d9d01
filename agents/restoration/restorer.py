"""Restores whole images of any size: a patch policy is asked about each tile, and the tiles decide together."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from agents.agent import load_policy, policy_of
from agents.policy_input import PUBLISHED
from agents.restoration import CAUTION
from agents.restoration.pipeline import Pipeline, SuperResolverLike, chain_pipeline, make_pipeline
from agents.restoration.tiled_episode import Progress, TiledEpisode, Vote
from restore_env.images.arrays import has_no_colour
from restore_env.images.decoding import MAX_PIXELS, ImageError, Photo
from restore_env.images.encoding import write_image
from restore_env.images.samples import mix_in, with_result, working_image
from restore_env.images.sources import PhotoLike, as_photo
from restore_env.images.tiling import to_pixels, to_tensor, upscale_bicubic
from restore_env.metrics import psnr
from restore_env.policy import Policy
from restore_env.resolve import resolve_toolbox
from restore_env.toolbox import Tool, Toolbox, usable_device
from tools_zoo.backends.network_tool import with_backend


@dataclass(frozen=True)
class Stage:
    """The image between two tools."""

    image: npt.NDArray[np.uint8]
    """RGB ``(H, W, 3)`` of the result's size, upscaled bicubically if no tool has done so yet."""
    psnr: float | None
    """dB, as 8 bits; None without a target."""


@dataclass(frozen=True)
class Region:
    """The parts of an image that had the same chain."""

    toolchain: tuple[str, ...]
    share: float
    """Of the image's area, 0 to 1."""


@dataclass(frozen=True)
class Restoration:
    """A restored image and how it was made."""

    photo: Photo
    """The result, with the input's depth, transparency, colour profile and metadata."""
    toolchain: tuple[str, ...]
    """Names of the applied tools, in order; ``stop`` is only in the votes. With regions those of all of them."""
    votes: tuple[Vote, ...]
    """One for each step, with the one for "stop"; none for a final upscaler."""
    gmacs: float
    """Computation of the tools, 10^9 multiply-accumulates (without the policy and bicubic upscaling)."""
    seconds: float
    """Wall time from pixels to pixels."""
    scale: int = 1
    """Upscale factor."""
    psnr_before: float | None = None
    """dB, of the input as 8 bits (upscaled bicubically if the target is larger); None without a target."""
    psnr_after: float | None = None
    """dB, of the result as 8 bits; None without a target."""
    float_image: npt.NDArray[np.float32] | None = None
    """What the last tool gave, before clipping and rounding, RGB ``(H, W, 3)``; None unless ``keep_float`` was set."""
    stages: tuple[Stage, ...] = ()
    """The input, then the image after each tool; empty unless ``keep_stages`` was set."""
    taken_back: tuple[str, ...] = ()
    """Names of the tools whose result was not kept, since they changed colours as no restoration would."""
    regions: tuple[Region, ...] = ()
    """The chains of the image's regions, the largest first; one, unless ``regions`` was set."""
    steps: tuple[tuple[str, ...], ...] = ()
    """Names of the tools that each step applied; with regions there may be several."""

    @property
    def predicted_gain(self) -> float | None:
        """What the policy predicted to gain at the first step, dB; None if it predicts nothing."""
        return self.votes[0].predicted if self.votes else None

    @property
    def image(self) -> npt.NDArray[np.uint8]:
        """The result, uint8 RGB ``(H, W, 3)``, in the input's colour space."""
        return self.photo.pixels

    def save(self, path: str | os.PathLike[str], **options: Any) -> tuple[str, ...]:
        """Write PNG, JPEG, WebP or TIFF, by the suffix; what :func:`restore_env.images.encoding.write_image` takes."""
        return write_image(path, self.photo, **options)


class Restorer:
    """A toolbox and a policy that restore images of any size.

    The image is covered by tiles of the policy's patch size. The policy gets each tile as a patch, with an LSTM state
    for each. One action is applied to the whole image, and is every tile's previous action at the next step: that with
    the highest mean score of the tiles if the policy predicts gains, or ``stop`` if that gain is below ``caution``;
    otherwise that which most tiles choose, the lower one if there are two. An image smaller than a patch is padded for
    the policy by repeating its last row or column.

    With a ``scale`` of 4 the result is 4 times as high and wide as the image. A policy with super-resolvers among its
    tools may call one at any step; if none has run at its last step or when it chooses to stop, the tiles vote on the
    super-resolvers only. After a policy without super-resolvers the pipeline's final upscaler runs. With a ``scale`` of
    2 what a super-resolver returns is reduced by 2, to the means of 2x2 pixels.

    Source: Yu et al., CVPR 2018; in their code every full 63x63 tile from the top left votes
    (:data:`agents.policy_input.PUBLISHED`; the file of the imported agent says so).

    Args:
        toolbox: a shipped name, a toolbox's folder, "package.module:factory", a :class:`Toolbox` or a list of tools.
        policy: a shipped name, a policy's file, an object with Stable-Baselines3's ``predict``, or names of tools, the
            chain of every image; None: the toolbox's own (:func:`agents.agent.policy_of`). Its ``patch_size`` (default
            63) is the side of its input patches; its ``tools``, if it has them, must be the toolbox's names, with or
            without super-resolvers (an agent from a name or a file may have more). Its state is a tuple of arrays whose
            second axis is the batch. If it has ``scores`` (:class:`restore_env.policy.ScoringPolicy`), tiles take the
            highest one, and votes have them.
        device: where tools and policy run; images stay in main memory.
        max_steps: most tools in a chain, without the final upscaler.
        scale: upscale factor, unless :meth:`restore` gets another one.
        super_resolver: the name of a tool, a file of weights, or a tool. None: the policy chooses; for a policy without
            super-resolvers the toolbox's first one, or else the shipped "sft_gan".
        backend: runs the tools' networks on a CPU, a key of :data:`tools_zoo.backends.network_tool.BACKENDS`. None:
            the toolbox's own, "torch" for one that is loaded by name.
        caution: smallest predicted gain, dB, for which a tool is applied, if the policy predicts gains.
        regions: every tile follows its own chain (:mod:`agents.restoration.regions`); only with a ``scale`` of 1, since
            a super-resolver is for the whole image. A chain of names is one for the whole image, too.

    Raises:
        ValueError: no such toolbox, policy or backend, one that does not fit the other, a device that cannot be used,
            or regions with another scale than 1.
    """

    def __init__(
        self,
        toolbox: Toolbox | Sequence[Tool] | str | os.PathLike[str] = "default",
        policy: Policy | str | os.PathLike[str] | Sequence[str] | None = None,
        device: str = "cpu",
        max_steps: int = 3,
        *,
        scale: int = 1,
        super_resolver: SuperResolverLike | None = None,
        backend: str | None = None,
        caution: float = CAUTION,
        regions: bool = False,
    ) -> None:
        if not caution >= 0:
            raise ValueError(f"caution must be 0 dB or more, got {caution!r}")
        self.caution = caution
        self.regions = regions
        self.scale, self.max_steps = _whole_number("scale", scale), _whole_number("max_steps", max_steps)
        self._check_regions(self.scale)
        self.device = usable_device(device)
        tools = resolve_toolbox(toolbox, self.device)
        self._tools = tools if backend is None else with_backend(tools, backend)
        self._chain: tuple[str, ...] | None = None
        self._policy: Policy | str | os.PathLike[str] | None = None
        if isinstance(policy, str) or not isinstance(policy, Sequence):
            self._policy = policy
        else:
            self._chain = tuple(policy)
        self._named, self._super_resolver = toolbox, super_resolver
        self._pipelines: dict[bool, Pipeline] = {}
        self.pipeline()

    def _check_regions(self, scale: int) -> None:
        if self.regions and scale > 1:
            raise ValueError(f"regions work at scale 1: with scale {scale} all tiles share one chain")

    def pipeline(self, scale: int | None = None, tools: Sequence[str] | None = None) -> Pipeline:
        """The pipeline for an upscale factor (None: the restorer's own) and, if given, for a chain of tools.

        Raises:
            ValueError: no such policy, super-resolver or tool, or one that does not fit the others.
        """
        scale = self.scale if scale is None else scale
        chain = self._chain if tools is None else tools
        if chain is None:
            pipeline = self._choosing(scale > 1)
        else:
            pipeline = chain_pipeline(chain, self._tools, scale, self._super_resolver)
        return pipeline.for_scale(scale)

    def _choosing(self, upscaling: bool) -> Pipeline:
        """The pipeline in which the policy chooses."""
        if upscaling not in self._pipelines:
            policy = policy_of(self._named) if self._policy is None else self._policy
            actor: Policy = load_policy(policy, self.device) if isinstance(policy, (str, os.PathLike)) else policy
            self._pipelines[upscaling] = make_pipeline(
                actor, self._tools, upscaling=upscaling, super_resolver=self._super_resolver
            )
        return self._pipelines[upscaling]

    @property
    def policy(self) -> Policy:
        """The policy for the restorer's own scale."""
        return self.pipeline().policy

    @property
    def toolbox(self) -> Toolbox:
        """The policy's toolbox for the restorer's own scale."""
        return self.pipeline().toolbox

    @torch.inference_mode()
    def restore(
        self,
        image: PhotoLike,
        target: PhotoLike | None = None,
        *,
        scale: int | None = None,
        progress: Progress | None = None,
        keep_float: bool = False,
        keep_stages: bool = False,
        strength: float = 1.0,
        tools: Sequence[str] | None = None,
    ) -> Restoration:
        """Restore an image.

        An image without colour stays so: between tools it is the luminance of what they return.

        Args:
            image: path, array or Photo.
            target: ground truth, to measure PSNR; ``scale`` times as high and wide.
            scale: upscale factor; None: the restorer's own. With 1 no super-resolver is allowed, with 4 one of x4 is,
                and so it is with 2, its result reduced. What these leave of a scale is done bicubically: all of 3, and
                the second half of 8.
            progress: called at intervals.
            keep_float: also return the result before rounding.
            keep_stages: also return the image after each tool.
            strength: how much of the change is applied, 0 to 1.
            tools: names of the tools that are applied, in order, whatever the policy would choose, and however many;
                one of them may be a super-resolver if the scale is more than 1. None: the policy chooses.

        Raises:
            ImageError: an image cannot be used, the target has another size, or the result would be too large.
            ValueError: a policy that returns no actions of this toolbox, a tool that returns another shape, names that
                are none of tools, a strength outside [0, 1], or regions with another scale than 1.
        """
        if not 0 <= strength <= 1:
            raise ValueError(f"strength must lie in [0, 1], got {strength!r}")
        scale = self.scale if scale is None else _whole_number("scale", scale)
        self._check_regions(scale)
        photo = as_photo(image, "image")
        height, width = photo.pixels.shape[:2]
        if height * width * scale * scale > MAX_PIXELS:
            raise ImageError(
                f"{width}x{height} upscaled {scale} times is more than {MAX_PIXELS / 1e6:.0f} megapixels and is refused"
            )
        reference = None if target is None else as_photo(target, "target").pixels
        if reference is not None and reference.shape[:2] != (height * scale, width * scale):
            raise ImageError(
                f"the target is {reference.shape[1]}x{reference.shape[0]}, the result will be"
                f" {width * scale}x{height * scale}: they must be of one size"
            )
        pipeline = self.pipeline(scale, tools)
        if (photo.grey or has_no_colour(photo.colours)) and pipeline.policy_input != PUBLISHED:  # which adds colours
            pipeline = pipeline.without_colour()
        started = time.perf_counter()
        report = progress or (lambda what, share: None)
        episode = TiledEpisode(
            pipeline,
            working_image(photo),
            scale,
            self.device,
            report,
            self.max_steps,
            keep_stages,
            self.caution,
            again=lambda: working_image(photo),
            regions=self.regions,
        )
        episode.play()
        working = episode.result()
        if strength < 1 and scale == 1:
            mix_in(photo, working, strength)
        elif strength < 1:
            working = torch.lerp(upscale_bicubic(working_image(photo), scale, self.device), working, strength)
        if scale == 1 and not (episode.toolchain and strength):  # exactly so, in any space
            restored = replace(photo, pixels=photo.pixels.copy())
        else:
            restored = with_result(photo, working, scale)
        seconds = time.perf_counter() - started
        episode.working = episode.working[:0]  # frees memory for the comparison
        float_image = np.ascontiguousarray(working[0].float().permute(1, 2, 0).numpy()) if keep_float else None
        del working
        psnr_before = psnr_after = None
        if reference is not None:
            psnr_before = quality(to_pixels(upscale_bicubic(to_tensor(photo.pixels), scale, self.device)), reference)
            psnr_after = quality(restored.pixels, reference)
        images = [*episode.stages, restored.pixels] if keep_stages else []
        return Restoration(
            photo=restored,
            toolchain=episode.toolchain,
            votes=tuple(episode.votes),
            gmacs=episode.gmacs,
            seconds=seconds,
            scale=scale,
            psnr_before=psnr_before,
            psnr_after=psnr_after,
            float_image=float_image,
            taken_back=tuple(episode.taken_back),
            regions=tuple(Region(*region) for region in episode.regions()),
            steps=tuple(episode.steps),
            stages=tuple(Stage(each, None if reference is None else quality(each, reference)) for each in images),
        )


def quality(pixels: npt.NDArray[np.uint8], target: npt.NDArray[np.uint8]) -> float:
    """PSNR in dB of two uint8 RGB images ``(H, W, 3)``."""
    return float(psnr(to_tensor(pixels), to_tensor(target)))


def _whole_number(name: str, value: int) -> int:
    if int(value) != value or value < 1:
        raise ValueError(f"{name} must be a whole number of 1 or more, got {value!r}")
    return int(value)
