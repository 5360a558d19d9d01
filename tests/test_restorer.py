from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from agents.network import HIDDEN, RecurrentAgent, save_policy
from agents.restorer import Restorer, quality
from restore_env import ImageRestoreEnv
from restore_env.images import ImageError, Photo, read_image
from restore_env.metrics import ssim
from restore_env.tiling import _cuts, _tiles, apply_tool, enlarge, ssim_in_tiles, tile_starts, to_pixels, to_tensor
from restore_env.toolbox import FunctionTool, Toolbox, bicubic_enlarge
from tests.toolkit import photographs, pixelwise_toolbox, random_toolbox
from tools_zoo.backends import NetworkTool
from tools_zoo.networks import NETWORKS
from tools_zoo.published import import_rl_restore

pytestmark = pytest.mark.usefixtures("one_thread")

Pixels = npt.NDArray[np.uint8]
Observation = dict[str, npt.NDArray[Any]]
Script = Callable[[Observation], Sequence[int] | npt.NDArray[np.int64]]


class Scripted:
    """A policy that plays a script, a function per step, and writes down what it was shown."""

    def __init__(self, *script: Script, patch_size: int = 8) -> None:
        self.script, self.patch_size = script, patch_size
        self.seen: list[Observation] = []

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[np.int64], Any]:
        assert deterministic
        assert episode_start is not None
        assert episode_start.tolist() == [not self.seen] * len(observation["image"])
        self.seen.append(observation)
        step = min(len(self.seen), len(self.script)) - 1
        return np.asarray(self.script[step](observation), dtype=np.int64), None


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


def always(*actions: int) -> Script:
    return lambda observation: (list(actions) * len(observation["image"]))[: len(observation["image"])]


def integer_network(reach: int, blocks: int = 1) -> Callable[[Tensor], Tensor]:
    """Two zero-padded convolutions of whole numbers: on whole numbers every order of summation gives the same bits."""
    rng = torch.Generator().manual_seed(reach)
    sizes = (reach // 2, reach - reach // 2)
    weights = [torch.randint(-2, 3, (3, 3, 2 * r + 1, 2 * r + 1), generator=rng).float() for r in sizes]

    def run(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % blocks, 0, -height % blocks))
        features = torch.relu(F.conv2d(images, weights[0], torch.ones(3), padding=sizes[0]))
        blocky = F.interpolate(F.avg_pool2d(features, blocks) * blocks**2, scale_factor=blocks)
        return (F.conv2d(blocky, weights[1], padding=sizes[1]) + images)[..., :height, :width]

    return run


def whole_numbers(height: int, width: int) -> Tensor:
    return torch.randint(0, 8, (1, 3, height, width), generator=torch.Generator().manual_seed(height)).float()


# Tiles ---------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 5000), st.integers(8, 600))
def test_cuts_cover_a_length(length: int, side: int) -> None:
    cuts = _cuts(length, side)
    assert [first for first, _ in cuts] == [0, *(end for _, end in cuts[:-1])]
    assert cuts[-1][1] == length
    assert all(first % 8 == 0 and 0 < end - first < side + 8 for first, end in cuts)


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_no_tile_is_so_small_that_other_kernels_would_run(height: int, width: int) -> None:
    areas = [(rows[1] - rows[0]) * (columns[1] - columns[0]) for rows, columns in _tiles(height, width, 256)]
    assert sum(areas) == height * width
    assert min(areas) >= min(height * width, 256 * 256 // 4 - 256 * 8)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 11), st.integers(8, 40), st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=60, deadline=None)
def test_tiles_give_the_whole_image_exactly(height: int, width: int, reach: int, side: int, blocks: int) -> None:
    tool = FunctionTool("whole numbers", integer_network(reach, blocks), reach=reach + blocks)
    image = whole_numbers(height, width)
    untouched = image.clone()
    assert torch.equal(apply_tool(tool, image, tile=side), tool(image))
    assert torch.equal(image, untouched)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    ("height", "width", "threads"), [(257, 520, 1), (300, 261, 2), (40, 2100, 1), (2100, 40, 2), (66000, 1, 1)]
)
def test_networks_in_tiles_are_equal_to_the_last_bit(network: str, height: int, width: int, threads: int) -> None:
    torch.manual_seed(0)
    module = NETWORKS[network]().eval().requires_grad_(False)
    tool = NetworkTool(network, module, module.macs_per_pixel, module.reach, backend="eager")
    image = torch.rand(1, 3, height, width) * 1.2 - 0.1
    assert len(list(_tiles(height, width, 256))) > 1
    torch.set_num_threads(threads)
    with torch.inference_mode():
        assert torch.equal(apply_tool(tool, image), tool(image))


