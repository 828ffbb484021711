"""Parameters that learn outside of ``model.parameters()``, and tensors that only look like it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .initialised import Built, seeded


class Scaled(nn.Module):
    """``nn.Parameter(...) * 0.2`` is what a parameter was, not a parameter."""

    def __init__(self, registered: bool) -> None:
        super().__init__()
        drawn = torch.randn(8, 16)
        self.weight = nn.Parameter(drawn * 0.2) if registered else nn.Parameter(drawn) * 0.2
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x @ self.weight).relu())


@seeded
def scaled(registered: bool = False) -> Built:
    return Scaled(registered), (torch.randn(16, 8),)


class BuiltInForward(nn.Module):
    """A head of another size than the constructor knew, made at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x).relu()
        return nn.Linear(hidden.shape[-1], 4, bias=False)(hidden)


@seeded
def built_in_forward() -> Built:
    return BuiltInForward(), (torch.randn(16, 8),)


class Force(nn.Module):
    """The gradient of an energy by the positions, of which the forward makes a leaf."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        positions = x.detach().requires_grad_()
        with torch.enable_grad():
            energy = self.energy(positions).sum()
            return torch.autograd.grad(energy, positions, create_graph=True)[0]


@seeded
def force() -> Built:
    return Force(), (torch.randn(16, 8),)


@seeded
def learnt_input() -> Built:
    """What is optimised is the input, as in the inversion of a generator."""
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4)), (nn.Parameter(torch.randn(16, 8)),)
