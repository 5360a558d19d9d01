"""The optimizer Muon: each weight matrix moves by its orthogonalized momentum.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), with the step of Liu et al.,
"Muon is scalable for LLM training" (2025): a rate that suits Adam suits it, too. Convolutions count as matrices of
output channels by everything else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration that draws all singular values towards 1 (Jordan et al.)."""
_ITERATIONS = 5
_UPDATE_RMS = 0.2
"""The root mean square of a step at rate 1, about that of Adam's (Liu et al., section 2.2)."""
_ADAM_BETAS, _EPSILON = (0.9, 0.999), 1e-8


def orthogonalised(matrices: Tensor) -> Tensor:
    """Bring the singular values of ``(..., M, N)`` matrices to about 1 (0.7 to 1.2), by Newton-Schulz iteration.

    A matrix of zeros stays one.
    """
    a, b, c = _QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    wide = matrices.mT if tall else matrices
    wide = wide / (torch.linalg.matrix_norm(wide, keepdim=True) + _EPSILON)
    for _ in range(_ITERATIONS):
        gram = wide @ wide.mT
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    result: Tensor = wide.mT if tall else wide
    return result


class Muon(torch.optim.Optimizer):
    """Muon for weights of two dimensions or more, Adam for the rest (biases).

    Args:
        params: as any optimiser of torch takes them.
        lr: the rate; as for Adam.
        momentum: of the matrices' gradients (Nesterov).
    """

    def __init__(
        self, params: Iterable[nn.Parameter] | Iterable[dict[str, Any]], lr: float = 2e-3, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient; matrices of one shape are made orthogonal together."""
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            alike: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if parameter.ndim < 2:
                    parameter.sub_(_adam_move(parameter.grad, state), alpha=rate)
                    continue
                mean = state.setdefault("mean", torch.zeros_like(parameter)).lerp_(parameter.grad, 1 - momentum)
                matrix = parameter.grad.lerp(mean, momentum).flatten(1)
                alike.setdefault((matrix.shape[0], matrix.shape[1]), []).append((parameter, matrix))
            for shape, members in alike.items():
                moves = orthogonalised(torch.stack([matrix for _, matrix in members]))
                for (parameter, _), move in zip(members, moves, strict=True):
                    parameter.sub_(move.view_as(parameter), alpha=rate * _UPDATE_RMS * max(shape) ** 0.5)


def _adam_move(gradient: Tensor, state: dict[str, Any]) -> Tensor:
    state["step"] = step = state.get("step", 0) + 1
    mean = state.setdefault("mean", torch.zeros_like(gradient)).lerp_(gradient, 1 - _ADAM_BETAS[0])
    square = state.setdefault("square", torch.zeros_like(gradient)).lerp_(gradient.square(), 1 - _ADAM_BETAS[1])
    move: Tensor = mean / (1 - _ADAM_BETAS[0] ** step) / ((square / (1 - _ADAM_BETAS[1] ** step)).sqrt() + _EPSILON)
    return move
