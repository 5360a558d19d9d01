"""An episode of a whole image, whose tiles vote on each tool or choose their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from agents.restoration import CAUTION, LEAST_GAIN
from agents.restoration.choice import best_action, choose_by_votes, choose_tools
from agents.restoration.colours import Colours
from agents.restoration.pipeline import Pipeline
from agents.restoration.regions import TileAxis, TileGrid, apply_tools
from restore_env.episodes.observation import observe, observed_patch
from restore_env.episodes.transition import Actions, StepRules
from restore_env.images import samples
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
    """The tool that won, or "stop"; with regions the most common one, a tool before "stop"."""
    counts: Mapping[str, int]
    """Votes by name, the most common first; names without a vote are left out."""
    grid: Actions
    """The action that each tile chose, ``(rows, columns)``; numbers as in the toolbox, the last is stop. With regions
    it is the action that the tile gets; one that stopped earlier has stop, and its last scores."""
    scores: npt.NDArray[np.float32] | None
    """Each tile's score of every action, ``(rows, columns, actions)``, minus infinity where one is forbidden; logits or
    Q values, as the policy's ``kind`` says. None if the policy has no ``scores``."""
    edges: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
    """Borders between the tiles, down and across: ``(rows + 1,)`` and ``(columns + 1,)``, from 0 to 1 of the image's
    height and width. Where tiles overlap, the area belongs to the upper or left one; with regions, half to each."""
    predicted: float | None = None
    """Predicted gain of the chosen tools with those that may follow, dB, the mean of the tiles; None if the policy
    predicts none."""


