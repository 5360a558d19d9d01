"""An episode of a whole image, whose tiles vote on each tool."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from agents.restoration.pipeline import Pipeline
from restore_env.episodes.observation import observe, observed_patch
from restore_env.episodes.transition import Actions, StepRules
from restore_env.images.arrays import Pixels
from restore_env.images.tiling import apply_tool, tile_starts, to_pixels, upscale_bicubic
from restore_env.policy import ScoringPolicy
from restore_env.toolbox import Tool

Progress = Callable[[str, float], None]
"""``progress(what, share)``: the current work ("step 2: voting", "step 2: dejpeg_3") and the share of it done."""

BATCH_SIZE = 256
"""Tiles per call of the policy."""


@dataclass(frozen=True)
class Vote:
    """The vote of one step."""

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
    """Borders between the tiles, down and across: ``(rows + 1,)`` and ``(columns + 1,)``, from 0 to 1 of the image's
    height and width. Where tiles overlap, the area belongs to the upper or left one."""


class TiledEpisode:
    """The state of one episode on a whole image: working image, votes, and a recurrent state for each tile.

    Args:
        pipeline: policy and toolbox.
        image: float32 RGB ``(1, 3, H, W)``.
        scale: upscale factor of the result.
        device: of tools and policy; the image stays in main memory.
        progress: called after each batch of tiles, and during each tool.
        max_steps: maximal number of tools.
        keep_stages: keep the image before each tool.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        image: Tensor,
        scale: int,
        device: torch.device,
        progress: Progress,
        max_steps: int,
        keep_stages: bool = False,
    ) -> None:
        self._pipeline, self._toolbox, self._device, self._progress = pipeline, pipeline.toolbox, device, progress
        self._keep_stages = keep_stages
        self._rules = StepRules(pipeline.toolbox, max_steps)
        self.working = image
        self.remaining = scale
        """How many times smaller than the result the working image is."""
        self.votes: list[Vote] = []
        self.toolchain: list[str] = []
        """Names of the applied tools."""
        self.gmacs = 0.0
        self.stages: list[Pixels] = []
        """The image before each tool, at the result's size; empty unless stages are kept."""
        self._last_action = self._rules.no_action
        self._state: tuple[npt.NDArray[Any], ...] | None = None
        self._rows, self._columns = self._tile_starts()

    def result(self) -> Tensor:
        """The working image at the result's size, upscaled bicubically where no super-resolver has run."""
        return upscale_bicubic(self.working, self.remaining, self._device)

    def play(self) -> None:
        """Vote and apply the winner until stop or the last step; then run the final upscaler if it is still needed."""
        for step in range(self._rules.max_steps):
            action = self._vote(step)
            if action == self._toolbox.stop:
                break
            self._apply(self._toolbox[action])
            self._last_action = action
        final_upscaler = self._pipeline.final_upscaler
        if final_upscaler is not None and self.remaining > 1 and self.remaining % final_upscaler.scale == 0:
            self._apply(final_upscaler)

    def _apply(self, tool: Tool) -> None:
        if self._keep_stages:
            self.stages.append(to_pixels(self.result()))
        name = f"step {len(self.toolchain) + 1}: {tool.name}"
        self.gmacs += tool.macs_per_pixel * self.working[0, 0].numel() / 1e9
        self.working = apply_tool(tool, self.working, self._device, progress=lambda share: self._progress(name, share))
        self.toolchain.append(tool.name)
        if tool.scale > 1:
            self.remaining //= tool.scale
            self._move_tiles(tool.scale)

    def _vote(self, step: int) -> int:
        """Let every tile choose, record the vote and return the most common allowed action.

        An image that is smaller than the result must not leave without a super-resolver: where the episode would end,
        the tiles vote on the allowed super-resolvers alone.
        """
        mask = self._rules.action_mask(self.remaining) * self._pipeline.permitted
        upscaling = self._rules.upscaling_mask(mask)
        state, last = self._state, step + 1 == self._rules.max_steps
        vote = self._count_votes(upscaling if last and upscaling.any() else mask)
        if vote.action == self._toolbox.STOP_NAME and upscaling.any():
            self._state = state
            vote = self._count_votes(upscaling)
        self.votes.append(vote)
        return self._toolbox.action(vote.action)

    def _count_votes(self, mask: npt.NDArray[np.int8]) -> Vote:
        toolbox = self._toolbox
        chosen, scores = self._choose(mask)
        counts = np.bincount(chosen, minlength=len(mask))
        allowed = np.where(mask, counts, 0)
        otherwise = toolbox.stop if mask[toolbox.stop] else int(mask.argmax())
        action = int(allowed.argmax()) if allowed.any() else otherwise
        ranking = sorted(np.flatnonzero(counts).tolist(), key=lambda index: -counts[index])
        grid, size = (len(self._rows), len(self._columns)), self.working.shape[-2:]
        down, across = (
            np.array([0, *np.minimum(np.array(starts) + self._pipeline.patch_size, length)]) / length
            for starts, length in zip((self._rows, self._columns), size, strict=True)
        )
        return Vote(
            toolbox.name(action),
            {toolbox.name(index): int(counts[index]) for index in ranking},
            chosen.reshape(grid),
            None if scores is None else scores.reshape(*grid, -1),
            (down, across),
        )

    def _choose(self, mask: npt.NDArray[np.int8]) -> tuple[Actions, npt.NDArray[np.float32] | None]:
        """Ask the policy for each tile's action, ``(tiles,)``, and scores, ``(tiles, actions)``; update the states."""
        first = self._state is None and not self.votes
        tiles = [(row, column) for row in self._rows for column in self._columns]
        actions: list[Actions] = []
        scores: list[npt.NDArray[np.float32]] = []
        states: list[tuple[npt.NDArray[Any], ...]] = []
        for start in range(0, len(tiles), BATCH_SIZE):
            batch = slice(start, min(start + BATCH_SIZE, len(tiles)))
            n = batch.stop - batch.start
            last_action = np.full(n, self._last_action, dtype=np.int64)
            left = np.full(n, self._rules.max_steps - len(self.votes), dtype=np.int64)
            patches = {"image": self._patches(tiles[batch])}
            observation = observe(patches, last_action, np.tile(mask, (n, 1)), left)
            state = None if self._state is None else tuple(part[:, batch] for part in self._state)
            policy, started = self._pipeline.policy, np.full(n, first)
            if isinstance(policy, ScoringPolicy):  # its deterministic predict takes the highest score
                scored, state = policy.scores(observation, state, started)
                scores.append(scored)
                chosen = scored.argmax(axis=1)
            else:
                chosen, state = policy.predict(observation, state=state, episode_start=started, deterministic=True)
            actions.append(self._rules.checked(chosen, n))
            if state is not None:
                states.append(tuple(np.asarray(part) for part in state))
            self._progress(f"step {len(self.votes) + 1}: voting", batch.stop / len(tiles))
        self._state = tuple(np.concatenate(parts, axis=1) for parts in zip(*states, strict=True)) if states else None
        return np.concatenate(actions), np.concatenate(scores) if scores else None

    def _patches(self, tiles: Sequence[tuple[int, int]]) -> npt.NDArray[Any]:
        """The observed images of tiles, ``(N, P, P, 3)``; an image smaller than a patch is padded."""
        size = self._pipeline.patch_size
        missing = [max(0, size - length) for length in self.working.shape[-2:]]
        padded = F.pad(self.working, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else self.working
        patches = torch.cat([padded[:, :, row : row + size, column : column + size] for row, column in tiles])
        return observed_patch(patches, self._pipeline.policy_input.observe)

    def _tile_starts(self) -> tuple[list[int], list[int]]:
        height, width = self.working.shape[-2:]
        size, borders = self._pipeline.patch_size, self._pipeline.policy_input.borders
        return tile_starts(height, size, borders), tile_starts(width, size, borders)

    def _move_tiles(self, factor: int) -> None:
        """Lay the tiles over the upscaled image; each takes over the state of the nearest old tile."""
        old_rows, old_columns = self._rows, self._columns
        self._rows, self._columns = self._tile_starts()
        if self._state is None:
            return
        half = self._pipeline.patch_size / 2
        rows, columns = (
            [min(range(len(old)), key=lambda i: abs((old[i] + half) * factor - (start + half))) for start in new]
            for old, new in ((old_rows, self._rows), (old_columns, self._columns))
        )
        origin = [row * len(old_columns) + column for row in rows for column in columns]
        self._state = tuple(part[:, origin] for part in self._state)
