"""Growing a network from a smaller one: what the small one learnt is where the large one begins.

Plain networks become wider and deeper without a change of what comes out, after Chen, Goodfellow, Shlens, "Net2Net"
(ICLR 2016): new layers hand on what they get, and new channels, their weights drawn at random, are not listened to yet.
With batch normalisation every channel's scale and shift begin at what undoes the normalisation of one batch. Without it
a network has no shifts, and one that grows from a normalised one must learn to do without. A cascade begins as a chain
of tools; further stages have the last one's features.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from benchmarks.baselines.same_size import Cascade, PlainResidual
from benchmarks.baselines.weights import fold_normalisation
from tools_zoo.networks import ToolNetwork, last_layer, zeroed


def grow(large: PlainResidual, small: PlainResidual, images: Tensor) -> None:
    """Give ``large`` weights with which it does what ``small`` does, as far as it is measured on ``images``.

    If only ``small`` is normalised, ``large`` does what ``small`` would do without shifts.

    Args:
        large: at least as deep and as wide; its weights are overwritten.
        small: it stays as it is.
        images: a batch as the network is to be trained on, float32 RGB ``(N, 3, H, W)`` in [0, 1]; only batch
            normalisation needs it.

    Raises:
        ValueError: ``small`` is deeper or wider than ``large``.
    """
    folded = copy.deepcopy(small).eval()
    fold_normalisation(folded)
    given, taking = list(_convolutions(folded)), list(_convolutions(large))
    width, deeper = given[0].out_channels, len(taking) - len(given)
    if deeper < 0 or taking[0].out_channels < width:
        raise ValueError(
            f"{len(given)} layers of {width} channels do not fit into {len(taking)} of {taking[0].out_channels}"
        )
    with torch.no_grad():
        for source, target in zip(given[:-1], taking, strict=False):
            _widen(target, source.weight)
        passing = torch.zeros_like(given[1].weight)
        passing[range(width), range(width), 1, 1] = 1
        for target in taking[len(given) - 1 : -1]:
            _widen(target, passing)
        large.tail.weight.zero_()
        large.tail.weight[:, :width] = small.tail.weight
        _undo_normalisation(large, [layer.bias for layer in given[1:-1]], images)


def line_up(cascade: Cascade, tools: Sequence[Mapping[str, Tensor]]) -> None:
    """Give the stages the weights of tools of their shape, in this order.

    Stages for which there is none get the last tool's, and hand on what they get.

    Raises:
        ValueError: there are more tools than stages, or none.
    """
    if not 1 <= len(tools) <= len(cascade.stages):
        raise ValueError(
            f"a cascade of {len(cascade.stages)} stages takes 1 to {len(cascade.stages)} tools, got {len(tools)}"
        )
    for number, stage in enumerate(cascade.stages):
        stage.load_state_dict(dict(tools[min(number, len(tools) - 1)]))
        if number >= len(tools):
            zeroed(last_layer(cast(ToolNetwork, stage)))


def _convolutions(network: nn.Module) -> Iterator[nn.Conv2d]:
    return (module for module in network.modules() if isinstance(module, nn.Conv2d))


def _widen(target: nn.Conv2d, weight: Tensor) -> None:
    """The first channels as given, deaf to the others."""
    leaving, entering = weight.shape[:2]
    target.weight[:leaving, entering:] = 0
    target.weight[:leaving, :entering] = weight


def _undo_normalisation(network: PlainResidual, shifts: Sequence[Tensor | None], images: Tensor) -> None:
    """Let the normalisation do nothing but shift the first channels; layers beyond the shifts' number have none."""
    features, layers = images, iter(shifts)
    for module in network.body:
        if isinstance(module, nn.BatchNorm2d):
            variance, mean = torch.var_mean(features, (0, 2, 3), unbiased=False)
            shift = torch.zeros_like(mean)
            given = next(layers, None)
            if given is not None:
                shift[: len(given)] = given
            module.running_mean, module.running_var = mean, variance
            module.weight.copy_((variance + module.eps).sqrt())
            module.bias.copy_(mean + shift)
            features = features + shift.view(-1, 1, 1)
        else:
            features = module(features)
