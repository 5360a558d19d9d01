"""Chains of regions in the Restorer: how tiles choose, what they keep, and what the result says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch

from agents.restoration.explanation import draw_explanation, step_names, summarize_vote
from agents.restoration.files import Job
from agents.restoration.jobs import as_json, as_line
from agents.restoration.restorer import Region, Restorer
from restore_env.images.decoding import read_image
from restore_env.images.tiling import apply_tool, to_tensor
from restore_env.toolbox import FunctionTool, Toolbox
from tests.support.toolkit import Scripted, always, photographs, picture, pixelwise_toolbox, random_toolbox

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 16


class ByBrightness:
    """Predicts gains by a tile's red: those of the first table whose limit it stays below; it remembers its steps."""

    patch_size = SIZE

    def __init__(self, *tables: tuple[int, list[list[float]]], kind: Literal["q"] = "q") -> None:
        self.kind, self.tables, self.recipe = kind, tables, {"decide": "values"}
        self.seen: list[dict[str, npt.NDArray[Any]]] = []
        self.states: list[Any] = []

    def scores(self, observation: Any, state: Any = None, episode_start: Any = None) -> tuple[Any, Any]:
        images = observation["image"]
        self.seen.append(observation)
        red = images[..., 0].mean((1, 2)) if state is None else state[0][0]
        steps = np.zeros(len(images)) if state is None else state[1][0]
        rows = []
        for value, step in zip(red, steps.astype(int), strict=True):
            gains = next(table for limit, table in self.tables if value < limit)
            rows.append([*gains[min(step, len(gains) - 1)], 0.0])
        scores = np.array(rows, np.float32)
        return np.where(observation["action_mask"], scores, -np.inf), (red[None], steps[None] + 1)

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> Any:
        scores, state = self.scores(observation, state, episode_start)
        return scores.argmax(axis=1), state


def slight_tools() -> Toolbox:
    """Tools that change little enough to be kept."""
    return Toolbox(
        [
            FunctionTool(name, change.__add__, macs_per_pixel=2, receptive_radius=0)
            for name, change in (
                ("up", torch.tensor(0.004)),
                ("down", torch.tensor(-0.004)),
                ("more", torch.tensor(0.005)),
            )
        ]
    )


