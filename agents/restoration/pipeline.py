"""Pipelines: a policy, its toolbox, and a final upscaler for a policy that has no super-resolver among its tools."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from agents.agent import PATCH_SIZE, check_tools
from agents.policy_input import PolicyInput
from restore_env.policy import Policy
from restore_env.resolve import resolve_toolbox
from restore_env.toolbox import BICUBIC_X4, FunctionTool, Tool, Toolbox

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""
DEFAULT_SUPER_RESOLVER = "sft_gan"
"""The shipped super-resolver that is the final upscaler."""

SuperResolverLike: TypeAlias = "Tool | str | os.PathLike[str]"
"""A super-resolver: a tool, the name of one, or a file of its weights."""


@dataclass(frozen=True)
class Pipeline:
    """A policy and its tools."""

    policy: Policy
    toolbox: Toolbox
    """The tools that the policy chooses from."""
    policy_input: PolicyInput
    """What the policy gets as input."""
    permitted: npt.NDArray[np.int8]
    """``(len(toolbox) + 1,)``: 0 for super-resolvers that must not be used, else 1."""
    final_upscaler: Tool | None = None
    """Upscales an image at the end that no tool has upscaled; None: bicubic upscaling."""

    @property
    def patch_size(self) -> int:
        """Side of the policy's input patches, pixels."""
        return int(getattr(self.policy, "patch_size", PATCH_SIZE))

    def without_colour(self) -> Pipeline:
        """The pipeline for grey images: what each tool returns becomes its luminance, R = G = B."""
        toolbox, final_upscaler = self.toolbox, self.final_upscaler
        return replace(
            self,
            toolbox=Toolbox([_without_colour(tool) for tool in toolbox], toolbox.device),
            final_upscaler=None if final_upscaler is None else _without_colour(final_upscaler),
        )


def make_pipeline(
    policy: Policy,
    tools: Toolbox,
    *,
    upscaling: bool = False,
    super_resolver: SuperResolverLike | None = None,
) -> Pipeline:
    """Combine a policy and tools.

    Args:
        policy: its field ``tools`` names the tools that it was trained with; without that field, all of them. Its
            ``recipe`` may say what its input is (:class:`agents.policy_input.PolicyInput`).
        tools: these, with or without the super-resolvers among them, or with more super-resolvers.
        upscaling: whether images are upscaled.
        super_resolver: upscales them. None: the one that the policy chooses; for a policy without super-resolvers the
            first super-resolver of the tools, or else :data:`DEFAULT_SUPER_RESOLVER`.

    Raises:
        ValueError: the policy was trained with other tools, or its recipe is invalid; a super-resolver that does not
            exist, or does not upscale.
    """
    known, policy_input = _known_tools(policy, tools), PolicyInput.of(policy)
    permitted = np.ones(len(known) + 1, dtype=np.int8)
    upscalers = [tool for tool in known if tool.scale > 1]
    if not upscaling or (super_resolver is None and upscalers):
        return Pipeline(policy, known, policy_input, permitted)
    final_upscaler = _find_super_resolver(super_resolver, [*known, *tools], tools.device)
    permitted[:-1] = [tool.scale == 1 or tool is final_upscaler for tool in known]
    chosen_by_policy = any(tool is final_upscaler for tool in known)
    return Pipeline(policy, known, policy_input, permitted, None if chosen_by_policy else final_upscaler)


def _known_tools(policy: Policy, tools: Toolbox) -> Toolbox:
    """The policy's own tools: without the super-resolvers, or with them, if it was trained so."""
    own = getattr(policy, "tools", None)
    if own is None or tuple(own) == tools.names:
        return tools
    same_size = [tool for tool in tools if tool.scale == 1]
    if tuple(own) == tuple(tool.name for tool in same_size):
        return Toolbox(same_size, tools.device)
    if len(same_size) == len(tools) < len(own) and tuple(own[: len(tools)]) == tools.names:
        from sr_models import with_super_resolvers

        tools = with_super_resolvers(tools)
    check_tools(policy, tools.names)
    return tools


def _find_super_resolver(wanted: SuperResolverLike | None, tools: Sequence[Tool], device: torch.device) -> Tool:
    """Find a super-resolver: one of the tools, a shipped one, or a file."""
    if wanted is None:
        wanted = next((tool.name for tool in tools if tool.scale > 1), DEFAULT_SUPER_RESOLVER)
    found = next((tool for tool in [*tools, BICUBIC_X4] if tool.name == wanted), None)
    if isinstance(wanted, Tool):
        found = resolve_toolbox([wanted], device)[0]
    elif found is None:
        from sr_models import load_super_resolver

        found = load_super_resolver(wanted, device)
    if found.scale < 2:
        raise ValueError(f"{found.name} does not upscale: choose a super-resolver")
    return found


def _without_colour(tool: Tool) -> Tool:
    def run(images: torch.Tensor) -> torch.Tensor:
        restored = tool(images)
        if restored.ndim != 4 or restored.shape[1] != 3:  # the toolbox refuses a wrong shape
            return restored
        grey = torch.einsum("nchw,c->nhw", restored, restored.new_tensor(LUMINANCE))
        return grey[:, None].expand_as(restored)

    return FunctionTool(tool.name, run, tool.scale, tool.macs_per_pixel, tool.receptive_radius)
