"""Short trainings of all kinds that several processes can share; ``torchrun THIS FOLDER NAME ...`` runs them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torch.distributed as dist

import sr_models.super_resolver
import sr_models.training.super_resolution as super_resolution
from agents.policies.heuristics import FixedChain
from benchmarks.baselines.training import BaselineTraining, train_baseline
from restore_env.errors import ImageRestoreError
from restore_env.images.sources import ImageSource, open_images
from sr_models.extractors.squeezenet import SqueezeNet
from sr_models.losses.adversarial import ADVERSARIAL_LOSSES
from sr_models.prior.labels import LabelledImages
from sr_models.prior.semantic_prior import SemanticPrior
from sr_models.training.prior import train_prior
from sr_models.training.settings import PriorTraining, SrTraining
from tests.support import three_tools
from tests.support.networks import TINY_GENERATORS
from tests.support.scenes import write_scenes
from tests.support.toolkit import photographs
from tools_zoo.training import trainer
from tools_zoo.training.distributed import average_gradients, by_first, count, joined
from tools_zoo.training.joint import train_jointly
from tools_zoo.training.settings import TrainingSettings
from tools_zoo.training.tools import ToolTraining, train_tools

RATE: Mapping[str, Any] = MappingProxyType({"learning_rate": 2e-3, "warmup_steps": 1})


def shrink(put: Callable[[Any, str, object], object]) -> None:
    """Make networks and validations small, given what replaces an attribute."""
    for place in (super_resolution, sr_models.super_resolver):
        put(place, "GENERATORS", TINY_GENERATORS)
    put(sys.modules["sr_models.training.crops"], "CROPS", 2)
    put(super_resolution, "VALIDATION_SIZE", 32)
    put(sys.modules["sr_models.training.gan"], "CATEGORY_THRESHOLD", 0.0)  # every crop has a category
    for name in ("benchmarks.baselines.training", "tools_zoo.training.tools", "tools_zoo.training.joint"):
        put(sys.modules[name], "VALIDATION_PATCHES", 4)


def source(size: int) -> ImageSource:
    opened = open_images(photographs(2, 120, 140), min_size=size)
    assert isinstance(opened, ImageSource)
    return opened


def tools(out: Path) -> None:
    """Two tools, the second of which starts from the first one's file."""
    names = ("denoise_1", "denoise_2")
    train_tools(ToolTraining(out=out, steps=6, tools=names, batch_size=4, patch_size=16, **RATE), source(16))


def joint(out: Path) -> None:
    """Chains of which each process has others, so that a tool may be used by one alone; two rounds."""
    settings = by_first(lambda: three_tools.settings(out.parent, out.name, steps=6, batch_size=4, exploration=0.6))
    train_jointly(replace(settings, rounds=2), source(20), FixedChain((1,), three_tools.STOP))


def gan(out: Path, model: Any, **changes: Any) -> None:
    """A PSNR stage and a GAN stage that starts from it. No drawings: on flat ground rounding decides gradients."""
    torch.manual_seed(0)
    prior, trunk = SemanticPrior(), SqueezeNet()
    chosen = SrTraining(
        out=out,
        model=model,
        steps=2,
        crop_size=32,
        batch_size=4,
        discriminator_width=4,
        drawing_share=0.0,
        **RATE,
        **changes,
    )
    frozen = super_resolution.FrozenNetworks(prior, trunk, trunk, trunk)
    super_resolution.train_sr(chosen, source(32), frozen)


def prior(out: Path) -> None:
    """Patches with different numbers of pixels of known category."""
    folder = by_first(lambda: write_scenes(out.parent / f"{out.name}-scenes", 4))
    chosen = PriorTraining(out=out, labels=(folder,), steps=2, patch_size=64, batch_size=4, **RATE)
    train_prior(chosen, LabelledImages(folder))


def baseline(out: Path) -> None:
    """A network with batch norm."""
    chosen = BaselineTraining(
        out=out, baseline="dncnn_s", steps=2, optimizer="adam", batch_size=4, patch_size=16, **RATE
    )
    train_baseline(chosen, source(16))


TRAININGS: Mapping[str, Callable[[Path], None]] = MappingProxyType(
    {
        "tools": tools,
        "joint": joint,
        "vgg-gan": partial(gan, model="sft"),
        "patch-gan": partial(gan, model="sed", adversarial_loss="relativistic"),
        "prior": prior,
        "baseline": baseline,
    }
)
"""The trainings by name; each writes into a folder."""


def disagree(out: Path) -> None:
    """A run by the clock, which goes wrong in one process, and an error of the first one; each writes what it saw."""
    rank = dist.get_rank()
    clock = time.monotonic
    time.monotonic = lambda: clock() * (1 + 9 * rank)
    chosen = ToolTraining(out=out, minutes=0.01, tools=("denoise_2",), batch_size=4, patch_size=16, **RATE)
    steps = train_tools(chosen, source(16))["denoise_2"].steps
    time.monotonic = clock

    def fail() -> None:
        assert count() == 1
        raise ImageRestoreError("the disk is full")

    try:
        by_first(fail)
    except ImageRestoreError as error:
        (out / f"{rank}.txt").write_text(f"{steps} steps, {type(error).__name__}: {error}")
    torch.save(relative_gradient(slice(2 * rank, 2 * rank + 2)), out / f"gradient-{rank}")


def relative_gradient(rows: slice) -> torch.Tensor:
    """The gradient of the relativistic loss of some rows, where the loss is far from linear."""
    torch.manual_seed(0)
    network, images = torch.nn.Conv2d(1, 1, 1), 5 * torch.randn(4, 1, 3, 3)
    images[2:] += 4  # what the mean of all says differs from what each half says
    loss = ADVERSARIAL_LOSSES["relativistic"].generator(network(images[rows]), network(images[rows].square()))
    loss.backward()  # type: ignore[no-untyped-call]
    average_gradients(network, loss.detach())
    assert network.weight.grad is not None
    return network.weight.grad.flatten()


def kill_processes() -> None:
    """Make the second process die at its third step, after a restart the first at its fifth; print the steps."""
    descend = trainer._Run._descend
    rank, restarts = (int(os.environ[name]) for name in ("RANK", "TORCHELASTIC_RESTART_COUNT"))

    def step(self: Any, *arguments: Any) -> Any:
        if (rank, restarts, self.step) in ((1, 0, 2), (0, 1, 4)):
            os.kill(os.getpid(), signal.SIGKILL)
        run = f"{self.checkpoint.parents[1].name}/{self.checkpoint.stem}"
        print(f"{run} start {restarts} step {self.step}", flush=True)
        return descend(self, *arguments)

    trainer._Run._descend = step  # type: ignore[assignment, method-assign]
    trainer.CHECKPOINT_SECONDS = -1.0


if __name__ == "__main__":
    torch.set_num_threads(1)
    shrink(setattr)
    folder = Path(sys.argv[1])
    with joined(TrainingSettings(out=folder)):
        for name in sys.argv[2:]:
            if name == "killed":
                kill_processes()
                tools(folder / name)
            elif name == "disagree":
                disagree(folder / name)
            else:
                TRAININGS[name](folder / name)