def halves(height: int = 96, width: int = 128) -> npt.NDArray[np.uint8]:
    """Dark on the left, light on the right."""
    image = np.full((height, width, 3), 60, np.uint8)
    image[:, width // 2 :] = 180
    return image


DARK_UP_LIGHT_DOWN = ((100, [[3.0, -3.0, -3.0]]), (256, [[-3.0, 3.0, -3.0]]))
DARK_STOPS = ((100, [[-3.0, -3.0, -3.0]]), (256, [[2.0, 0.1, 0.1], [-3.0, 1.0, -3.0], [-3.0, -3.0, 1.0]]))


def restored(*tables: Any, image: Any = None, tools: Toolbox | None = None, **arguments: Any) -> Any:
    policy = ByBrightness(*tables)
    arguments = {"caution": 0.1, **arguments}
    result = Restorer(tools or slight_tools(), policy, regions=True, **arguments).restore(
        halves() if image is None else image, keep_float=True, keep_stages=True
    )
    return result, policy


# How tiles choose ----------------------------------------------------------------------------------------------------


def test_each_half_gets_its_own_tool() -> None:
    result, _ = restored(*DARK_UP_LIGHT_DOWN, max_steps=1)
    assert result.regions == (Region(("up",), 0.5), Region(("down",), 0.5))
    assert result.steps == (("up", "down"),)
    assert result.toolchain == ("up", "down")
    image = halves().astype(np.float32) / 255
    far = 20  # beyond the ramp
    np.testing.assert_allclose(result.float_image[:, : 64 - far], image[:, : 64 - far] + 0.004, atol=1e-6)
    np.testing.assert_allclose(result.float_image[:, 64 + far :], image[:, 64 + far :] - 0.004, atol=1e-6)
    assert result.gmacs == pytest.approx(2 * 96 * 128 / 1e9)
    (vote,) = result.votes
    assert (vote.grid[:, :4] == 0).all()
    assert (vote.grid[:, 4:] == 1).all()
    assert vote.predicted == pytest.approx(3.0)
    np.testing.assert_allclose(vote.edges[1] * 128, np.arange(0, 129, 16))


def test_caution_holds_for_every_region() -> None:
    tables = ((100, [[0.5, -1.0, -1.0]]), (256, [[-1.0, 2.5, -1.0]]))
    for caution, other in ((0.2, ("up",)), (0.7, ())):
        result, _ = restored(*tables, caution=caution, max_steps=1)
        chains = {region.toolchain for region in result.regions if region.share > 0.2}
        assert chains == {other, ("down",)}


def test_a_small_benefit_divides_no_image() -> None:
    """Of two tools each is better by 0.4 dB on its half, which is 0.2 dB for the whole."""
    for difference, divided in ((0.4, False), (0.9, True)):
        tables = ((100, [[2.0, 2.0 - difference, -1.0]]), (256, [[2.1 - difference, 2.0, -1.0]]))
        result, _ = restored(*tables, max_steps=1)
        assert (len(result.regions) > 1) is divided
        assert result.regions[0] == Region(("up",), 0.5 if divided else 1.0)


def test_an_image_that_needs_nothing_as_a_whole_is_divided_for_more() -> None:
    """One half of it would gain 0.9 or 1.3 dB by a tool by which the other one loses."""
    for gain, divided in ((0.9, False), (1.3, True)):
        tables = ((100, [[-1.5, -1.5, -1.5]]), (256, [[gain, -1.5, -1.5]]))
        result, _ = restored(*tables, caution=0.2, max_steps=1)
        assert (len(result.regions) > 1) is divided


def test_few_tools_are_chosen_from() -> None:
    """A third tool that is hardly better on some tiles is left out."""
    for third, used in ((1.02, False), (3.0, True)):
        tables = ((80, [[1.0, -1.0, -1.0]]), (140, [[1.0, -1.0, third]]), (256, [[-1.0, 1.0, -1.0]]))
        image = halves()
        image[:, 32:64] = 100
        result, _ = restored(*tables, image=image, max_steps=1)
        assert ("more" in result.toolchain) is used
        assert {"up", "down"} <= set(result.toolchain)


def test_one_tile_does_not_jump() -> None:
    """A tile that expects another tool than all around it gets theirs."""
    tables = ((80, [[0.4, 1.0, -1.0]]), (256, [[1.5, -1.0, -1.0]]))
    image = np.full((96, 128, 3), 180, np.uint8)
    image[48:64, 48:64] = 60
    result, _ = restored(*tables, image=image, max_steps=1)
    assert result.regions == (Region(("up",), 1.0),)


def test_tiles_that_stopped_are_left_alone() -> None:
    result, policy = restored(*DARK_STOPS)
    assert set(result.regions) == {Region(("up", "down", "more"), 0.5), Region((), 0.5)}
    assert [len(step["image"]) for step in policy.seen] == [48, 24, 24]
    assert [set(step["last_action"].tolist()) for step in policy.seen] == [{4}, {0}, {1}]
    assert [set(step["steps_left"].tolist()) for step in policy.seen] == [{3}, {2}, {1}]
    for vote in result.votes:
        assert (vote.grid[:, :4] == 3).all()
    np.testing.assert_array_equal(result.image[:, :44], halves()[:, :44])


def test_policies_that_predict_no_gains_choose_by_votes_nearby() -> None:
    chosen = np.zeros((6, 8), np.int64)
    chosen[:, 4:] = 2
    chosen[2, 2] = 1  # alone among its neighbours
    policy = Scripted(lambda _: chosen.ravel(), always(3), patch_size=SIZE)
    result = Restorer(pixelwise_toolbox(), policy, regions=True).restore(halves())
    assert result.steps == (("brighten", "invert"),)
    chosen[2, 2] = 0
    np.testing.assert_array_equal(result.votes[0].grid, chosen)
    assert result.predicted_gain is None


# One chain -----------------------------------------------------------------------------------------------------------


def test_where_all_tiles_agree_the_result_is_that_of_one_chain_to_the_bit() -> None:
    toolbox, (clean,) = random_toolbox(), photographs(1, 150, 170)
    image = np.clip(clean + np.random.default_rng(0).normal(0, 9, clean.shape), 0, 255).astype(np.uint8)
    gains = np.full((3, len(toolbox)), -1.0)
    gains[[0, 1, 2], [3, 7, 0]] = 1.0
    results = [
        Restorer(toolbox, ByBrightness((256, gains.tolist())), regions=regions).restore(image, keep_float=True)
        for regions in (False, True)
    ]
    one, regional = results
    np.testing.assert_array_equal(one.float_image, regional.float_image)
    assert (one.toolchain, one.gmacs, one.steps) == (regional.toolchain, regional.gmacs, regional.steps)
    assert one.regions == regional.regions == (Region(one.toolchain, 1.0),)
    assert [vote.predicted for vote in one.votes] == [vote.predicted for vote in regional.votes]
    working = to_tensor(image)
    for name in one.toolchain:
        working = apply_tool(toolbox[toolbox.action(name)], working)
    np.testing.assert_array_equal(one.float_image, working[0].permute(1, 2, 0).numpy())


def test_nothing_to_do_is_one_region() -> None:
    result, _ = restored((256, [[-1.0, -1.0, -1.0]]))
    assert result.regions == (Region((), 1.0),)
    assert (result.toolchain, result.steps, result.predicted_gain) == ((), (), 0.0)
    np.testing.assert_array_equal(result.image, halves())


# Colours -------------------------------------------------------------------------------------------------------------


def test_a_tool_that_changes_the_colours_of_its_region_is_taken_back() -> None:
    """Three grey levels on half of the image are 1.5 of the whole, yet 3 where the tool was chosen."""
    tools = Toolbox(
        [
            FunctionTool("fine", lambda images: images + 0.001, receptive_radius=0),
            FunctionTool("lighten", lambda images: images + 2.9 / 255, receptive_radius=0),
        ]
    )
    tables = ((100, [[3.0, -3.0]]), (256, [[1.0, 3.0]]))
    result, _ = restored(*tables, tools=tools, max_steps=1)
    assert result.taken_back == ("lighten",)
    assert result.regions == (Region(("fine",), 1.0),)
    assert len(result.votes) == 1


def test_a_tool_that_is_taken_back_from_a_part_can_still_be_for_the_whole_image() -> None:
    """What is left to divide with is worth less than one chain of all tools."""
    tools = Toolbox(
        [
            FunctionTool("fine", lambda images: images + 0.001, receptive_radius=0),
            FunctionTool("lights", lambda images: images + 2.9 / 255 * (images > 0.5), receptive_radius=0),
        ]
    )
    image = np.maximum(halves(), 80)  # colours are compared in both halves
    for gain, chains, taken_back in ((2.0, {("lights",)}, ()), (-4.0, {("fine",), ()}, ("lights",))):
        tables = ((100, [[3.0, gain]]), (256, [[-3.0, 3.0]]))
        result, _ = restored(*tables, image=image, tools=tools, max_steps=1)
        assert {region.toolchain for region in result.regions} == chains
        assert result.taken_back == taken_back


# What it says --------------------------------------------------------------------------------------------------------


def test_regions_are_told() -> None:
    result, _ = restored(*DARK_STOPS)
    job = Job(Path("in.png"), Path("out.png"))
    line = as_line(job, result)
    assert line.startswith("in.png -> out.png: ")
    assert "up, down, more on 50%" in line
    assert "no tool on 50%" in line
    told = as_json(job, result)["regions"]
    assert sorted(told, key=lambda region: len(region["toolchain"])) == [
        {"toolchain": [], "share": pytest.approx(0.5)},
        {"toolchain": ["up", "down", "more"], "share": pytest.approx(0.5)},
    ]


def test_the_figure_shows_the_steps_of_regions(tmp_path: Path) -> None:
    result, policy = restored(*DARK_UP_LIGHT_DOWN, max_steps=1)
    assert step_names(result) == ["up and 1 more"]
    assert len(result.stages) == 2
    tools = slight_tools().names
    scores = summarize_vote(result.votes[0], policy.kind, len(tools) + 1)
    np.testing.assert_allclose(scores.values, [0, 0, -3, 0], atol=1e-6)
    draw_explanation(tmp_path / "figure.png", result, tools, policy.kind)
    assert min(read_image(tmp_path / "figure.png").pixels.shape[:2]) > 300


def test_votes_of_stopped_tiles_can_be_summed_up() -> None:
    """A tool is taken back after some tiles have stopped: it is forbidden to those that are asked again."""
    tools = Toolbox(
        [
            FunctionTool("fine", lambda images: images + 0.001, receptive_radius=0),
            FunctionTool("lighten", lambda images: images + 0.05, receptive_radius=0),
        ]
    )
    tables = ((100, [[-3.0, -3.0]]), (256, [[3.0, 1.0], [1.0, 3.0]]))
    result, policy = restored(*tables, tools=tools, max_steps=2)
    assert result.taken_back == ("lighten",)
    last = summarize_vote(result.votes[-1], policy.kind, 3)
    assert np.isnan(last.values).tolist() == [False, True, False]


@pytest.mark.parametrize("scale", [2, 4])
def test_regions_are_refused_at_other_scales(scale: int) -> None:
    with pytest.raises(ValueError, match=f"regions work at scale 1: with scale {scale} all tiles share one chain"):
        Restorer(pixelwise_toolbox(), Scripted(always(3)), regions=True, scale=scale)
    restorer = Restorer(pixelwise_toolbox(), Scripted(always(3)), regions=True)
    with pytest.raises(ValueError, match="regions work at scale 1"):
        restorer.restore(picture(), scale=scale)
