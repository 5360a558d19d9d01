"""Pipelines: a policy, its toolbox, and a final upscaler for a policy that has no super-resolver among its tools."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from agents.agent import PATCH_SIZE, RecurrentAgent, check_tools, with_tools
from agents.policies.heuristics import FixedChain
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
    chain: tuple[Tool, ...] | None = None
    """Tools that every image gets, in order, in place of those that the policy chooses."""

    @property
    def patch_size(self) -> int:
        """Side of the policy's input patches, pixels."""
        return int(getattr(self.policy, "patch_size", PATCH_SIZE))

    def without_colour(self) -> Pipeline:
        """The pipeline for grey images: what each tool returns becomes its luminance, R = G = B."""
        return self._with_each(_without_colour)

    def for_scale(self, scale: int) -> Pipeline:
        """The pipeline in which the result of a tool that upscales too much is reduced: of a x4 tool for scale 2."""
        return self if scale == 1 else self._with_each(lambda tool: _reduced(tool, scale))

    def _with_each(self, changed: Callable[[Tool], Tool]) -> Pipeline:
        final_upscaler, chain = self.final_upscaler, self.chain
        return replace(
            self,
            toolbox=Toolbox([changed(tool) for tool in self.toolbox], self.toolbox.device),
            final_upscaler=None if final_upscaler is None else changed(final_upscaler),
            chain=None if chain is None else tuple(changed(tool) for tool in chain),
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
    if isinstance(policy, RecurrentAgent) and not upscaling:
        policy = _of_same_size(policy, tools)
    known, policy_input = _known_tools(policy, tools), PolicyInput.of(policy)
    permitted = np.ones(len(known) + 1, dtype=np.int8)
    upscalers = [tool for tool in known if tool.scale > 1]
    if not upscaling or (super_resolver is None and upscalers):
        return Pipeline(policy, known, policy_input, permitted)
    final_upscaler = _find_super_resolver(super_resolver, [*known, *tools], tools.device)
    permitted[:-1] = [tool.scale == 1 or tool is final_upscaler for tool in known]
    chosen_by_policy = any(tool is final_upscaler for tool in known)
    return Pipeline(policy, known, policy_input, permitted, None if chosen_by_policy else final_upscaler)


def chain_pipeline(
    names: Sequence[str], tools: Toolbox, scale: int, super_resolver: SuperResolverLike | None = None
) -> Pipeline:
    """A pipeline in which every image gets the same tools.

    Args:
        names: of the tools, in order; where images are upscaled one may be a super-resolver, of the tools or shipped.
        tools: what the names mean.
        scale: upscale factor.
        super_resolver: upscales at the end if no tool of the chain does. None: as in :func:`make_pipeline`.

    Raises:
        ValueError: a name of no tool, or tools that upscale more than the scale.
    """
    from sr_models.super_resolver import BY_NAME

    every = tuple(dict.fromkeys([*tools.names, *BY_NAME, BICUBIC_X4.name]))
    known = {tool.name: tool for tool in tools}
    remaining = scale
    for name in names:
        if name not in every:
            raise ValueError(f"no tool {name!r}: choose from {', '.join(every)}")
        if scale == 1 and (name not in known or known[name].scale > 1):
            raise ValueError(f"{name} is a super-resolver: it needs a scale of 2 or 4")
        if name not in known:
            known[name] = _find_super_resolver(name, [], tools.device)
        factor = _reduced(known[name], scale).scale
        if remaining % factor:
            raise ValueError(f"the chain {', '.join(names)} upscales more than {scale} times")
        remaining //= factor
    upscales = remaining < scale
    if upscales and super_resolver is not None:
        raise ValueError("the chain has a super-resolver: leave the other one out")
    final = None if upscales or scale == 1 else _find_super_resolver(super_resolver, list(known.values()), tools.device)
    toolbox = Toolbox(list(known.values()), tools.device)
    policy = FixedChain([toolbox.action(name) for name in names], toolbox.stop)
    permitted = np.ones(len(toolbox) + 1, dtype=np.int8)
    return Pipeline(policy, toolbox, PolicyInput(), permitted, final, tuple(known[name] for name in names))


def _of_same_size(agent: RecurrentAgent, tools: Toolbox) -> RecurrentAgent:
    """The agent without the tools that upscale, if it has more than the others."""
    same_size = tuple(tool.name for tool in tools if tool.scale == 1)
    return with_tools(agent, same_size) if set(same_size) < set(agent.tools) else agent


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


def _reduced(tool: Tool, scale: int) -> Tool:
    """The tool, its result reduced to ``scale`` times the image by the mean of each area, if it upscales more."""
    factor, rest = divmod(tool.scale, scale)
    if factor < 2 or rest:
        return tool

    def run(images: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(tool(images), factor)

    return FunctionTool(tool.name, run, scale, tool.macs_per_pixel, tool.receptive_radius)


def _without_colour(tool: Tool) -> Tool:
    def run(images: torch.Tensor) -> torch.Tensor:
        restored = tool(images)
        if not isinstance(restored, torch.Tensor) or restored.ndim != 4 or restored.shape[1] != 3:  # is refused later
            return restored
        grey = torch.einsum("nchw,c->nhw", restored, restored.new_tensor(LUMINANCE))
        return grey[:, None].expand_as(restored)

    return FunctionTool(tool.name, run, tool.scale, tool.macs_per_pixel, tool.receptive_radius)
