from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F

from tools_zoo.training.muon import Muon, orthogonalised


def test_singular_values_come_to_about_one() -> None:
    matrices = (
        torch.randn(3, 8, 20, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1e-6, 1.0, 1e6])[:, None, None]
    )
    for stack in (matrices, matrices.mT):
        values = torch.linalg.svdvals(orthogonalised(stack))
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_singular_vectors_stay() -> None:
    u, _, vt = torch.linalg.svd(torch.randn(6, 9, generator=torch.Generator().manual_seed(1)), full_matrices=False)
    result = orthogonalised((u * torch.tensor([3.0, 2.0, 1.5, 1.0, 0.8, 0.5])) @ vt)
    middle = u.T @ result @ vt.T
    assert torch.allclose(middle, torch.diag(middle.diagonal()), atol=1e-4)
    assert (middle.diagonal() > 0).all()


def test_a_gradient_of_zeros_moves_nothing() -> None:
    layer = nn.Conv2d(2, 3, 3)
    before = copy.deepcopy(layer.state_dict())
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    Muon(layer.parameters(), lr=1.0).step()
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_parameters_without_a_gradient_stay() -> None:
    used, unused = nn.Linear(4, 4), nn.Linear(4, 4)
    before = copy.deepcopy(unused.state_dict())
    optimizer = Muon([*used.parameters(), *unused.parameters()], lr=0.1)
    used(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in unused.state_dict().items())
    assert not torch.equal(used.weight, torch.zeros_like(used.weight))


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