@pytest.mark.parametrize("side", [8, 16, 40, 63, 64, 100, 128])
@pytest.mark.parametrize("network", NETWORKS)
def test_networks_in_awkward_tiles_are_equal_after_rounding(network: str, side: int) -> None:
    torch.manual_seed(1)
    module = NETWORKS[network]().eval().requires_grad_(False)
    tool = NetworkTool(network, module, module.macs_per_pixel, module.reach)
    image = torch.rand(1, 3, 97, 131)
    with torch.inference_mode():
        whole, tiled = tool(image), apply_tool(tool, image, tile=side)
    assert float((whole - tiled).abs().max()) < 1e-6
    np.testing.assert_array_equal(to_pixels(whole), to_pixels(tiled))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (9, 700), (300, 41)])
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_enlarging_in_tiles_is_exact(height: int, width: int, factor: int) -> None:
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    assert torch.equal(enlarge(image, factor), bicubic_enlarge(image, factor))


def test_a_tool_of_unknown_reach_gets_the_whole_image() -> None:
    shapes: list[tuple[int, ...]] = []

    def negative(images: Tensor) -> Tensor:
        shapes.append(tuple(images.shape))
        return 1 - images.contiguous().view(images.shape) + images.mean()

    image = torch.rand(1, 3, 300, 500)
    assert torch.equal(apply_tool(FunctionTool("negative", negative), image, tile=8), 1 - image + image.mean())
    assert shapes == [(1, 3, 300, 500)]


def test_tiles_are_contiguous_and_progress_ends_at_one() -> None:
    shares: list[float] = []

    def flat(images: Tensor) -> Tensor:
        return images.view(-1).view(images.shape)

    image = torch.rand(1, 3, 40, 50)
    result = apply_tool(FunctionTool("flat", flat, reach=3), image, tile=16, progress=shares.append)
    assert torch.equal(result, image)
    assert len(shares) == 3 * 4
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_tool_of_a_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r"'shrink' returned shape \(1, 3, 2, 4\), expected \(1, 3, 4, 4\)"):
        apply_tool(FunctionTool("shrink", lambda images: images[:, :, ::2], reach=0), torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(("height", "width"), [(11, 11), (37, 50), (200, 40)])
def test_ssim_in_tiles_is_ssim(height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restore_env.tiling._SSIM_TILE", 24)
    image, target = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    expected = float(ssim(to_tensor(image), to_tensor(target)))
    assert ssim_in_tiles(image, target) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("height", "width"), [(10, 50), (50, 10), (1, 1)])
def test_ssim_of_a_small_image_is_none(height: int, width: int) -> None:
    assert ssim_in_tiles(picture(height, width), picture(height, width)) is None


@pytest.mark.parametrize("height", [1, 5, 1500])
def test_pixels_to_tensor_and_back(height: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, 3, 3), dtype=np.uint8)
    pixels.flags.writeable = False
    tensor = to_tensor(pixels)
    assert tensor.shape == (1, 3, height, 3)
    np.testing.assert_array_equal(to_pixels(tensor), pixels)
    np.testing.assert_array_equal(to_pixels(tensor * 3 - 1)[..., 0], np.clip(pixels[..., 0] * 3.0 - 255, 0, 255))


# Votes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "borders", "starts"),
    [
        (1, True, [0]),
        (62, True, [0]),
        (63, True, [0]),
        (64, True, [0, 1]),
        (64, False, [0]),
        (126, True, [0, 63]),
        (130, True, [0, 63, 67]),
        (130, False, [0, 63]),
        (62, False, [0]),
    ],
)
def test_tile_starts(length: int, borders: bool, starts: list[int]) -> None:
    assert tile_starts(length, 63, borders) == starts


def picture(height: int = 16, width: int = 24) -> Pixels:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


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


