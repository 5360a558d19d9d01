"""Fingerprints of toolboxes: whether two compute the same."""

from __future__ import annotations

import hashlib

import torch

from restore_env.toolbox import Toolbox


def fingerprint(toolbox: Toolbox) -> str:
    """A digest of the tools' names, types and weights; functions without weights count by their name."""
    digest = hashlib.sha256()
    for tool in toolbox:
        module = getattr(tool, "function", tool)
        digest.update(f"{tool.name} {tool.scale} {type(module).__qualname__}".encode())
        if isinstance(module, torch.nn.Module):
            for name, value in module.state_dict().items():
                digest.update(name.encode())
                digest.update(value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
