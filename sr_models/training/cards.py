"""The model card of a super-resolver."""

from __future__ import annotations

from pathlib import Path

from sr_models.super_resolver import STAGES, read_generator
from sr_models.training.validation import CROPS
from tools_zoo.training.cards import write_card

_LOSSES = ("discriminator", "width", "semantic", "pixel", "perceptual", "adversarial", "category", "adversarial_loss")
_FROZEN = ("prior", "features", "semantics")


def write_sr_card(folder: Path) -> None:
    """Write ``folder/README.md``: what the generators are, how each stage was trained, and room for measurements."""
    stages = [folder / f"{stage}.safetensors" for stage in STAGES]
    weights = [read_generator(path) for path in stages if path.exists()]
    rows = [
        "| stage | network | steps | minutes | precision | device | PSNR, dB | perceptual distance |",
        "|---" * 8 + "|",
    ]
    for each in weights:
        recipe = each.recipe
        cells = [
            each.stage,
            each.network,
            recipe.get("steps"),
            f"{float(recipe.get('seconds', 0)) / 60:.1f}",
            recipe.get("precision"),
            recipe.get("device"),
            f"{recipe.get('psnr_bicubic')} -> {recipe.get('psnr_output')}",
            f"{recipe.get('distance_bicubic')} -> {recipe.get('distance_output')}",
        ]
        rows.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    commands = [f"{each.recipe.get('command')}  # {each.recipe.get('version')}" for each in weights]
    gan = next((each.recipe for each in weights if each.stage == "gan"), {})
    losses = [f"- GAN stage: {name} {gan[name]}" for name in _LOSSES if name in gan]
    seen = [f"- seen through: {name} {weights[-1].recipe[name]}" for name in _FROZEN if name in weights[-1].recipe]
    text = f"""# A x4 super-resolver: {weights[0].network if weights else "none yet"}

For RGB scaled to [0, 1]; load with `sr_models.load_super_resolver`. The PSNR stage minimises the mean absolute error,
the GAN stage goes on from its weights with the losses below. Adam with warm-up and cosine decay, weights averaged.
Measured from bicubic to output: {CROPS} validation crops, from photographs kept from training where there
are enough.

{chr(10).join(rows)}

{chr(10).join([*losses, *seen])}

```
{chr(10).join(commands)}
```
"""
    write_card(folder / "README.md", text)