def test_borders_vote_unless_told_not_to() -> None:
    image = picture(17, 20)
    for borders, grid in ((True, (3, 3)), (False, (2, 2))):
        policy = Scripted(always(3))
        result = Restorer(pixelwise_toolbox(), policy, borders=borders).restore(image)
        assert result.votes[0].grid.shape == grid
    policy = Scripted(always(3))
    Restorer(pixelwise_toolbox(), policy).restore(image)
    np.testing.assert_array_equal(policy.seen[0]["image"][-1], image[9:, 12:])
    np.testing.assert_array_equal(policy.seen[0]["image"][4], image[8:16, 8:16])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (62, 63), (63, 62), (5000, 1)])
def test_small_images_are_extended_for_the_policys_eyes_only(height: int, width: int) -> None:
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


def test_the_policy_is_told_the_last_action_and_what_is_allowed() -> None:
    policy = Scripted(lambda _: [1, 1, 1, 0, 0, 2], lambda _: [0, 2, 2, 2, 2, 2], always(1))
    result = Restorer(pixelwise_toolbox(), policy).restore(picture())
    assert result.toolchain == ("dim", "invert", "dim")
    assert [step["last_action"].tolist() for step in policy.seen] == [[4] * 6, [1] * 6, [2] * 6]
    assert all(step["last_action"].dtype == np.int64 for step in policy.seen)
    assert all((step["action_mask"] == np.ones((6, 4))).all() for step in policy.seen)


@pytest.mark.parametrize("max_steps", [1, 2, 5])
def test_at_most_max_steps_tools(max_steps: int) -> None:
    result = Restorer(pixelwise_toolbox(), Scripted(always(2)), max_steps=max_steps).restore(picture())
    assert result.toolchain == ("invert",) * max_steps
    assert len(result.votes) == max_steps


def test_stopping_at_once_changes_nothing() -> None:
    result = Restorer(pixelwise_toolbox(), Scripted(always(3))).restore(picture())
    np.testing.assert_array_equal(result.image, picture())
    assert result.toolchain == ()
    assert result.gmacs == 0


def test_every_tile_keeps_its_own_state_across_batches() -> None:
    policy = Remembering(first=1, then=0)
    toolbox = Toolbox([FunctionTool("blank", lambda x: x * 0, reach=0), FunctionTool("same", lambda x: x, reach=0)])
    image = picture(4 * 20, 4 * 30)
    with pytest.raises(AssertionError):
        Restorer(toolbox, Remembering(first=0, then=0)).restore(image)
    assert Restorer(toolbox, policy, max_steps=2).restore(image).toolchain == ("same", "blank")
    assert policy.batches == 2 * 3


def test_tiles_of_an_enlarged_image_go_on_from_the_nearest_state() -> None:
    toolbox = Toolbox([pixelwise_toolbox(super_resolver=True)[3]])
    image = np.repeat(np.repeat(picture(5, 7), 4, axis=0), 4, axis=1)
    result = Restorer(toolbox, Remembering(first=0, then=1)).restore(image, scale=4)
    assert result.toolchain == ("nearest_x4",)
    assert [vote.grid.shape for vote in result.votes] == [(5, 7), (20, 28)]


@pytest.mark.parametrize("bad", [[0, 1], [0] * 7, [4] * 6, [-1] * 6])
def test_actions_that_do_not_fit_are_refused(bad: list[int]) -> None:
    with pytest.raises(ValueError, match=r"must return 6 actions in 0\.\.3"):
        Restorer(pixelwise_toolbox(), Scripted(lambda _: bad)).restore(picture())


@pytest.mark.parametrize("observe", ["uint8", "float32"])
def test_what_the_policy_sees(observe: Literal["uint8", "float32"]) -> None:
    policy = Scripted(always(0), always(0), always(3))
    result = Restorer(pixelwise_toolbox(), policy, observe=observe).restore(picture(8, 8), keep_float=True)
    assert [step["image"].dtype for step in policy.seen] == [np.dtype(observe)] * 3
    assert result.float_image is not None
    assert result.float_image.max() > 1
    seen = policy.seen[-1]["image"][0]
    np.testing.assert_array_equal(seen, result.image if observe == "uint8" else result.float_image)


# Enlarging -----------------------------------------------------------------------------------------------------------


def test_a_super_resolver_is_forbidden_at_the_same_size() -> None:
    policy = Scripted(lambda _: [3, 3, 3, 3, 1, 4], always(3), always(4))
    result = Restorer(pixelwise_toolbox(super_resolver=True), policy).restore(picture())
    assert (policy.seen[0]["action_mask"] == [1, 1, 1, 0, 1]).all()
    assert result.votes[0].action == "dim"
    assert result.votes[0].counts["nearest_x4"] == 4
    assert result.votes[1].action == "stop"
    assert result.image.shape == (16, 24, 3)


