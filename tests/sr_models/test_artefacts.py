"""The artefact loss."""

from __future__ import annotations

import torch

from sr_models.losses.artefact import artefact_loss, artefact_weights


def test_errors_that_were_there_before_weigh_nothing() -> None:
    targets = torch.rand(2, 3, 24, 24)
    outputs = targets + 0.1 * torch.randn_like(targets)
    assert not artefact_weights(outputs, targets, outputs).any()
    assert artefact_weights(outputs, targets, targets).mean() > 0


def test_an_error_that_varies_weighs_more_than_a_shift() -> None:
    torch.manual_seed(0)
    targets = torch.full((1, 3, 32, 32), 0.5)
    shifted = targets + 0.1
    woven = targets + 0.2 * (torch.rand(1, 1, 32, 32) > 0.5)
    before = targets.clone()
    assert torch.isclose((shifted - targets).abs().mean(), (woven - targets).abs().mean(), atol=0.01)
    assert artefact_loss(woven, targets, before) > 100 * artefact_loss(shifted, targets, before)


def test_its_gradient_reaches_the_outputs_alone_and_lowers_the_artefacts() -> None:
    torch.manual_seed(0)
    targets = torch.full((1, 3, 32, 32), 0.5)
    outputs = (targets + 0.2 * (torch.rand(1, 1, 32, 32) > 0.5)).requires_grad_()
    loss = artefact_loss(outputs, targets, targets)
    loss.backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    with torch.no_grad():
        better = outputs - 0.05 * outputs.grad / outputs.grad.abs().max()
    assert artefact_loss(better, targets, targets) < loss
