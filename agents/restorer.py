"""Restoring whole images of any size: the patches' policy votes on each tool, tile by tile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from agents.network import PATCH_SIZE, check_tools, load_policy, policy_of
from agents.view import View
from restore_env.episodes import quantised
from restore_env.images import MAX_PIXELS, ImageError, Photo
from restore_env.metrics import psnr
from restore_env.policy import Policy, Scoring
from restore_env.sources import PhotoLike, open_photo
from restore_env.tiling import apply_tool, enlarge, tile_starts, to_pixels, to_tensor
from restore_env.toolbox import Tool, Toolbox, resolve_toolbox, usable_device
from restore_env.writing import write_image
from tools_zoo.toolboxes import load_toolbox

Actions = npt.NDArray[np.int64]
Progress = Callable[[str, float], None]
"""``progress(what, share)``: what is going on ("step 2: looking", "step 2: dejpeg_3") and the share of it done."""

BATCH_SIZE = 256
"""Tiles that the policy sees at a time."""


@dataclass(frozen=True)
class Vote:
    """One step's choice."""

    action: str
    """The tool that won, or "stop"."""
    counts: Mapping[str, int]
    """Votes by name, the most common first; names without a vote are left out."""
    grid: Actions
    """The action that each tile chose, ``(rows, columns)``; numbers as in the toolbox, the last is stop."""
    scores: npt.NDArray[np.float32] | None
    """Each tile's score of every action, ``(rows, columns, actions)``, minus infinity where one is forbidden; logits or
    Q values, as the policy's ``kind`` says. None if the policy has no ``scores``."""
    edges: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
    """Where the tiles' shares of the image begin and end, down and across: ``(rows + 1,)`` and ``(columns + 1,)``, from
    0 to 1 of its height and width. What two tiles see belongs to the one above or to the left."""


@dataclass(frozen=True)
class Stage:
    """The image between two tools."""

    image: npt.NDArray[np.uint8]
    """RGB ``(H, W, 3)`` of the result's size, enlarged bicubically as far as no tool has done so."""
    psnr: float | None
    """dB, as 8 bits; None without a target."""


