"""Restores whole images of any size: a patch policy chooses an action for each tile, and the majority wins."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from agents.agent import load_policy, policy_of
from agents.policy_input import PUBLISHED
from agents.restoration.pipeline import Pipeline, SuperResolverLike, make_pipeline
from agents.restoration.tiled_episode import Progress, TiledEpisode, Vote
from restore_env.images.decoding import MAX_PIXELS, ImageError, Photo
from restore_env.images.encoding import write_image
from restore_env.images.samples import has_no_colour, with_result
from restore_env.images.sources import PhotoLike, open_photo
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
class Restoration:
    """A restored image and how it was made."""

    photo: Photo
    """The result, with the input's depth, transparency, colour profile and metadata."""
    toolchain: tuple[str, ...]
    """Names of the applied tools, in order; ``stop`` is only in the votes."""
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
    """The result before clipping and rounding, RGB ``(H, W, 3)``; None unless ``keep_float`` was set."""
    stages: tuple[Stage, ...] = ()
    """The input, then the image after each tool; empty unless ``keep_stages`` was set."""

    @property
    def image(self) -> npt.NDArray[np.uint8]:
        """The result, uint8 RGB ``(H, W, 3)``."""
        return self.photo.pixels

    def save(self, path: str | os.PathLike[str], **options: Any) -> tuple[str, ...]:
        """Write PNG, JPEG, WebP or TIFF, by the suffix; what :func:`restore_env.images.encoding.write_image` takes."""
        return write_image(path, self.photo, **options)