def test_a_super_resolver_enlarges_once() -> None:
    policy = Scripted(always(3), always(2), always(3))
    result = Restorer(pixelwise_toolbox(super_resolver=True), policy).restore(picture(), scale=4)
    assert result.toolchain == ("nearest_x4", "invert")
    np.testing.assert_array_equal(result.image, 255 - picture().repeat(4, axis=0).repeat(4, axis=1))
    assert [step["action_mask"][0, 3] for step in policy.seen] == [1, 0, 0]
    assert [len(step["image"]) for step in policy.seen] == [6, 96, 96]
    assert result.gmacs == pytest.approx(6 * 16 * 16 * 24 / 1e9)


def test_what_no_super_resolver_can_enlarge_is_enlarged_bicubically() -> None:
    policy = Scripted(always(2), always(4))
    result = Restorer(pixelwise_toolbox(super_resolver=True), policy).restore(picture(), scale=2)
    np.testing.assert_array_equal(result.image, to_pixels(bicubic_enlarge(1 - to_tensor(picture()), 2)))
    assert result.scale == 2


def test_whoever_stops_before_the_image_is_enlarged_is_asked_for_a_super_resolver() -> None:
    policy = Scripted(always(2), always(4), always(3), always(1), always(4))
    restorer = Restorer(pixelwise_toolbox(super_resolver=True), policy, max_steps=4)
    result = restorer.restore(picture(), scale=4)
    assert result.toolchain == ("invert", "nearest_x4", "dim")
    assert [vote.action for vote in result.votes] == ["invert", "nearest_x4", "dim", "stop"]
    masks = [step["action_mask"][0].tolist() for step in policy.seen]
    assert masks == [[1] * 5, [1] * 5, [0, 0, 0, 1, 0], [1, 1, 1, 0, 1], [1, 1, 1, 0, 1]]
    assert [step["last_action"][0] for step in policy.seen] == [5, 2, 2, 3, 1]


@pytest.mark.parametrize("obeys", [True, False])
def test_at_the_last_step_an_image_is_enlarged_at_last(obeys: bool) -> None:
    policy = Scripted(always(0), always(1), always(3 if obeys else 2))
    result = Restorer(pixelwise_toolbox(super_resolver=True), policy).restore(picture(), scale=4)
    assert result.toolchain == ("brighten", "dim", "nearest_x4")
    assert policy.seen[-1]["action_mask"][0].tolist() == [0, 0, 0, 1, 0]
    assert result.image.shape == (64, 96, 3)


def test_a_factor_that_is_no_power_of_four() -> None:
    policy = Scripted(always(3), always(4))
    result = Restorer(pixelwise_toolbox(super_resolver=True), policy).restore(picture(5, 6), scale=8)
    assert result.toolchain == ("nearest_x4",)
    assert result.image.shape == (40, 48, 3)
    forbidding = Scripted(always(4))
    result = Restorer(pixelwise_toolbox(super_resolver=True), forbidding).restore(picture(5, 6), scale=2)
    assert forbidding.seen[0]["action_mask"][0, 3] == 0
    assert result.image.shape == (10, 12, 3)


def test_a_result_beyond_the_limit_is_refused() -> None:
    with pytest.raises(ImageError, match="3400x3400 enlarged 4 times is more than 179 megapixels"):
        Restorer(pixelwise_toolbox(), Scripted(always(3))).restore(np.zeros((3400, 3400, 3), np.uint8), scale=4)


# Images and arguments ------------------------------------------------------------------------------------------------


def test_photos_keep_profile_and_exif(tmp_path: Path) -> None:
    photo = Photo(picture(), icc_profile=b"profile", exif=b"Exif\0\0")
    result = Restorer(pixelwise_toolbox(), Scripted(always(2), always(3))).restore(photo)
    assert (result.photo.icc_profile, result.photo.exif) == (b"profile", b"Exif\0\0")
    assert result.photo.pixels is result.image
    plain = Restorer(pixelwise_toolbox(), Scripted(always(2), always(3))).restore(picture())
    plain.save(tmp_path / "result.png")
    np.testing.assert_array_equal(read_image(tmp_path / "result.png").pixels, 255 - picture())


