"""SegFormer, from Hugging Face's transformers, as the semantic prior: larger and better than the shipped one.

Its weights are not part of the package: name a local folder, or a hub model trained on ADE20K's 150 classes, such as
"nvidia/segformer-b0-finetuned-ade-512-512", with the commit. Source: Xie et al., NeurIPS 2021, arXiv 2105.15203.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_env.errors import one_line
from restore_env.extras import require_extra
from sr_models.complexity import macs_per_pixel
from sr_models.extractors.extractor import IMAGENET_MEAN, IMAGENET_STD, Normalize
from sr_models.generators import UPSCALE
from sr_models.prior.categories import ADE20K_CATEGORIES, ADE20K_CLASSES, CATEGORIES
from sr_models.prior.semantic_prior import PriorError, SemanticPrior, load_prior, network_input

PREFIX = "segformer:"
"""Prefix of a SegFormer's name where a prior is named."""
SMALLEST = 8
"""Pixels of the low-resolution image that the coarsest attention needs; the edges of a smaller one are replicated."""
_COMMIT = re.compile("[0-9a-f]{40}")
MEASURED_SIZE = 64
"""Side of the low-resolution image on which the multiply-accumulates are counted."""


class SegformerPrior(nn.Module):
    """A network for ADE20K's classes as a :class:`sr_models.prior.semantic_prior.Prior`.

    Args:
        model: takes ``pixel_values`` and returns an object with ``logits``, ``(N, 150, h, w)``.
    """

    table: Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_STD)
        categories = torch.zeros(ADE20K_CLASSES, dtype=torch.int64)  # background, unless the table says otherwise
        for name, classes in ADE20K_CATEGORIES.items():
            categories[list(classes)] = CATEGORIES.index(name)
        self.register_buffer("table", F.one_hot(categories, len(CATEGORIES)).T.float(), persistent=False)
        self.macs_per_pixel = macs_per_pixel(self, torch.zeros(1, 3, MEASURED_SIZE, MEASURED_SIZE))
        """Multiply-accumulates per pixel of a low-resolution image of 64x64 (attention grows with the size)."""

    def forward(self, images: Tensor) -> Tensor:
        """Compute the probability of each category ``(N, 8, 4H, 4W)``: the sum of those of its ADE20K classes."""
        height, width = images.shape[-2:]
        pad_height, pad_width = max(0, SMALLEST - height), max(0, SMALLEST - width)
        images = F.pad(images, (0, pad_width, 0, pad_height), mode="replicate")
        logits: Tensor = self.model(pixel_values=self.normalize(network_input(images))).logits
        maps = torch.einsum("kc,nchw->nkhw", self.table, logits.float().softmax(dim=1))
        size = (UPSCALE * (height + pad_height), UPSCALE * (width + pad_width))
        maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
        return maps[..., : UPSCALE * height, : UPSCALE * width]


def load_segformer(name_or_path: str | os.PathLike[str]) -> SegformerPrior:
    """Load a SegFormer, or any other of transformers' networks for semantic segmentation, for ADE20K.

    Args:
        name_or_path: a folder with ``config.json`` and weights; or a hub model, which is downloaded, as
            ``owner/name@revision``: a commit, so that it is the same one tomorrow.

    Raises:
        PriorError: transformers is not installed, there is no such model, none of its revisions is named, or it is not
            one for ADE20K's 150 classes.
    """
    name, _, revision = str(name_or_path).partition("@")
    local = Path(name_or_path).is_dir()
    if not local and not _COMMIT.fullmatch(revision):
        raise PriorError(f"{name_or_path}: no such folder; of a hub model name the commit, {name}@<40 hex digits>")
    require_extra("semantics", f"{name_or_path}: SegFormer", PriorError)
    from transformers import AutoModelForSemanticSegmentation

    try:
        source: dict[str, Any] = {} if local else {"revision": revision}
        model: Any = AutoModelForSemanticSegmentation.from_pretrained(
            str(name_or_path) if local else name, trust_remote_code=False, **source
        )
    except Exception as error:  # transformers, its hub and safetensors each raise something else
        raise PriorError(f"{name_or_path}: not a loadable segmentation model ({one_line(error)})") from None
    labels = int(model.config.num_labels)
    if labels != ADE20K_CLASSES:
        raise PriorError(f"{name_or_path}: has {labels} classes; expected ADE20K's {ADE20K_CLASSES}")
    return SegformerPrior(model)


def open_prior(name: str) -> SemanticPrior | SegformerPrior:
    """Load as :func:`load_prior`, or a SegFormer: a folder with ``config.json``, or "segformer:MODEL@COMMIT".

    Raises:
        PriorError: neither can be loaded.
    """
    if name.startswith(PREFIX) or (Path(name) / "config.json").is_file():
        return load_segformer(name.removeprefix(PREFIX))
    return load_prior(name)