class TiledEpisode:
    """The state of one episode on a whole image: working image, votes, and a recurrent state for each tile.

    Args:
        pipeline: policy and toolbox.
        image: float RGB ``(1, 3, H, W)``.
        scale: upscale factor of the result.
        device: of tools and policy; the image stays in main memory.
        progress: called after each batch of tiles, and during each tool.
        max_steps: maximal number of tools.
        keep_stages: keep the image before each tool.
        caution: smallest predicted gain, dB, for which a tool is applied by a policy that predicts gains.
        again: makes the image anew; None: it need not be changed in place.
        regions: every tile gets its own tools (``scale`` 1 alone, and if the policy chooses).
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
        caution: float = CAUTION,
        again: Callable[[], Tensor] | None = None,
        regions: bool = False,
    ) -> None:
        self._again, self._applied = again, list[Tool]()
        self._pipeline, self._toolbox, self._device, self._progress = pipeline, pipeline.toolbox, device, progress
        self._keep_stages, self._caution = keep_stages, caution
        self._regions = regions and pipeline.chain is None
        self._rules = StepRules(pipeline.toolbox, max_steps)
        self.working = image
        self.remaining = scale
        """How many times smaller than the result the working image is."""
        self.votes: list[Vote] = []
        self.steps: list[tuple[str, ...]] = []
        """Names of the tools that each step applied; with regions there may be several, the most common first."""
        self.gmacs = 0.0
        self.taken_back: list[str] = []
        """Names of the tools that were taken back: they changed colours as no restoration would."""
        self._whole_only: list[str] = []
        """Names of the tools that were taken back from a part of an undivided image: all of it may still get them."""
        self._checked = pipeline.policy_input.decide == "values"
        self.stages: list[Pixels] = []
        """The image before each tool, at the result's size; empty unless stages are kept."""
        self._state: tuple[npt.NDArray[Any], ...] | None = None
        self._grid = self._lay_tiles()
        self._last_action: Actions = np.full(self._grid.count, self._rules.no_action)
        self._history = np.zeros(self._grid.count, dtype=np.int64)
        """A number for each tile's chain so far, the same where the chains are the same; -1 where it stopped."""
        self._scores: tuple[npt.NDArray[Any], ...] | None = None
        self._colours = self._measure(image) if self._checked else None
        self._chains: list[Actions] = []

    @property
    def toolchain(self) -> tuple[str, ...]:
        """Names of the applied tools."""
        return tuple(name for step in self.steps for name in step)

    def regions(self) -> list[tuple[tuple[str, ...], float]]:
        """The chains of the tiles, and the share of the image's area that each has, the largest first."""
        if not self._regions:
            return [(self.toolchain, 1.0)]
        shares: dict[tuple[str, ...], float] = {}
        names, areas = [*self._toolbox.names, ""], self._grid.areas().ravel()
        for tile, area in enumerate(areas):
            chain = tuple(names[actions[tile]] for actions in self._chains if actions[tile] != self._toolbox.stop)
            shares[chain] = shares.get(chain, 0.0) + float(area)
        ranking = sorted(shares.items(), key=lambda item: -item[1])
        return [(chain, area / float(areas.sum())) for chain, area in ranking]

    def result(self) -> Tensor:
        """The working image at the result's size, upscaled bicubically where no super-resolver has run."""
        return upscale_bicubic(self.working, self.remaining, self._device)

    def play(self) -> None:
        """Apply the pipeline's chain, or the tools decided on; then the final upscaler if it is still needed."""
        if self._pipeline.chain is None:
            self._decide_and_apply()
        for tool in self._pipeline.chain or ():
            self._apply(tool)
        final_upscaler = self._pipeline.final_upscaler
        if final_upscaler is not None and self.remaining > 1 and self.remaining % final_upscaler.scale == 0:
            self._apply(final_upscaler)

    def _decide_and_apply(self) -> None:
        """Decide on tools and apply them, until stop or the last step."""
        step, stop = 0, self._toolbox.stop
        while step < self._rules.max_steps:
            before = self._state, self._scores
            actions = self._vote(step)
            if (actions == stop).all():
                break
            alike = (actions == actions[0]).all()
            if not (self._apply(self._toolbox[int(actions[0])]) if alike else self._apply_each(actions)):
                self._state, self._scores = before
                del self.votes[-1]
                continue
            step += 1
            if alike:  # the tiles may have been laid anew
                actions = np.full(self._grid.count, actions[0])
            self._last_action = actions
            pairs = self._history * self._rules.n_actions + actions
            numbers = np.unique(pairs, return_inverse=True)[1].reshape(pairs.shape)
            self._history = np.where((self._history >= 0) & (actions != stop), numbers, -1)
            self._chains.append(actions)
        self.taken_back += [name for name in self._whole_only if name not in self.toolchain]

    def _apply(self, tool: Tool) -> bool:
        """Apply a tool, or take it back and return False if it changed colours as no restoration would."""
        name = f"step {len(self.steps) + 1}: {tool.name}"
        self.gmacs += tool.macs_per_pixel * self.working[0, 0].numel() / 1e9
        stage = to_pixels(self.result()) if self._keep_stages else None
        in_place = self._again is not None and len(self._applied) == len(self.steps)
        in_place = in_place and all(each.scale == 1 for each in [*self._applied, tool])
        in_place = in_place and self.working[0, 0].numel() > samples.LARGE

        def report(share: float) -> None:
            self._progress(name, share)

        working = apply_tool(tool, self.working, self._device, progress=report, in_place=in_place)
        if tool.scale == 1 and self._differs(working, np.zeros(self._grid.count, dtype=np.int64)):
            self.taken_back.append(tool.name)
            if in_place:
                del working
                self._run_again()
            return False
        self._applied.append(tool)
        self._keep(working, (tool.name,), stage)
        if tool.scale > 1:
            self.remaining //= tool.scale
            self._move_tiles(tool.scale)
            self._colours = self._measure(working) if self._checked else None
        return True

    def _apply_each(self, actions: Actions) -> bool:
        """Apply each tile's tool; or take tools back and return False if they changed colours as restoring does not."""
        chosen, counts = np.unique(actions[actions != self._toolbox.stop], return_counts=True)
        tools = [self._toolbox[int(action)] for action in chosen[np.argsort(-counts, kind="stable")]]
        stage = to_pixels(self.result()) if self._keep_stages else None
        label, grid = f"step {len(self.steps) + 1}", actions.reshape(self._grid.shape)
        working, gmacs = apply_tools(
            *(self._toolbox, grid, self.working, self._grid, self._device),
            lambda name, share: self._progress(f"{label}: {name}", share),
        )
        self.gmacs += gmacs
        if changed := self._differs(working, actions):
            divided = (self._history != self._history[0]).any()
            refused = self.taken_back if divided else self._whole_only
            refused += [tool.name for tool in tools if self._toolbox.action(tool.name) in changed]
            return False
        self.taken_back += self._whole_only
        self._whole_only = []
        self._keep(working, tuple(tool.name for tool in tools), stage)
        return True

    def _differs(self, working: Tensor, actions: Actions) -> set[int]:
        """The tiles' actions by which colours differ by more than a restoration would change them."""
        if self._colours is None:
            return set()
        return self._colours.changed(working, actions.reshape(self._grid.shape)) - {self._toolbox.stop}

    def _keep(self, working: Tensor, names: tuple[str, ...], stage: Pixels | None) -> None:
        """Go on with a new working image."""
        if stage is not None:
            self.stages.append(stage)
        self.working = working
        self.steps.append(names)

    def _run_again(self) -> None:
        """Make the working image anew from the input."""
        assert self._again is not None
        self.working = self.working[:0]  # frees its memory
        self.working = self._again()
        for tool in self._applied:
            apply_tool(tool, self.working, self._device, in_place=True)

    def _measure(self, image: Tensor) -> Colours:
        return Colours(image, (self._grid.down.borders, self._grid.across.borders))

    def _vote(self, step: int) -> Actions:
        """Ask the policy about every tile, record the vote and return each tile's action, ``(tiles,)``.

        An image that is smaller than the result must not leave without a super-resolver: where the episode would end,
        the tiles vote on the allowed super-resolvers alone.
        """
        mask = self._rules.action_mask(self.remaining) * self._pipeline.permitted
        mask[[self._toolbox.action(name) for name in self.taken_back]] = 0
        upscaling = self._rules.upscaling_mask(mask)
        state, last = self._state, step + 1 == self._rules.max_steps
        vote = self._count_votes(upscaling if last and upscaling.any() else mask)
        if vote.action == self._toolbox.STOP_NAME and upscaling.any():
            self._state = state
            vote = self._count_votes(upscaling)
        self.votes.append(vote)
        return vote.grid.ravel() if self._regions else np.full(vote.grid.size, self._toolbox.action(vote.action))

    def _count_votes(self, mask: npt.NDArray[np.int8]) -> Vote:
        toolbox = self._toolbox
        chosen, scores = self._choose(mask)
        values = scores if self._checked else None
        if self._regions:
            chosen = self._choose_nearby(chosen, values, mask)
        counts = np.bincount(chosen, minlength=len(mask))
        allowed = np.where(mask, counts, 0)
        if self._regions:
            action = int(allowed[:-1].argmax()) if allowed[:-1].any() else toolbox.stop
        elif values is not None:
            action = best_action(values, mask, self._caution)
        else:
            otherwise = toolbox.stop if mask[toolbox.stop] else int(mask.argmax())
            action = int(allowed.argmax()) if allowed.any() else otherwise
        predicted = None
        if values is not None:
            taken = chosen if self._regions else np.full(len(chosen), action)
            gains = np.take_along_axis(values, taken[:, None], axis=1)[:, 0].clip(min=LEAST_GAIN)
            predicted = float(np.where(taken == toolbox.stop, 0.0, gains).mean())
        ranking = sorted(np.flatnonzero(counts).tolist(), key=lambda index: -counts[index])
        axes = (self._grid.down, self._grid.across)
        if self._regions:
            down, across = (axis.borders / axis.length for axis in axes)
        else:
            ends = [np.minimum(np.array(axis.starts) + self._pipeline.patch_size, axis.length) for axis in axes]
            down, across = (np.array([0, *end]) / axis.length for end, axis in zip(ends, axes, strict=True))
        return Vote(
            toolbox.name(action),
            {toolbox.name(index): int(counts[index]) for index in ranking},
            chosen.reshape(self._grid.shape),
            None if scores is None else scores.reshape(*self._grid.shape, -1),
            (down, across),
            predicted,
        )

    def _choose_nearby(
        self, chosen: Actions, values: npt.NDArray[np.float32] | None, mask: npt.NDArray[np.int8]
    ) -> Actions:
        """Each tile's action by the gains that are predicted nearby, or the votes there: ``(tiles,)``."""
        if values is None:
            return choose_by_votes(chosen, mask, self._history, self._grid.shape)
        of_parts = mask.copy()
        of_parts[[self._toolbox.action(name) for name in self._whole_only]] = 0
        return choose_tools(values, mask, self._history, self._grid.shape, self._caution, of_parts)

    def _choose(self, mask: npt.NDArray[np.int8]) -> tuple[Actions, npt.NDArray[np.float32] | None]:
        """Ask the policy for the action and scores of each tile that has not stopped, and update the states.

        Returns:
            Actions ``(tiles,)``, and scores ``(tiles, actions)`` or None.
        """
        first = self._state is None and not self.votes
        places = [(row, column) for row in self._grid.down.starts for column in self._grid.across.starts]
        asked = np.flatnonzero(self._history >= 0)
        actions: Actions = np.full(len(places), self._toolbox.stop)
        states: list[tuple[npt.NDArray[Any], ...]] = []
        scores: list[tuple[npt.NDArray[np.float32]]] = []
        for start in range(0, len(asked), BATCH_SIZE):
            batch = asked[start : start + BATCH_SIZE]
            n = len(batch)
            left = np.full(n, self._rules.max_steps - len(self.votes), dtype=np.int64)
            patches = {"image": self._patches([places[tile] for tile in batch])}
            observation = observe(patches, self._last_action[batch], np.tile(mask, (n, 1)), left)
            state = None if self._state is None else tuple(part[:, batch] for part in self._state)
            policy, started = self._pipeline.policy, np.full(n, first)
            if isinstance(policy, ScoringPolicy):  # its deterministic predict takes the highest score
                scored, state = policy.scores(observation, state, started)
                scores.append((scored,))
                chosen = scored.argmax(axis=1)
            else:
                chosen, state = policy.predict(observation, state=state, episode_start=started, deterministic=True)
            actions[batch] = self._rules.checked(chosen, n)
            if state is not None:
                states.append(tuple(np.asarray(part) for part in state))
            self._progress(f"step {len(self.votes) + 1}: voting", (start + n) / len(asked))
        self._state = _updated(self._state, states, asked, axis=1)
        self._scores = _updated(self._scores, scores, asked, axis=0)
        return actions, None if self._scores is None else self._scores[0]

    def _patches(self, tiles: Sequence[tuple[int, int]]) -> npt.NDArray[Any]:
        """The observed images of tiles, ``(N, P, P, 3)``; an image smaller than a patch is padded."""
        size = self._pipeline.patch_size
        missing = [max(0, size - length) for length in self.working.shape[-2:]]
        padded = self.working
        if any(missing):
            padded = F.pad(padded.float(), (0, missing[1], 0, missing[0]), mode="replicate")
        patches = torch.cat([padded[:, :, row : row + size, column : column + size] for row, column in tiles])
        return observed_patch(patches.float(), self._pipeline.policy_input.observe)

    def _lay_tiles(self) -> TileGrid:
        """The tiles of the working image."""
        size, borders = self._pipeline.patch_size, self._pipeline.policy_input.borders
        height, width = self.working.shape[-2:]
        down, across = (TileAxis.of(tile_starts(length, size, borders), size, length) for length in (height, width))
        return TileGrid(down, across)

    def _move_tiles(self, factor: int) -> None:
        """Lay the tiles over the upscaled image; each takes over the state of the nearest old tile."""
        old, self._grid = self._grid, self._lay_tiles()
        self._history, self._scores = np.zeros(self._grid.count, dtype=np.int64), None
        if self._state is None:
            return
        half = self._pipeline.patch_size / 2
        rows, columns = (
            [
                min(range(len(before.starts)), key=lambda i: abs((before.starts[i] + half) * factor - (start + half)))
                for start in now.starts
            ]
            for before, now in ((old.down, self._grid.down), (old.across, self._grid.across))
        )
        origin = [row * len(old.across.starts) + column for row in rows for column in columns]
        self._state = tuple(part[:, origin] for part in self._state)


def _updated(
    before: tuple[npt.NDArray[Any], ...] | None,
    batches: Sequence[tuple[npt.NDArray[Any], ...]],
    tiles: npt.NDArray[np.int64],
    axis: int,
) -> tuple[npt.NDArray[Any], ...] | None:
    """Arrays with an axis of tiles, with new values for some tiles, which come in batches; None: there are none."""
    if not batches:
        return None
    parts = [np.concatenate(part, axis=axis) for part in zip(*batches, strict=True)]
    if before is None or before[0].shape[axis] == len(tiles):
        return tuple(parts)
    merged = tuple(part.copy() for part in before)
    for whole, part in zip(merged, parts, strict=True):
        whole[(slice(None),) * axis + (tiles,)] = part
    return merged