@pytest.mark.parametrize(
    "array",
    [
        picture(),
        picture()[..., 0],
        picture()[..., :1],
        np.concatenate([picture(), picture()[..., :1]], axis=2),
        picture().astype(np.uint16) * 257,
        picture()[..., 0] > 100,
        picture().astype(np.float64) / 255,
    ],
    ids=["rgb", "grey", "grey1", "rgba", "uint16", "bool", "float64"],
)
def test_arrays_of_every_kind(array: npt.NDArray[Any]) -> None:
    result = Restorer(pixelwise_toolbox(), Scripted(always(3))).restore(array)
    assert result.image.shape == (16, 24, 3)
    assert result.image.dtype == np.uint8


def test_floats_keep_their_precision() -> None:
    image = np.random.default_rng(0).random((9, 9, 3), dtype=np.float32)
    result = Restorer(pixelwise_toolbox(), Scripted(always(3))).restore(image, keep_float=True)
    assert result.float_image is not None
    np.testing.assert_array_equal(result.float_image, image)


@pytest.mark.parametrize(
    "bad",
    [np.zeros((0, 4, 3)), np.zeros((4, 4, 5)), np.full((4, 4, 3), np.nan), np.full((4, 4), 2.0), np.zeros((4, 4), int)],
)
def test_arrays_that_are_no_images(bad: npt.NDArray[Any]) -> None:
    with pytest.raises(ImageError):
        Restorer(pixelwise_toolbox(), Scripted(always(3))).restore(bad)


def test_psnr_is_measured_on_eight_bits() -> None:
    clean = picture()
    degraded = np.clip(clean.astype(np.int16) + 9, 0, 255).astype(np.uint8)
    result = Restorer(pixelwise_toolbox(), Scripted(always(1), always(3))).restore(degraded, clean)
    assert result.psnr_before == quality(degraded, clean)
    assert result.psnr_after == quality(result.image, clean)
    enlarging = Restorer(pixelwise_toolbox(), Scripted(always(3)), scale=4, super_resolver="bicubic_x4")
    large = enlarging.restore(degraded, picture(64, 96))
    assert large.toolchain == ("bicubic_x4",)
    assert large.psnr_before == large.psnr_after


def test_a_target_of_another_size_is_refused() -> None:
    restorer = Restorer(pixelwise_toolbox(), Scripted(always(3)))
    with pytest.raises(ImageError, match="the target is 5x4, the result will be 24x16"):
        restorer.restore(picture(), picture(4, 5))


def test_progress_is_told() -> None:
    told: list[tuple[str, float]] = []
    restorer = Restorer(pixelwise_toolbox(), Scripted(always(2), always(3)))
    restorer.restore(picture(), progress=lambda what, share: told.append((what, share)))
    assert told == [("step 1: looking", 1), ("step 1: invert", 1), ("step 2: looking", 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_steps": 0}, "max_steps must be"),
        ({"max_steps": 1.5}, "max_steps must be"),
        ({"observe": "uint16"}, "observe must be"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used: "),
        ({"device": "toaster"}, "device 'toaster' cannot be used: "),
        ({"device": "meta"}, "device 'meta' cannot be used: "),
        ({"toolbox": "no/such/toolbox"}, "no/such/toolbox: no toolbox"),
        ({"toolbox": "nowhere:at_all"}, "cannot be imported"),
        ({"policy": "no/such/policy"}, "no/such/policy: no policy"),
    ],
)
def test_arguments_that_do_not_work(arguments: dict[str, Any], message: str) -> None:
    chosen: dict[str, Any] = {"toolbox": pixelwise_toolbox(), "policy": Scripted(always(3))} | arguments
    with pytest.raises(ValueError, match=message) as caught:
        Restorer(**chosen)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [0, -1, 1.5])
def test_scales_that_do_not_work(scale: Any) -> None:
    with pytest.raises(ValueError, match="scale must be"):
        Restorer(pixelwise_toolbox(), Scripted(always(3))).restore(picture(), scale=scale)
    with pytest.raises(ValueError, match="scale must be"):
        Restorer(pixelwise_toolbox(), Scripted(always(3)), scale=scale)


def test_a_policy_of_other_tools_is_refused() -> None:
    agent = RecurrentAgent(("brighten", "darken", "invert"))
    with pytest.raises(ValueError, match=r"tools brighten, darken, invert; the toolbox has brighten, dim, invert"):
        Restorer(pixelwise_toolbox(), agent)