class Restorer:
    """A toolbox and a policy that restore images of any size.

    The image is covered by tiles of the policy's patch size. The policy gets each tile as a patch, with an LSTM state
    for each. The action that most tiles choose is applied to the whole image and is every tile's previous action at the
    next step. With equal votes the lower action wins. An image smaller than a patch is padded for the policy by
    repeating its last row or column.

    With a ``scale`` of 4 the result is 4 times as high and wide as the image. A policy with super-resolvers among its
    tools may call one at any step; if none has run at its last step or when it chooses to stop, the tiles vote on the
    super-resolvers only. After a policy without super-resolvers the pipeline's final upscaler runs.

    Source: Yu et al., CVPR 2018; in their code every full 63x63 tile from the top left votes
    (:data:`agents.policy_input.PUBLISHED`; the file of the imported agent says so).

    Args:
        toolbox: a shipped name, a toolbox's folder, "package.module:factory", a :class:`Toolbox` or a list of tools.
        policy: a shipped name, a policy's file, or an object with Stable-Baselines3's ``predict``; None: the toolbox's
            own (:func:`agents.agent.policy_of`). Its ``patch_size`` (default 63) is the side of its input patches; its
            ``tools``, if it has them, must be the toolbox's names, with or without super-resolvers. Its state is a
            tuple of arrays whose second axis is the batch. If it has ``scores``
            (:class:`restore_env.policy.ScoringPolicy`), tiles take the highest one, and votes have them.
        device: where tools and policy run; images stay in main memory.
        max_steps: most tools in a chain, without the final upscaler.
        scale: upscale factor, unless :meth:`restore` gets another one.
        super_resolver: the name of a tool, a file of weights, or a tool. None: the policy chooses; for a policy without
            super-resolvers the toolbox's first one, or else the shipped "sft_gan".
        backend: runs the tools' networks on a CPU, a key of :data:`tools_zoo.backends.network_tool.BACKENDS`. None:
            the toolbox's own, "torch" for one that is loaded by name.

    Raises:
        ValueError: no such toolbox, policy or backend, one that does not fit the other, or a device that cannot be
            used.
    """

    def __init__(
        self,
        toolbox: Toolbox | Sequence[Tool] | str | os.PathLike[str] = "default",
        policy: Policy | str | os.PathLike[str] | None = None,
        device: str = "cpu",
        max_steps: int = 3,
        *,
        scale: int = 1,
        super_resolver: SuperResolverLike | None = None,
        backend: str | None = None,
    ) -> None:
        self.scale, self.max_steps = _whole_number("scale", scale), _whole_number("max_steps", max_steps)
        self.device = usable_device(device)
        tools = resolve_toolbox(toolbox, self.device)
        self._tools = tools if backend is None else with_backend(tools, backend)
        self._named, self._policy, self._super_resolver = toolbox, policy, super_resolver
        self._pipelines: dict[bool, Pipeline] = {}
        self.pipeline()

    def pipeline(self, scale: int | None = None) -> Pipeline:
        """The pipeline for an upscale factor (None: the restorer's own).

        Raises:
            ValueError: no such policy or super-resolver, or one that does not fit the toolbox.
        """
        upscaling = (self.scale if scale is None else scale) > 1
        if upscaling not in self._pipelines:
            policy = policy_of(self._named, upscaling, photo=True) if self._policy is None else self._policy
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
    ) -> Restoration:
        """Restore an image.

        An image without colour stays so: between tools it is the luminance of what they return.

        Args:
            image: path, array or Photo.
            target: ground truth, to measure PSNR; ``scale`` times as high and wide.
            scale: upscale factor; None: the restorer's own. With 1 no super-resolver is allowed; with more, each that
                does not exceed it is, and the result is upscaled bicubically by the rest.
            progress: called at intervals.
            keep_float: also return the result before rounding.
            keep_stages: also return the image after each tool.
            strength: how much of the change is applied, 0 to 1.

        Raises:
            ImageError: an image cannot be used, the target has another size, or the result would be too large.
            ValueError: a policy that returns no actions of this toolbox, a tool that returns another shape, or a
                strength outside [0, 1].
        """
        if not 0 <= strength <= 1:
            raise ValueError(f"strength must lie in [0, 1], got {strength!r}")
        scale = self.scale if scale is None else _whole_number("scale", scale)
        pixels, photo = open_photo(image, "image")
        height, width = pixels.shape[:2]
        if height * width * scale * scale > MAX_PIXELS:
            raise ImageError(
                f"{width}x{height} upscaled {scale} times is more than {MAX_PIXELS / 1e6:.0f} megapixels and is refused"
            )
        reference = None if target is None else open_photo(target, "target")[1].pixels
        if reference is not None and reference.shape[:2] != (height * scale, width * scale):
            raise ImageError(
                f"the target is {reference.shape[1]}x{reference.shape[0]}, the result will be"
                f" {width * scale}x{height * scale}: they must be of one size"
            )
        pipeline = self.pipeline(scale)
        if (photo.grey or has_no_colour(pixels)) and pipeline.policy_input != PUBLISHED:  # which adds colours
            pipeline = pipeline.without_colour()
        started = time.perf_counter()
        report = progress or (lambda what, share: None)
        episode = TiledEpisode(pipeline, to_tensor(pixels), scale, self.device, report, self.max_steps, keep_stages)
        episode.play()
        working = episode.result()
        if strength < 1:
            working = torch.lerp(upscale_bicubic(to_tensor(pixels), scale, self.device), working, strength)
        restored = with_result(photo, working, scale)
        result = restored.pixels
        seconds = time.perf_counter() - started
        episode.working = episode.working[:0]  # frees memory for the comparison
        float_image = np.ascontiguousarray(working[0].permute(1, 2, 0).numpy()) if keep_float else None
        del working
        before = after = None
        if reference is not None:
            shown = pixels if photo.alpha is None else photo.pixels
            before = quality(to_pixels(upscale_bicubic(to_tensor(shown), scale, self.device)), reference)
            after = quality(result, reference)
        images = [*episode.stages, result] if keep_stages else []
        return Restoration(
            photo=restored,
            toolchain=tuple(episode.toolchain),
            votes=tuple(episode.votes),
            gmacs=episode.gmacs,
            seconds=seconds,
            scale=scale,
            psnr_before=before,
            psnr_after=after,
            float_image=float_image,
            stages=tuple(Stage(each, None if reference is None else quality(each, reference)) for each in images),
        )


def quality(pixels: npt.NDArray[np.uint8], target: npt.NDArray[np.uint8]) -> float:
    """PSNR in dB of two uint8 RGB images ``(H, W, 3)``."""
    return float(psnr(to_tensor(pixels), to_tensor(target)))


def _whole_number(name: str, value: int) -> int:
    if int(value) != value or value < 1:
        raise ValueError(f"{name} must be a whole number of 1 or more, got {value!r}")
    return int(value)
