"""Images in tiles: tools, upscaling and SSIM give what they give on the whole image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from restore_env.images.tiling import (
    _cuts_of,
    apply_tool,
    ssim_in_tiles,
    tile_starts,
    to_pixels,
    to_tensor,
    upscale_bicubic,
)
from restore_env.metrics import ssim
from restore_env.toolbox import FunctionTool, bicubic_upscale
from tools_zoo.backends.network_tool import NetworkTool
from tools_zoo.networks import NETWORKS

pytestmark = pytest.mark.usefixtures("one_thread")


def integer_network(receptive_radius: int, blocks: int = 1) -> Callable[[Tensor], Tensor]:
    """Two zero-padded convolutions of whole numbers: on whole numbers every order of summation gives the same bits."""
    rng = torch.Generator().manual_seed(receptive_radius)
    sizes = (receptive_radius // 2, receptive_radius - receptive_radius // 2)
    weights = [torch.randint(-2, 3, (3, 3, 2 * r + 1, 2 * r + 1), generator=rng).float() for r in sizes]

    def run(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % blocks, 0, -height % blocks))
        features = torch.relu(F.conv2d(images, weights[0], torch.ones(3), padding=sizes[0]))
        blocky = F.interpolate(F.avg_pool2d(features, blocks) * blocks**2, scale_factor=blocks)
        return (F.conv2d(blocky, weights[1], padding=sizes[1]) + images)[..., :height, :width]

    return run


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_no_tile_is_so_small_that_other_kernels_would_run(height: int, width: int) -> None:
    rows, columns = _cuts_of(height, width, 256)
    areas = [(bottom - top) * (right - left) for top, bottom in rows for left, right in columns]
    assert sum(areas) == height * width
    assert min(areas) >= min(height * width, 256 * 256 // 4 - 256 * 8)


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 11), st.integers(8, 40), st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=60, deadline=None)
def test_tiles_give_the_whole_image_exactly(
    height: int, width: int, receptive_radius: int, side: int, blocks: int
) -> None:
    network = integer_network(receptive_radius, blocks)
    tool = FunctionTool("whole numbers", network, receptive_radius=receptive_radius + blocks)
    image = torch.randint(0, 8, (1, 3, height, width), generator=torch.Generator().manual_seed(height)).float()
    untouched = image.clone()
    assert torch.equal(apply_tool(tool, image, tile=side), tool(image))
    assert torch.equal(image, untouched)
    assert apply_tool(tool, image, tile=side, in_place=True) is image
    assert torch.equal(image, tool(untouched))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    ("height", "width", "threads"), [(257, 520, 1), (300, 261, 2), (40, 2100, 1), (2100, 40, 2), (66000, 1, 1)]
)
def test_networks_in_tiles_are_equal_to_the_last_bit(network: str, height: int, width: int, threads: int) -> None:
    torch.manual_seed(0)
    module = NETWORKS[network]().eval().requires_grad_(False)
    tool = NetworkTool(network, module, module.macs_per_pixel, module.receptive_radius, backend="eager")
    image = torch.rand(1, 3, height, width) * 1.2 - 0.1
    assert max(len(cuts) for cuts in _cuts_of(height, width, 256)) > 1
    torch.set_num_threads(threads)
    with torch.inference_mode():
        assert torch.equal(apply_tool(tool, image), tool(image))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (9, 700), (300, 41)])
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_upscaling_in_tiles_is_exact(height: int, width: int, factor: int) -> None:
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    assert torch.equal(upscale_bicubic(image, factor), bicubic_upscale(image, factor))


def test_a_tool_of_unknown_radius_gets_the_whole_image() -> None:
    shapes: list[tuple[int, ...]] = []

    def negative(images: Tensor) -> Tensor:
        shapes.append(tuple(images.shape))
        return 1 - images.contiguous().view(images.shape) + images.mean()

    image = torch.rand(1, 3, 300, 500)
    assert torch.equal(apply_tool(FunctionTool("negative", negative), image, tile=8), 1 - image + image.mean())
    assert shapes == [(1, 3, 300, 500)]


def test_tiles_are_contiguous_and_progress_ends_at_one() -> None:
    shares: list[float] = []
    flat = FunctionTool("flat", lambda images: images.view(-1).view(images.shape), receptive_radius=3)
    image = torch.rand(1, 3, 40, 50)
    assert torch.equal(apply_tool(flat, image, tile=16, progress=shares.append), image)
    assert shares == [part / 12 for part in range(1, 13)]


def test_a_tool_of_a_wrong_shape_is_named() -> None:
    shrink = FunctionTool("shrink", lambda images: images[:, :, ::2], receptive_radius=0)
    with pytest.raises(ValueError, match=r"'shrink' returned shape \(1, 3, 2, 4\), expected \(1, 3, 4, 4\)"):
        apply_tool(shrink, torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(("height", "width"), [(11, 11), (37, 50), (200, 40)])
def test_ssim_in_tiles_is_ssim(height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restore_env.images.tiling._SSIM_TILE", 24)
    image, target = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    expected = float(ssim(to_tensor(image), to_tensor(target)))
    assert ssim_in_tiles(image, target) == pytest.approx(expected, abs=1e-12)
    assert ssim_in_tiles(image[:10], target[:10]) is ssim_in_tiles(image[:, :10], target[:, :10]) is None


@pytest.mark.parametrize("height", [1, 5, 1500])
def test_pixels_to_tensor_and_back(height: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, 3, 3), dtype=np.uint8)
    pixels.flags.writeable = False
    tensor = to_tensor(pixels)
    assert tensor.shape == (1, 3, height, 3)
    np.testing.assert_array_equal(to_pixels(tensor), pixels)
    np.testing.assert_array_equal(to_pixels(tensor * 3 - 1)[..., 0], np.clip(pixels[..., 0] * 3.0 - 255, 0, 255))


@pytest.mark.parametrize(
    ("length", "starts", "last"),
    [(1, [0], []), (63, [0], []), (64, [0], [1]), (126, [0, 63], []), (130, [0, 63], [67])],
)
def test_tile_starts(length: int, starts: list[int], last: list[int]) -> None:
    assert tile_starts(length, 63, borders=False) == starts
    assert tile_starts(length, 63) == starts + last
