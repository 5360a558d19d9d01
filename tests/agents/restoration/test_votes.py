"""Votes of the tiles in the Restorer, and when it upscales."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from agents.restoration.restorer import Restorer
from restore_env.images.decoding import ImageError
from restore_env.images.tiling import to_pixels, to_tensor
from restore_env.toolbox import FunctionTool, Toolbox, bicubic_upscale
from tests.support.toolkit import Scripted, always, picture, pixelwise_toolbox

pytestmark = pytest.mark.usefixtures("one_thread")


class Remembering:
    """A policy whose state holds the colour that each tile had at the first step; it checks that it gets it back."""

    patch_size = 4

    def __init__(self, first: int, then: int) -> None:
        self.first, self.then, self.batches = first, then, 0

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[np.int64], Any]:
        self.batches += 1
        colours = observation["image"][:, 0, 0].astype(np.int64)
        n = len(colours)
        if state is None:
            return np.full(n, self.first), (colours[None], np.zeros((2, n)))
        remembered, other = state
        assert other.shape == (2, n)
        np.testing.assert_array_equal(remembered[0], colours)
        return np.full(n, self.then), state


# Votes ---------------------------------------------------------------------------------------------------------------


def test_the_majority_wins_and_votes_are_kept() -> None:
    policy = Scripted(lambda _: [2, 0, 1, 1, 3, 1], always(3))
    result = Restorer(pixelwise_toolbox(), policy).restore(picture())
    first, last = result.votes
    assert result.toolchain == ("dim",)
    assert (first.action, last.action) == ("dim", "stop")
    assert list(first.counts.items()) == [("dim", 3), ("brighten", 1), ("invert", 1), ("stop", 1)]
    assert first.grid.tolist() == [[2, 0, 1], [1, 3, 1]]
    assert last.counts == {"stop": 6}
    expected = np.rint(picture().astype(np.float32) / 255 * np.float32(0.9) * 255).astype(np.uint8)
    np.testing.assert_array_equal(result.image, expected)
    assert result.gmacs == pytest.approx(3 * 16 * 24 / 1e9)
    assert result.seconds > 0
    assert (result.psnr_before, result.psnr_after, result.float_image) == (None, None, None)


@pytest.mark.parametrize(
    ("chosen", "winner"),
    [([2, 2, 1, 1, 3, 3], "dim"), ([3, 3, 3, 2, 2, 2], "invert"), ([0, 1, 2, 3, 3, 0], "brighten")],
)
def test_of_equally_many_votes_the_lower_action_wins(chosen: list[int], winner: str) -> None:
    result = Restorer(pixelwise_toolbox(), Scripted(lambda _: chosen, always(3))).restore(picture())
    assert result.votes[0].action == winner


def test_borders_vote_by_default() -> None:
    image = picture(17, 20)
    for recipe, grid in (({}, (3, 3)), ({"borders": False}, (2, 2))):
        policy = Scripted(always(3), **recipe)
        result = Restorer(pixelwise_toolbox(), policy).restore(image)
        assert result.votes[0].grid.shape == grid
        last = image[9:, 12:] if grid == (3, 3) else image[8:16, 8:16]
        np.testing.assert_array_equal(policy.seen[0]["image"][-1], last)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (62, 63), (63, 62), (5000, 1)])
def test_small_images_are_padded_for_the_policy_only(height: int, width: int) -> None:
    image = picture(height, width)
    policy = Scripted(always(2), always(3), patch_size=63)
    result = Restorer(pixelwise_toolbox(), policy).restore(image)
    np.testing.assert_array_equal(result.image, 255 - image)
    patches = policy.seen[0]["image"]
    assert patches.shape[1:] == (63, 63, 3)
    padded = np.pad(image, ((0, max(0, 63 - height)), (0, max(0, 63 - width)), (0, 0)), mode="edge")
    np.testing.assert_array_equal(patches[0], padded[:63, :63])
    np.testing.assert_array_equal(patches[-1], padded[-63:, -63:])
    assert len(patches) == -(-height // 63) * -(-width // 63)


def test_the_policy_gets_the_last_action_and_the_mask() -> None:
    policy = Scripted(lambda _: [1, 1, 1, 0, 0, 2], lambda _: [0, 2, 2, 2, 2, 2], always(1))
    result = Restorer(pixelwise_toolbox(), policy).restore(picture())
    assert result.toolchain == ("dim", "invert", "dim")
    assert [step["last_action"].tolist() for step in policy.seen] == [[4] * 6, [1] * 6, [2] * 6]
    assert all(step["last_action"].dtype == np.int64 for step in policy.seen)
    assert all((step["action_mask"] == np.ones((6, 4))).all() for step in policy.seen)


def test_every_tile_keeps_its_own_state_across_batches() -> None:
    policy = Remembering(first=1, then=0)
    toolbox = Toolbox(
        [
            FunctionTool("blank", lambda x: x * 0, receptive_radius=0),
            FunctionTool("same", lambda x: x, receptive_radius=0),
        ]
    )
    image = picture(4 * 20, 4 * 30)
    with pytest.raises(AssertionError):
        Restorer(toolbox, Remembering(first=0, then=0)).restore(image)
    assert Restorer(toolbox, policy, max_steps=2).restore(image).toolchain == ("same", "blank")
    assert policy.batches == 2 * 3


def test_tiles_of_an_upscaled_image_take_the_nearest_state() -> None:
    toolbox = Toolbox([pixelwise_toolbox(super_resolver=True)[3]])
    image = np.repeat(np.repeat(picture(5, 7), 4, axis=0), 4, axis=1)
    result = Restorer(toolbox, Remembering(first=0, then=1)).restore(image, scale=4)
    assert result.toolchain == ("nearest_x4",)
    assert [vote.grid.shape for vote in result.votes] == [(5, 7), (20, 28)]


@pytest.mark.parametrize("bad", [[0, 1], [0] * 7, [4] * 6, [-1] * 6])
def test_actions_that_do_not_fit_are_refused(bad: list[int]) -> None:
    with pytest.raises(ValueError, match=r"expected 6 whole numbers in 0\.\.3"):
        Restorer(pixelwise_toolbox(), Scripted(lambda _: bad)).restore(picture())


@pytest.mark.parametrize("observe", ["uint8", "float32"])
def test_the_policys_input(observe: Literal["uint8", "float32"]) -> None:
    policy = Scripted(always(0), always(0), always(3), observe=observe)
    result = Restorer(pixelwise_toolbox(), policy).restore(picture(8, 8), keep_float=True)
    assert [step["image"].dtype for step in policy.seen] == [np.dtype(observe)] * 3
    assert result.float_image is not None
    assert result.float_image.max() > 1
    seen = policy.seen[-1]["image"][0]
    np.testing.assert_array_equal(seen, result.image if observe == "uint8" else result.float_image)


# Upscaling -----------------------------------------------------------------------------------------------------------


def test_a_super_resolver_is_forbidden_at_the_same_size() -> None:
    policy = Scripted(lambda _: [3, 3, 3, 3, 1, 4], always(3), always(4))
    result = Restorer(pixelwise_toolbox(super_resolver=True), policy).restore(picture())
    assert (policy.seen[0]["action_mask"] == [1, 1, 1, 0, 1]).all()
    assert result.votes[0].action == "dim"
    assert result.votes[0].counts["nearest_x4"] == 4
    assert result.votes[1].action == "stop"
    assert result.image.shape == (16, 24, 3)


def test_a_super_resolver_upscales_once() -> None:
    policy = Scripted(always(3), always(2), always(3))
    result = Restorer(pixelwise_toolbox(super_resolver=True), policy).restore(picture(), scale=4)
    assert result.toolchain == ("nearest_x4", "invert")
    np.testing.assert_array_equal(result.image, 255 - picture().repeat(4, axis=0).repeat(4, axis=1))
    assert [step["action_mask"][0, 3] for step in policy.seen] == [1, 0, 0]
    assert [len(step["image"]) for step in policy.seen] == [6, 96, 96]
    assert result.gmacs == pytest.approx(6 * 16 * 16 * 24 / 1e9)


def test_without_a_fitting_super_resolver_upscaling_is_bicubic() -> None:
    policy = Scripted(always(2), always(4))
    result = Restorer(pixelwise_toolbox(super_resolver=True), policy).restore(picture(), scale=3)
    np.testing.assert_array_equal(result.image, to_pixels(bicubic_upscale(1 - to_tensor(picture()), 3)))
    assert result.scale == 3


def test_stopping_before_upscaling_leads_to_a_vote_on_super_resolvers() -> None:
    policy = Scripted(always(2), always(4), always(3), always(1), always(4))
    restorer = Restorer(pixelwise_toolbox(super_resolver=True), policy, max_steps=4)
    result = restorer.restore(picture(), scale=4)
    assert result.toolchain == ("invert", "nearest_x4", "dim")
    assert [vote.action for vote in result.votes] == ["invert", "nearest_x4", "dim", "stop"]
    masks = [step["action_mask"][0].tolist() for step in policy.seen]
    assert masks == [[1] * 5, [1] * 5, [0, 0, 0, 1, 0], [1, 1, 1, 0, 1], [1, 1, 1, 0, 1]]
    assert [step["last_action"][0] for step in policy.seen] == [5, 2, 2, 3, 1]


@pytest.mark.parametrize("obeys", [True, False])
def test_the_last_step_upscales(obeys: bool) -> None:
    policy = Scripted(always(0), always(1), always(3 if obeys else 2))
    result = Restorer(pixelwise_toolbox(super_resolver=True), policy).restore(picture(), scale=4)
    assert result.toolchain == ("brighten", "dim", "nearest_x4")
    assert policy.seen[-1]["action_mask"][0].tolist() == [0, 0, 0, 1, 0]
    assert result.image.shape == (64, 96, 3)


def test_a_result_beyond_the_limit_is_refused() -> None:
    with pytest.raises(ImageError, match="3400x3400 upscaled 4 times is more than 179 megapixels"):
        Restorer(pixelwise_toolbox(), Scripted(always(3))).restore(np.zeros((3400, 3400, 3), np.uint8), scale=4)
