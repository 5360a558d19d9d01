"""Pipelines: which policy, tools and super-resolver are combined, and what they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sr_models
from agents import Restorer, load_policy
from agents.agent import RecurrentAgent, with_tools
from agents.restoration.pipeline import make_pipeline
from restore_env import FunctionTool
from restore_env.images.tiling import to_pixels, to_tensor, upscale_bicubic
from restore_env.toolbox import BICUBIC_X4
from tests.support.toolkit import double_pixels, picture, pixelwise_toolbox, pixelwise_tools

pytestmark = pytest.mark.usefixtures("one_thread")

PIXELWISE = ("brighten", "dim", "invert")
UPSCALING = ("sft_gan", "sed")


def agent_of(tools: tuple[str, ...], *chain: str) -> RecurrentAgent:
    """An agent that prefers these actions in this order, by what it did last, and after them the first one again."""
    agent = RecurrentAgent(tools).eval().requires_grad_(False)
    names = (*tools, "stop")
    previous = ("none", *chain)

    class Chain(torch.nn.Module):
        def forward(self, images: torch.Tensor, last_action: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
            scores = torch.zeros(len(images), len(names))
            for row, last in enumerate(last_action.tolist()):
                done = "none" if last == len(names) else names[last]
                after = previous.index(done) if done in previous else len(chain)
                for rank, name in enumerate(chain[after:] + chain[:after]):
                    scores[row, names.index(name)] += len(chain) - rank
            return scores, state

    agent.step = Chain().forward  # type: ignore[assignment, method-assign]
    return agent


class TestMakePipeline:
    def test_a_policy_without_super_resolvers_gets_the_shipped_final_upscaler(self) -> None:
        agent = RecurrentAgent(PIXELWISE)
        pipeline = make_pipeline(agent, pixelwise_toolbox(), upscaling=True)
        assert pipeline.toolbox.names == PIXELWISE
        assert pipeline.final_upscaler is not None
        assert pipeline.final_upscaler.name == "sft_gan"
        assert make_pipeline(agent, pixelwise_toolbox()).final_upscaler is None

    def test_a_policy_without_super_resolvers_does_not_choose_those_of_the_toolbox(self) -> None:
        tools = pixelwise_toolbox(super_resolver=True)
        for upscaling in (True, False):
            pipeline = make_pipeline(RecurrentAgent(PIXELWISE), tools, upscaling=upscaling)
            assert pipeline.toolbox.names == PIXELWISE
            assert pipeline.final_upscaler is (tools[3] if upscaling else None)

    @pytest.mark.parametrize("upscaling", [True, False])
    def test_a_policy_with_the_shipped_super_resolvers_gets_them_where_they_are_needed(self, upscaling: bool) -> None:
        agent = RecurrentAgent((*PIXELWISE, *UPSCALING))
        pipeline = make_pipeline(agent, pixelwise_toolbox(), upscaling=upscaling)
        assert pipeline.toolbox.names == (agent.tools if upscaling else PIXELWISE)
        assert pipeline.permitted.tolist() == [1] * (6 if upscaling else 4)
        assert pipeline.final_upscaler is None

    def test_a_given_super_resolver_is_the_only_one(self) -> None:
        agent = RecurrentAgent((*PIXELWISE, *UPSCALING))
        pipeline = make_pipeline(agent, pixelwise_toolbox(), upscaling=True, super_resolver="sed")
        assert pipeline.permitted.tolist() == [1, 1, 1, 0, 1, 1]
        assert pipeline.final_upscaler is None
        mine = FunctionTool("sed", double_pixels, scale=4)  # the name of another
        for wanted in (mine, "bicubic_x4"):
            pipeline = make_pipeline(agent, pixelwise_toolbox(), upscaling=True, super_resolver=wanted)
            assert pipeline.permitted.tolist() == [1, 1, 1, 0, 0, 1]
            assert pipeline.final_upscaler is (BICUBIC_X4 if wanted == "bicubic_x4" else mine)

    def test_a_policy_without_tool_names_gets_the_whole_toolbox(self) -> None:
        policy: Any = object()
        tools = pixelwise_toolbox(super_resolver=True)
        assert make_pipeline(policy, tools, upscaling=True).toolbox is tools
        assert make_pipeline(policy, tools, upscaling=True).final_upscaler is None
        pipeline = make_pipeline(policy, pixelwise_toolbox(), upscaling=True)
        assert pipeline.final_upscaler is not None

    @pytest.mark.parametrize(
        ("tools", "message"),
        [
            (
                ("brighten", "dim"),
                "the tools brighten, dim; the toolbox has brighten, dim, invert: choose",
            ),
            (("sft_gan", *PIXELWISE), "the toolbox has brighten, dim, invert: choose"),
            ((*PIXELWISE, "other"), "the toolbox has brighten, dim, invert, sft_gan, sed"),
        ],
    )
    def test_a_policy_of_other_tools_is_refused(self, tools: tuple[str, ...], message: str) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            make_pipeline(RecurrentAgent(tools), pixelwise_toolbox(), upscaling=True)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("wanted", "message"),
        [
            ("nope", "nope: no super-resolver"),
            (Path("nope.safetensors"), r"nope\.safetensors: no"),
            ("dim", "dim does not upscale: choose a super-resolver"),
            (pixelwise_tools()[0], "brighten does not upscale"),
        ],
    )
    def test_what_is_no_super_resolver_is_refused(self, wanted: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message) as caught:
            Restorer(pixelwise_toolbox(), RecurrentAgent(PIXELWISE), scale=4, super_resolver=wanted)
        assert "\n" not in str(caught.value)


class TestAgentOfBothTasks:
    def test_it_leaves_out_super_resolvers_where_nothing_is_upscaled(self) -> None:
        tools = sr_models.default_toolbox()
        agent = with_tools(load_policy("default"), tools.names)
        restorer = Restorer(tools, agent)
        assert restorer.toolbox.names == tools.names[:12]
        assert restorer.pipeline(4).toolbox.names == tools.names
        same = Restorer(policy=agent)
        assert same.toolbox.names == tools.names[:12]
        assert same.pipeline(4).toolbox.names == tools.names


class TestUpscaling:
    def test_the_chain_then_the_super_resolver(self) -> None:
        agent = agent_of(PIXELWISE, "invert", "stop")
        restorer = Restorer(
            pixelwise_toolbox(), agent, scale=4, super_resolver=FunctionTool("x4", double_pixels, 4, 5.0)
        )
        result = restorer.restore(picture(), keep_stages=True, target=np.zeros((64, 96, 3), np.uint8))
        assert result.toolchain == ("invert", "x4")
        assert [vote.action for vote in result.votes] == ["invert", "stop"]
        np.testing.assert_array_equal(result.image, 255 - picture().repeat(4, axis=0).repeat(4, axis=1))
        assert result.gmacs == pytest.approx((6 + 5) * 16 * 24 / 1e9)
        assert [stage.image.shape for stage in result.stages] == [(64, 96, 3)] * 3
        assert result.stages[-1].psnr == result.psnr_after
        plain = to_pixels(upscale_bicubic(to_tensor(picture()), 4))
        np.testing.assert_array_equal(result.stages[0].image, plain)

    def test_the_scale_of_the_restorer_and_of_the_call(self) -> None:
        agent, tool = agent_of(PIXELWISE, "dim", "stop"), FunctionTool("x4", double_pixels, 4)
        once = Restorer(pixelwise_toolbox(), agent, scale=4, super_resolver=tool)
        called = Restorer(pixelwise_toolbox(), agent, super_resolver=tool)
        np.testing.assert_array_equal(once.restore(picture()).image, called.restore(picture(), scale=4).image)
        np.testing.assert_array_equal(once.restore(picture(), scale=1).image, called.restore(picture()).image)
        assert called.restore(picture()).toolchain == ("dim",)

    def test_the_policys_own_choice_in_the_order_it_wants(self) -> None:
        tools = (*PIXELWISE, *UPSCALING)
        for chain, super_resolver, expected in (
            (("dim", "sed", "invert"), None, ("dim", "sed", "invert")),
            (("dim", "stop", "sed"), None, ("dim", "sed", "dim")),
            (("dim", "sed", "stop", "sft_gan"), "sft_gan", ("dim", "sft_gan", "dim")),
        ):
            restorer = Restorer(pixelwise_toolbox(), agent_of(tools, *chain), scale=4, super_resolver=super_resolver)
            result = restorer.restore(picture(70, 80))
            assert result.toolchain == expected
            assert result.image.shape == (280, 320, 3)
