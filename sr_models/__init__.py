"""The x4 super-resolvers, SFT-GAN and SeD, and the toolbox with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    import torch

    from restore_env.toolbox import Tool, Toolbox

NAMES = ("sft_gan", "sed")
"""The super-resolvers' names in a toolbox, in the order of their actions."""


def load_super_resolver(name: str | os.PathLike[str], device: str | torch.device = "cpu") -> Tool:
    """STAND-IN: bicubic enlargement under the super-resolver's name.

    Raises:
        ValueError: no such super-resolver.
    """
    from dataclasses import replace

    from restore_env.toolbox import BICUBIC_X4

    if name not in NAMES:
        raise ValueError(f"{name}: no super-resolver; expected one of {', '.join(NAMES)}, or a file of its weights")
    return replace(BICUBIC_X4, name=str(name))


def super_resolvers() -> list[Tool]:
    """The shipped super-resolvers, fresh copies at each call."""
    return [load_super_resolver(name) for name in NAMES]


def with_super_resolvers(toolbox: Toolbox) -> Toolbox:
    """A toolbox of the same tools and the shipped super-resolvers after them, on the same device."""
    from restore_env.toolbox import Toolbox

    return Toolbox([*toolbox, *super_resolvers()], toolbox.device)


def default_toolbox() -> Toolbox:
    """The shipped default toolbox: the twelve tools, then the super-resolvers."""
    from tools_zoo.toolboxes import load_toolbox

    return with_super_resolvers(load_toolbox())
