"""Regions: windows that add up to 1, tools that compute only where they were chosen, and chains of single tiles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from agents.restoration.regions import TileAxis, TileGrid, apply_tools
from restore_env.images.tiling import tile_starts, to_tensor
from restore_env.toolbox import FunctionTool, Toolbox
from tests.support.toolkit import photographs, picture, pixelwise_toolbox

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
SIZE = 8


def grid_of(height: int, width: int, size: int = SIZE, ramp: int = 4) -> TileGrid:
    return TileGrid(*(TileAxis.of(tile_starts(length, size), size, length, ramp) for length in (height, width)))


def ignore(name: str, share: float) -> None:
    """Progress that nobody watches."""


def random_choice(grid: TileGrid, actions: int, seed: int = 0) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, actions, grid.shape)


class Counting:
    """A tool that counts the pixels that it is given."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function, self.sizes = function, []  # type: ignore[var-annotated]

    def __call__(self, images: Tensor) -> Tensor:
        self.sizes.append((images.shape[2], images.shape[3]))
        return self.function(images)

    @property
    def pixels(self) -> int:
        return sum(height * width for height, width in self.sizes)


# Windows -------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 700), st.sampled_from([8, 63]), st.integers(1, 40))
@settings(deadline=None)
def test_windows_add_up_to_exactly_one(length: int, size: int, ramp: int) -> None:
    windows = TileAxis.of(tile_starts(length, size), size, length, ramp).windows
    assert torch.equal(windows.sum(0), torch.ones(length))
    assert (windows >= 0).all()


@pytest.mark.parametrize("ramp", [1, 16])
def test_the_weights_of_all_actions_add_up_to_exactly_one(ramp: int) -> None:
    grid = grid_of(150, 210, 31, ramp)
    chosen, everywhere = random_choice(grid, 4), (slice(0, grid.shape[0]), slice(0, grid.shape[1]))
    total = sum(grid.window(chosen == action, everywhere)[2] for action in range(4))
    assert torch.equal(total, torch.ones(150, 210))  # type: ignore[arg-type]


def test_a_border_lies_halfway_between_two_tiles() -> None:
    axis = TileAxis.of((0, 63, 80), 63, 143, ramp=10)
    assert axis.borders.tolist() == [0, 63, 103, 143]
    assert axis.windows[1, 68:98].eq(1).all()
    assert axis.extent(slice(1, 2)) == (58, 108)
    np.testing.assert_allclose(axis.windows[0, 58:68], axis.windows[1, 58:68].flip(0), atol=1e-3)


# Blocks --------------------------------------------------------------------------------------------------------------


@given(st.integers(8, 120), st.integers(8, 120), st.integers(0, 60), st.integers(0, 2**20), st.floats(0.05, 0.95))
@settings(deadline=None, max_examples=60)
def test_blocks_hold_each_chosen_tile_once(height: int, width: int, margin: int, seed: int, density: float) -> None:
    grid = grid_of(height, width)
    tiles = np.random.default_rng(seed).random(grid.shape) < density
    covered = np.zeros(grid.shape, int)
    for rows, columns in grid.blocks(tiles, margin, side=48):
        covered[rows, columns] += 1
        assert tiles[rows, columns].any()
        assert (rows.stop - rows.start) * SIZE <= 1.5 * 48 + SIZE
    assert (covered[tiles] == 1).all()
    assert covered.max() <= 1


def test_far_tiles_are_computed_apart_and_near_ones_together() -> None:
    grid = grid_of(160, 160)
    tiles = np.zeros(grid.shape, bool)
    tiles[0, 0] = tiles[19, 19] = True
    assert len(list(grid.blocks(tiles, 4, 512))) == 2
    assert len(list(grid.blocks(tiles, 200, 512))) == 1
    tiles[0, 1] = True
    assert len(list(grid.blocks(tiles, 4, 512))) == 2


# Blending ------------------------------------------------------------------------------------------------------------


def smooth_tools() -> Toolbox:
    """Two tools of radius 1, of different names and the same result, and one that inverts."""

    def blur(images: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)

    return Toolbox(
        [
            FunctionTool("one", blur, receptive_radius=1),
            FunctionTool("same", blur, receptive_radius=1),
            FunctionTool("invert", lambda images: 1 - images, receptive_radius=0),
        ]
    )


