from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

from tools_zoo.training.muon import Muon, orthogonalised


def test_singular_values_come_to_about_one_and_singular_vectors_stay() -> None:
    u, _, vt = torch.linalg.svd(torch.randn(6, 9, generator=torch.Generator().manual_seed(1)), full_matrices=False)
    for scale in (1e-6, 1.0, 1e6):
        matrix = scale * (u * torch.tensor([3.0, 2.0, 1.5, 1.0, 0.8, 0.5])) @ vt
        for result in (orthogonalised(matrix), orthogonalised(matrix.mT[None])[0].mT):
            middle = u.T @ result @ vt.T
            assert torch.allclose(middle, torch.diag(middle.diagonal()), atol=1e-4)
            assert ((middle.diagonal() > 0.6) & (middle.diagonal() < 1.3)).all()


def test_without_a_gradient_and_with_one_of_zeros_nothing_moves() -> None:
    zeros, none = nn.Conv2d(2, 3, 3), nn.Linear(4, 4)
    before = copy.deepcopy([*zeros.parameters(), *none.parameters()])
    for parameter in zeros.parameters():
        parameter.grad = torch.zeros_like(parameter)
    Muon([*zeros.parameters(), *none.parameters()], lr=1.0).step()
    assert all(map(torch.equal, before, [*zeros.parameters(), *none.parameters()]))


def test_steps_do_not_depend_on_the_size_of_the_gradient() -> None:
    def moved(factor: float) -> torch.Tensor:
        torch.manual_seed(0)
        layer = nn.Conv2d(3, 5, 3)
        before = layer.weight.detach().clone()
        optimizer = Muon(layer.parameters(), lr=0.01)
        (factor * layer(torch.ones(1, 3, 4, 4)).square().sum()).backward()
        optimizer.step()
        return layer.weight.detach() - before

    assert torch.allclose(moved(1.0), moved(1000.0), atol=1e-5)
    assert moved(1.0).abs().max() > 0


def test_it_learns_and_goes_on_from_its_state() -> None:
    inputs = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    targets = F.avg_pool2d(inputs, 3, 1, 1)

    def train(steps: int, layer: nn.Conv2d, optimizer: Muon) -> float:
        for _ in range(steps):
            loss = F.mse_loss(layer(inputs), targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return float(loss.detach())

    torch.manual_seed(0)
    layer = nn.Conv2d(3, 3, 3, padding=1)
    first = float(F.mse_loss(layer(inputs), targets).detach())
    twin = copy.deepcopy(layer)
    optimizer = Muon(layer.parameters(), lr=0.02)
    train(10, layer, optimizer)
    resumed = copy.deepcopy(layer)
    again = Muon(resumed.parameters(), lr=0.02)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    last = train(10, resumed, again)
    assert last < 0.5 * first
    assert last == train(20, twin, Muon(twin.parameters(), lr=0.02))
