"""Loading and saving of semantic priors: the shipped one, one that training wrote, or a SegFormer."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from restore_env.toolbox import usable_device
from sr_models.prior.segformer import SegformerPrior, load_segformer
from sr_models.prior.semantic_prior import PriorError, SemanticPrior
from tools_zoo.weight_files import load_state, read_weights, recipe_of, write_weights

SEGFORMER = "segformer:"
"""Prefix of a SegFormer's name where a prior is named."""
SHIPPED = Path(__file__).parents[1] / "weights"
"""The folder of the shipped weights."""
WEIGHTS_FILE = "prior.safetensors"


def load_prior(name_or_path: str | os.PathLike[str] = "default", device: str | torch.device = "cpu") -> SemanticPrior:
    """Load a prior: the shipped one ("default"), or a safetensors file (or its folder) that training wrote.

    Returns:
        The network, in evaluation mode, frozen.

    Raises:
        PriorError: the file is missing or damaged, or does not hold this network's weights.
        ValueError: a device that cannot be used.
    """
    device = usable_device(device)
    path = SHIPPED / WEIGHTS_FILE if str(name_or_path) == "default" else Path(name_or_path)
    if path.is_dir():
        path = path / WEIGHTS_FILE
    state, metadata = read_weights(path, PriorError, "'default' or a prior's safetensors file")
    prior = SemanticPrior(recipe_of(metadata))
    load_state(prior, state, path, "a prior", PriorError)
    return prior.eval().requires_grad_(False).to(device)


def open_prior(
    name_or_path: str | os.PathLike[str] = "default", device: str | torch.device = "cpu"
) -> SemanticPrior | SegformerPrior:
    """Load as :func:`load_prior`, or a SegFormer: a folder with ``config.json``, or "segformer:" and a hub model.

    Raises:
        ValueError: neither can be loaded.
    """
    text = str(name_or_path)
    model = text.removeprefix(SEGFORMER)
    if model != text or (Path(text) / "config.json").is_file():
        return load_segformer(model, device)
    return load_prior(name_or_path, device)


def save_prior(prior: SemanticPrior, path: str | os.PathLike[str]) -> None:
    """Write a prior's weights and recipe as a safetensors file, whole or not at all."""
    write_weights(path, prior.state_dict(), {"name": "prior", "recipe": json.dumps(prior.recipe)})