def test_a_toolbox_by_its_import_string() -> None:
    restorer = Restorer("tests.toolkit:pixelwise_toolbox", Scripted(always(2), always(3)))
    assert restorer.restore(picture()).toolchain == ("invert",)


# With a network ------------------------------------------------------------------------------------------------------


def random_agent(tools: tuple[str, ...], seed: int = 0) -> RecurrentAgent:
    torch.manual_seed(seed)
    agent = RecurrentAgent(tools).eval().requires_grad_(False)
    for parameter in agent.parameters():
        parameter.mul_(3)
    return agent


@pytest.mark.parametrize("observe", ["uint8", "float32"])
def test_on_one_patch_it_does_what_the_environment_does(observe: Literal["uint8", "float32"]) -> None:
    toolbox, (clean,) = random_toolbox(), photographs(1, 63, 63)
    degraded = np.clip(clean + np.random.default_rng(0).normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
    chains = []
    for seed in range(4):
        agent = random_agent(toolbox.names, seed)
        env = ImageRestoreEnv(images=[clean], toolbox=toolbox, dtype=observe)
        observation, info = env.reset(options={"degraded": degraded, "target": clean})
        state, over = None, False
        while not over:
            batch = {key: np.asarray(value)[None] for key, value in observation.items()}
            action, state = agent.predict(batch, state)
            observation, _, over, _, info = env.step(action[0])
        result = Restorer(toolbox, agent, observe=observe).restore(degraded, keep_float=True)
        assert tuple(vote.action for vote in result.votes) == info["toolchain"]
        assert result.gmacs == pytest.approx(info["gmacs"])
        assert result.float_image is not None
        if observe == "float32":  # memory layouts differ, and with them the order of summation
            np.testing.assert_allclose(result.float_image, observation["image"], rtol=0, atol=5e-6)
        chains.append(info["toolchain"])
    assert len(set(chains)) > 1


def test_policies_from_a_file_see_the_same(tmp_path: Path) -> None:
    toolbox = random_toolbox()
    agent = random_agent(toolbox.names)
    save_policy(agent, tmp_path / "agent.safetensors")
    (image,) = photographs(1, 100, 150)
    results = [Restorer(toolbox, policy).restore(image) for policy in (agent, tmp_path / "agent.safetensors")]
    np.testing.assert_array_equal(results[0].image, results[1].image)
    assert results[0].votes[0].grid.shape == (2, 3)


def test_batches_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    toolbox = random_toolbox()
    agent = random_agent(toolbox.names)
    (image,) = photographs(1, 160, 200)
    whole = Restorer(toolbox, agent).restore(image)
    monkeypatch.setattr("agents.voting.BATCH_SIZE", 5)
    batched = Restorer(toolbox, agent).restore(image)
    assert len(whole.votes) > 1
    for one, other in itertools.zip_longest(whole.votes, batched.votes):
        np.testing.assert_array_equal(one.grid, other.grid)


def test_the_state_of_the_agent_is_the_published_size() -> None:
    agent = random_agent(("a", "b"))
    observation = {
        "image": np.zeros((2, 63, 63, 3), np.uint8),
        "last_action": np.array([3, 3]),
        "action_mask": np.ones((2, 3), np.int8),
    }
    _, state = agent.predict(observation)
    assert [part.shape for part in state] == [(1, 2, HIDDEN)] * 2


def test_published_photos_are_restored_as_published(published: Path, tmp_path: Path) -> None:
    """The photos go into the published networks as they are, so transposed into the imported ones."""
    folder = import_rl_restore(published, tmp_path / "published")
    restorer = Restorer(folder, folder, borders=False, observe="float32")
    expected = json.loads((published / "expected" / "mine.json").read_text())
    for name, entry in expected.items():
        pixels = read_image(published / "test" / "mine" / name).pixels
        result = restorer.restore(np.ascontiguousarray(pixels.transpose(1, 0, 2)), keep_float=True)
        assert [restorer.toolbox.action(vote.action) for vote in result.votes] == entry["chain"]
        assert [vote.grid.T.ravel().tolist() for vote in result.votes] == entry["votes"]
        assert result.float_image is not None
        with np.load(published / "expected" / f"mine_{Path(name).stem}.npz") as arrays:
            final = arrays[arrays.files[0]].reshape(pixels.shape)
        np.testing.assert_allclose(result.float_image.transpose(1, 0, 2), final, rtol=0, atol=2e-6)