def test_where_one_tool_has_all_the_weight_the_result_is_its_own() -> None:
    image, tools = to_tensor(picture(70, 90)), pixelwise_toolbox()
    grid = grid_of(70, 90)
    chosen = random_choice(grid, len(tools) + 1)
    result, _ = apply_tools(tools, chosen, image, grid, CPU, ignore)
    everywhere = (slice(0, grid.shape[0]), slice(0, grid.shape[1]))
    alone_somewhere = 0
    for action in range(len(tools) + 1):
        alone = grid.window(chosen == action, everywhere)[2] == 1
        expected = image if action == tools.stop else tools[action](image)
        torch.testing.assert_close(result[:, :, alone], expected[:, :, alone], rtol=0, atol=1e-6)
        alone_somewhere += int(alone.sum())
    assert alone_somewhere > 70 * 90 / 10


def test_tools_of_the_same_result_leave_no_seam() -> None:
    image, tools = to_tensor(photographs(1, 70, 90)[0]), smooth_tools()
    grid = grid_of(70, 90)
    result, _ = apply_tools(tools, random_choice(grid, 2), image, grid, CPU, ignore)
    torch.testing.assert_close(result, tools[0](image), rtol=0, atol=1e-6)


def test_between_two_tools_there_is_no_step() -> None:
    """On an even image the result passes from one tool's grey into the other's in steps of a ramp at most."""
    image, tools = torch.full((1, 3, 64, 64), 0.2), smooth_tools()
    grid = grid_of(64, 64, 32, ramp=16)
    result, _ = apply_tools(tools, np.array([[0, 2], [3, 2]]), image, grid, CPU, ignore)
    assert result.min() == pytest.approx(0.2)
    assert result.max() == pytest.approx(0.8)
    steepest = 0.6 * np.pi / 2 / 16
    for axis in (2, 3):
        assert result.diff(dim=axis).abs().max() <= steepest * 1.05


def test_each_tool_computes_only_where_it_was_chosen() -> None:
    margin = 8
    counting = [Counting(lambda images: images * 0.9) for _ in range(2)]
    tools = Toolbox([FunctionTool(f"t{number}", each, receptive_radius=margin) for number, each in enumerate(counting)])
    image, grid = torch.rand(1, 3, 160, 240), grid_of(160, 240)
    chosen = np.full(grid.shape, tools.stop)
    chosen[:, :10] = 0  # 80 of 240 columns
    chosen[4, 20] = 1  # one tile
    result, gmacs = apply_tools(tools, chosen, image, grid, CPU, ignore)
    assert counting[0].sizes == [(160, 80 + 2 + 2 * margin - 2 * margin + 8)]
    height, width = counting[1].sizes[0]
    assert len(counting[1].sizes) == 1
    assert max(height, width) <= SIZE + 4 + 2 * margin + 8
    assert torch.equal(result[..., 110:150], image[..., 110:150])
    assert gmacs == 0


def test_the_computation_is_that_of_the_chosen_pixels() -> None:
    tools, grid = pixelwise_toolbox(), grid_of(64, 64)
    chosen = np.full(grid.shape, tools.stop)
    chosen[:, :4] = 2  # six operations a pixel
    _, gmacs = apply_tools(tools, chosen, torch.rand(1, 3, 64, 64), grid, CPU, ignore)
    assert gmacs == pytest.approx(6 * 64 * 32 / 1e9)


def test_a_tool_that_needs_the_whole_image_gets_it() -> None:
    counting = Counting(lambda images: images - images.mean())
    tools, image = Toolbox([FunctionTool("whole", counting)]), torch.rand(1, 3, 40, 56)
    chosen = np.array([[0] * 3 + [1] * 4] * 5)
    result, _ = apply_tools(tools, chosen, image, grid_of(40, 56), CPU, ignore)
    assert counting.sizes == [(40, 56)]
    assert torch.equal(result[..., :20], (image - image.mean())[..., :20])
    assert torch.equal(result[..., 30:], image[..., 30:])
