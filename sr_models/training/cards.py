"""The model cards that the trainings of super-resolvers and of the prior write."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sr_models.prior.categories import CATEGORIES
from sr_models.prior.labels import HELD_OUT_EVERY, SegmentationScores
from sr_models.prior.semantic_prior import SemanticPrior
from sr_models.super_resolver import STAGES, read_generator
from sr_models.training.crops import CROPS
from tools_zoo.training.cards import write_card

_LOSSES = (
    "discriminator",
    "width",
    "semantic",
    "pixel",
    "artefact",
    "perceptual",
    "adversarial",
    "category",
    "adversarial_loss",
)
_FROZEN = ("prior", "features", "semantics")


def write_sr_card(folder: Path) -> None:
    """Write the model card ``folder/README.md`` of the stages whose weights are in the folder."""
    stages = [folder / f"{stage}.safetensors" for stage in STAGES]
    weights = [read_generator(path) for path in stages if path.exists()]
    recipes = {each.stage: each.recipe for each in weights}
    rows = ["| stage | steps | minutes | precision | device | PSNR, dB | perceptual distance |", "|---" * 7 + "|"]
    for stage, recipe in recipes.items():
        cells = [stage, recipe.get("steps"), f"{(recipe.get('seconds') or 0) / 60:.1f}"]
        cells += [recipe.get(name) for name in ("precision", "device")]
        cells += [f"{recipe.get(f'{kind}_bicubic')} -> {recipe.get(f'{kind}_output')}" for kind in ("psnr", "distance")]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    last, gan = weights[-1].recipe, recipes.get("gan", {})
    losses = [f"- GAN stage: {name} {gan[name]}" for name in _LOSSES if name in gan]
    frozen = [f"- {name}: {last[name]}" for name in _FROZEN]
    commands = [f"{one['command']}  # {one.get('version')}" for one in recipes.values() if one.get("command")]
    text = f"""# A x4 super-resolver: {weights[0].network}

## Use
For RGB scaled to [0, 1]. Load with `sr_models.load_super_resolver`.

## Data
{last.get("images")} photographs, low-resolution images by the distortion "{last.get("distortion")}". The licence of the
weights follows that of the photographs.

## Recipe
The PSNR stage minimises the mean absolute error, the GAN stage goes on from its weights with the losses below. Warm-up
and cosine decay of the learning rate, weights averaged.

{chr(10).join([*losses, *frozen])}

```
{chr(10).join(commands)}
```

## Results
{CROPS} validation crops, from bicubic to output; of photographs that were not trained on, where there are enough.

{chr(10).join(rows)}

## Limits
Distortions other than those of the training data were not trained on.
"""
    write_card(folder / "README.md", text)


def write_prior_card(card: Path, prior: SemanticPrior, scores: SegmentationScores) -> None:
    """Write the model card of a prior that was trained."""
    recipe = prior.recipe
    labelled, predicted = scores.confusion.sum(axis=1), scores.confusion.sum(axis=0)
    rows = ["| category | IoU | share of the pixels | predicted |", "|---|---|---|---|"]
    for name, iou, own, got in zip(CATEGORIES, scores.ious, labelled, predicted, strict=True):
        shares = " | ".join(f"{100 * count / max(1, labelled.sum()):.1f} %" for count in (own, got))
        rows.append(f"| {name} | {'-' if np.isnan(iou) else f'{iou:.3f}'} | {shares} |")
    validation = (
        f"{recipe['held_out']} photographs that were not trained on (of each folder every {HELD_OUT_EVERY}th by name)"
        if recipe["held_out"]
        else "The training photographs themselves"
    )
    text = f"""# Semantic prior

## Use
Maps a low-resolution RGB image in [0, 1] to the probability of each of eight categories ({", ".join(CATEGORIES)}) at
every pixel of the image four times as large. Load with `sr_models.load_prior`.
{sum(parameter.numel() for parameter in prior.parameters()) / 1e6:.2f} M parameters,
{prior.macs_per_pixel / 1e3:.0f} k multiply-accumulates per low-resolution pixel.

## Data
{recipe["images"]} labelled photographs, patches of {recipe["patch_size"]} pixels downscaled to a quarter (bicubic),
{100 * recipe["slight_share"]:.0f} % of them with slight noise and JPEG. The licence of the weights follows theirs.

## Recipe
SqueezeNet 1.1's trunk and a small decoder, started from {recipe["started_from"]}. Cross-entropy, weights averaged;
{recipe["steps"]} steps of {recipe["batch_size"]} patches, {recipe["seconds"] / 60:.1f} minutes, {recipe["precision"]}.

```
{recipe.get("command", "(trained by the library)")}  # {recipe["version"]}
```

## Results
{validation}, whole, downscaled to a quarter: pixel accuracy {scores.accuracy:.3f}, mean IoU {scores.mean_iou:.3f}.

{chr(10).join(rows)}

## Limits
Indoor scenes and close-ups are mostly background.
"""
    write_card(card, text)