@dataclass(frozen=True)
class Restoration:
    """A restored image and how it was made."""

    photo: Photo
    """The result, with the input's colour profile and EXIF."""
    toolchain: tuple[str, ...]
    """Names of the tools that were applied, in order. That the agent stopped is seen in the last vote."""
    votes: tuple[Vote, ...]
    """One a step, the one for "stop" included."""
    gmacs: float
    """What the tools computed, 10^9 multiply-accumulates (without the policy and bicubic enlargement)."""
    seconds: float
    """Wall time from pixels to pixels."""
    psnr_before: float | None = None
    """dB, of the input (enlarged bicubically if the target is larger) as 8 bits; None without a target."""
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

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write PNG, JPEG, WebP or TIFF, by the suffix (:func:`restore_env.writing.write_image`)."""
        write_image(path, self.photo)


class Restorer:
    """A toolbox and a policy that restore images of any size.

    The image is covered by tiles of the policy's patch size; each tile is looked at as a patch in the environment is,
    with an LSTM state of its own. The action that most tiles choose is done to the whole image and is every tile's
    previous action at the next step. Of equally many votes the lower action wins. An image smaller than a patch is
    extended for the policy's eyes by repeating its last row or column.

    Source: Yu et al., CVPR 2018, by whose published code every full 63x63 tile from the top left votes
    (:data:`agents.view.PUBLISHED`, which the file of the imported agent says, so that nobody has to).

    Args:
        toolbox: a shipped name, a toolbox's folder, "package.module:factory", a :class:`Toolbox` or a list of tools.
        policy: a shipped name, a policy's file, or an object with Stable-Baselines3's ``predict``; None: the toolbox's
            own (:func:`agents.network.policy_of`). Its ``patch_size``
            (63 if it has none) is the side of what it looks at; its ``tools``, if it has them, must be the toolbox's
            names. A state that it returns is a tuple of arrays whose second axis is the batch. If it has ``scores``
            (:class:`agents.rollout.Scoring`), tiles choose by these, and votes tell them.
        device: where tools and policy run; images stay in main memory.
        max_steps: tools at most.
        borders: let a last row and column of tiles, flush with the border, vote on what full tiles leave over. None:
            as the policy's recipe says (:class:`agents.view.View`), else True.
        observe: what the policy sees, as the environment's ``dtype``: "uint8", clipped and rounded; or "float32",
            the working image as it is. None: as the policy's recipe says, else "uint8".

    Raises:
        ValueError: no such toolbox or policy, one that does not fit the other, or a device that cannot be used.
    """

    def __init__(
        self,
        toolbox: Toolbox | Sequence[Tool] | str | os.PathLike[str] = "default",
        policy: Policy | str | os.PathLike[str] | None = None,
        device: str = "cpu",
        max_steps: int = 3,
        *,
        borders: bool | None = None,
        observe: Literal["uint8", "float32"] | None = None,
    ) -> None:
        if int(max_steps) != max_steps or max_steps < 1:
            raise ValueError(f"max_steps must be a whole number of 1 or more, got {max_steps!r}")
        self.device = usable_device(device)
        self.toolbox = _open_toolbox(toolbox, self.device)
        policy = policy_of(toolbox) if policy is None else policy
        self.policy: Policy = load_policy(policy, self.device) if isinstance(policy, (str, os.PathLike)) else policy
        self.max_steps = int(max_steps)
        view = View.of(self.policy)
        self.view = View(
            view.observe if observe is None else observe,
            view.borders if borders is None else borders,
        )
        self.patch_size = int(getattr(self.policy, "patch_size", PATCH_SIZE))
        check_tools(self.policy, self.toolbox.names)

    @torch.inference_mode()
    def restore(
        self,
        image: PhotoLike,
        target: PhotoLike | None = None,
        *,
        scale: int = 1,
        progress: Progress | None = None,
        keep_float: bool = False,
        keep_stages: bool = False,
    ) -> Restoration:
        """Restore an image.

        Args:
            image: path, array or Photo.
            target: what it should look like, to measure PSNR; ``scale`` times as high and wide.
            scale: how many times higher and wider the result is to be. With 1 no super-resolver is allowed; with more,
                each that does not exceed it is, and bicubic enlargement makes up for what is missing at the end.
            progress: called now and then while it works.
            keep_float: keep the result before rounding, too.
            keep_stages: keep the image after each tool, too.

        Raises:
            ImageError: an image cannot be used, the target has another size, or the result would be too large.
            ValueError: a policy that returns no actions of this toolbox, or a tool that returns another shape.
        """
        if int(scale) != scale or scale < 1:
            raise ValueError(f"scale must be a whole number of 1 or more, got {scale!r}")
        pixels, photo = open_photo(image, "image")
        height, width = pixels.shape[:2]
        if height * width * scale * scale > MAX_PIXELS:
            raise ImageError(
                f"{width}x{height} enlarged {scale} times is more than {MAX_PIXELS / 1e6:.0f} megapixels and is refused"
            )
        reference = None if target is None else _open_target(target, (height * scale, width * scale))
        started = time.perf_counter()
        episode = _Episode(self, to_tensor(pixels), scale, progress or (lambda what, share: None))
        passed: list[npt.NDArray[np.uint8]] = []
        for step in range(1, self.max_steps + 1):
            if keep_stages:
                passed.append(to_pixels(episode.shown()))
            if not episode.advance(step):
                break
        working = episode.shown()
        result = to_pixels(working)
        seconds = time.perf_counter() - started
        votes, gmacs = tuple(episode.votes), episode.gmacs
        float_image = np.ascontiguousarray(working[0].permute(1, 2, 0).numpy()) if keep_float else None
        del episode, working  # their memory is needed for the comparison
        before = after = None
        if reference is not None:
            before = quality(to_pixels(enlarge(to_tensor(pixels), scale, self.device)), reference)
            after = quality(result, reference)
        toolchain = tuple(vote.action for vote in votes if vote.action != Toolbox.STOP_NAME)
        shown = [*passed[: len(toolchain)], result] if keep_stages else []
        stages = tuple(Stage(image, None if reference is None else quality(image, reference)) for image in shown)
        return Restoration(
            photo=Photo(result, photo.icc_profile, photo.exif),
            toolchain=toolchain,
            votes=votes,
            gmacs=gmacs,
            seconds=seconds,
            psnr_before=before,
            psnr_after=after,
            float_image=float_image,
            stages=stages,
        )


class _Episode:
    """One image on its way: working image, votes so far, the tiles' LSTM states."""

    def __init__(self, restorer: Restorer, working: Tensor, scale: int, progress: Progress) -> None:
        self._restorer, self._toolbox, self._progress = restorer, restorer.toolbox, progress
        self.working = working
        self.remaining = scale
        """How many times the working image has yet to be enlarged."""
        self.votes: list[Vote] = []
        self.gmacs = 0.0
        self._last_action = len(self._toolbox) + 1  # none yet
        self._state: tuple[npt.NDArray[Any], ...] | None = None
        self._rows, self._columns = self._tile_starts()

    def shown(self) -> Tensor:
        """The working image at the result's size."""
        return enlarge(self.working, self.remaining, self._restorer.device)

    def advance(self, step: int) -> bool:
        """Vote, and do what won; return whether that was a tool."""
        toolbox = self._toolbox
        action = self._vote(f"step {step}: looking")
        if action == toolbox.stop:
            return False
        tool, name = toolbox[action], f"step {step}: {toolbox.name(action)}"
        self.gmacs += tool.macs_per_pixel * self.working.shape[-2] * self.working.shape[-1] / 1e9
        self.working = apply_tool(
            tool, self.working, self._restorer.device, progress=lambda share: self._progress(name, share)
        )
        self._last_action = action
        if tool.scale > 1:
            self.remaining //= tool.scale
            self._move_tiles(tool.scale)
        return True

    def _vote(self, what: str) -> int:
        """Let every tile choose, note the vote and return the most common action that is allowed."""
        toolbox = self._toolbox
        mask = toolbox.action_mask(self.remaining)
        chosen, scores = self._choose(mask, what)
        counts = np.bincount(chosen, minlength=len(mask))
        allowed = np.where(mask, counts, 0)
        action = int(allowed.argmax()) if allowed.any() else toolbox.stop
        ranking = sorted(np.flatnonzero(counts).tolist(), key=lambda index: -counts[index])
        self.votes.append(
            Vote(
                toolbox.name(action),
                {toolbox.name(index): int(counts[index]) for index in ranking},
                chosen.reshape(len(self._rows), len(self._columns)),
                None if scores is None else scores.reshape(len(self._rows), len(self._columns), -1),
                (self._edges(self._rows, -2), self._edges(self._columns, -1)),
            )
        )
        return action

    def _edges(self, starts: Sequence[int], axis: int) -> npt.NDArray[np.float64]:
        """Where the tiles' shares begin, and the last one's ends, from 0 to 1."""
        size, length = self._restorer.patch_size, self.working.shape[axis]
        ends = np.minimum(np.array(starts) + size, length)
        return np.array([0, *ends]) / length

    def _choose(self, mask: npt.NDArray[np.int8], what: str) -> tuple[Actions, npt.NDArray[np.float32] | None]:
        """Each tile's action, ``(tiles,)``, and scores, ``(tiles, actions)``; the tiles' states move on."""
        first = self._state is None and not self.votes
        tiles = [(row, column) for row in self._rows for column in self._columns]
        actions: list[Actions] = []
        scores: list[npt.NDArray[np.float32]] = []
        states: list[tuple[npt.NDArray[Any], ...]] = []
        for start in range(0, len(tiles), BATCH_SIZE):
            batch = slice(start, min(start + BATCH_SIZE, len(tiles)))
            n = batch.stop - batch.start
            observation = {
                "image": self._look(tiles[batch]),
                "last_action": np.full(n, self._last_action, dtype=np.int64),
                "action_mask": np.tile(mask, (n, 1)),
            }
            state = None if self._state is None else tuple(part[:, batch] for part in self._state)
            policy, started = self._restorer.policy, np.full(n, first)
            if isinstance(policy, Scoring):  # what its deterministic predict takes the highest of
                scored, state = policy.scores(observation, state, started)
                scores.append(scored)
                chosen = scored.argmax(axis=1)
            else:
                chosen, state = policy.predict(observation, state=state, episode_start=started, deterministic=True)
            actions.append(self._checked(chosen, n))
            if state is not None:
                states.append(tuple(np.asarray(part) for part in state))
            self._progress(what, batch.stop / len(tiles))
        self._state = tuple(np.concatenate(parts, axis=1) for parts in zip(*states, strict=True)) if states else None
        return np.concatenate(actions), np.concatenate(scores) if scores else None

    def _checked(self, chosen: npt.NDArray[Any], n: int) -> Actions:
        actions = np.asarray(chosen)
        if actions.shape != (n,) or not ((actions >= 0) & (actions <= self._toolbox.stop)).all():
            raise ValueError(
                f"the policy must return {n} actions in 0..{self._toolbox.stop} for {n} patches, got {actions.tolist()}"
            )
        return actions.astype(np.int64)

    def _look(self, tiles: Sequence[tuple[int, int]]) -> npt.NDArray[Any]:
        """The tiles as the policy sees them, ``(N, P, P, 3)``."""
        size = self._restorer.patch_size
        patches = torch.cat([self._patch(row, column, size) for row, column in tiles])
        if self._restorer.view.observe == "uint8":
            patches = quantised(patches)
        return np.ascontiguousarray(patches.permute(0, 2, 3, 1).numpy())

    def _patch(self, row: int, column: int, size: int) -> Tensor:
        patch = self.working[:, :, row : row + size, column : column + size]
        missing = (0, size - patch.shape[-1], 0, size - patch.shape[-2])
        return F.pad(patch, missing, mode="replicate") if any(missing) else patch

    def _tile_starts(self) -> tuple[list[int], list[int]]:
        restorer = self._restorer
        height, width = self.working.shape[-2:]
        return (
            tile_starts(height, restorer.patch_size, restorer.view.borders),
            tile_starts(width, restorer.patch_size, restorer.view.borders),
        )

    def _move_tiles(self, factor: int) -> None:
        """Lay the tiles over the enlarged image; each goes on from the state of the old tile nearest to it."""
        old_rows, old_columns = self._rows, self._columns
        self._rows, self._columns = self._tile_starts()
        if self._state is None:
            return
        half = self._restorer.patch_size / 2
        rows, columns = (
            [min(range(len(old)), key=lambda i: abs((old[i] + half) * factor - (start + half))) for start in new]
            for old, new in ((old_rows, self._rows), (old_columns, self._columns))
        )
        origin = [row * len(old_columns) + column for row in rows for column in columns]
        self._state = tuple(part[:, origin] for part in self._state)


def quality(pixels: npt.NDArray[np.uint8], target: npt.NDArray[np.uint8]) -> float:
    """PSNR in dB of two uint8 RGB images ``(H, W, 3)``."""
    return float(psnr(to_tensor(pixels), to_tensor(target)))


def _open_toolbox(toolbox: Toolbox | Sequence[Tool] | str | os.PathLike[str], device: torch.device) -> Toolbox:
    if isinstance(toolbox, os.PathLike) or (isinstance(toolbox, str) and ":" not in toolbox):
        return load_toolbox(toolbox, device)
    if isinstance(toolbox, str) and Path(toolbox).exists():
        return load_toolbox(toolbox, device)
    return resolve_toolbox(toolbox, device)


def _open_target(target: PhotoLike, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    _, photo = open_photo(target, "target")
    height, width = photo.pixels.shape[:2]
    if (height, width) != size:
        raise ImageError(
            f"the target is {width}x{height}, the result will be {size[1]}x{size[0]}: they must be of one size"
        )
    return photo.pixels
