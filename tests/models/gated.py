"""Networks with gates and waves of their own."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .initialised import Built, seeded
from .plain import mlp


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(30.0 * x)


@seeded
def siren(width: int = 64, depth: int = 4) -> Built:
    """Sitzmann et al. 2020: omega 30, first layer uniform in 1 / fan_in, others in sqrt(6 / fan_in) / 30."""
    module = mlp(Sine, depth, width, 2, 3)
    for index, layer in enumerate(linear for linear in module if isinstance(linear, nn.Linear)):
        bound = 1 / layer.in_features if index == 0 else math.sqrt(6.0 / layer.in_features) / 30.0
        nn.init.uniform_(layer.weight, -bound, bound)
    return module, (torch.rand(64, 2) * 2 - 1,)


class Highway(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.transform = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)
        nn.init.constant_(self.gate.bias, -2.0)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x).sigmoid()
        return gate * functional.relu(self.transform(x)) + (1 - gate) * x


@seeded
def highway(width: int = 48, depth: int = 4, classes: int = 10) -> Built:
    """Srivastava et al. 2015: negative gate biases, so that a layer starts by carrying its input."""
    layers = [Highway(width) for _ in range(depth)]
    return nn.Sequential(*layers, nn.Linear(width, classes)), (torch.randn(32, width),)


class Glu(nn.Module):
    """value(x) * sigmoid(gate(x)); ``norm`` behind it, or a skip connection around it."""

    def __init__(self, inputs: int, outputs: int, norm: bool, residual: bool) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)
        self.norm, self.residual = nn.LayerNorm(outputs) if norm else nn.Identity(), residual

    def forward(self, x: Tensor) -> Tensor:
        gated = self.norm(self.value(x) * self.gate(x).sigmoid())
        return x + gated if self.residual else gated


@seeded
def glu(bias: float = 0.0, depth: int = 2, norm: bool = False, residual: bool = False, width: int = 32) -> Built:
    """Dauphin et al. 2017; ``bias`` is that of every gate."""
    layers = [Glu(width, width, norm, residual) for _ in range(depth)]
    for layer in layers:
        nn.init.constant_(layer.gate.bias, bias)
    return nn.Sequential(*layers, nn.Linear(width, 10)), (torch.randn(64, width),)


@seeded
def packed_glu(bias: float = 0.0, width: int = 32) -> Built:
    """One projection for both halves, as ``nn.GLU`` wants it."""
    first, second = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
    for layer in (first, second):
        nn.init.constant_(layer.bias[width:].data, bias)
    return nn.Sequential(first, nn.GLU(), second, nn.GLU(), nn.Linear(width, 10)), (torch.randn(64, width),)


class GatedCell(nn.Module):
    """A recurrence whose gate number ``gate`` has a bias of ``bias``; logits of the last state."""

    def __init__(self, cell: str, gate: int, bias: float) -> None:
        super().__init__()
        self.cell, self.head = getattr(nn, cell)(8, 24, batch_first=True), nn.Linear(24, 5)
        with torch.no_grad():
            self.cell.bias_ih_l0[24 * gate : 24 * (gate + 1)] = bias

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


@seeded
def gated_cell(cell: str = "LSTM", gate: int = 0, bias: float = 0.0) -> Built:
    return GatedCell(cell, gate, bias), (torch.randn(32, 10, 8),)


class Factored(nn.Module):
    """All of the signal times a learned number, or times its sigmoid."""

    def __init__(self, value: float, squashed: bool) -> None:
        super().__init__()
        self.inner, self.factor, self.head = nn.Linear(16, 32), nn.Parameter(torch.tensor([value])), nn.Linear(32, 5)
        self.squashed = squashed

    def forward(self, x: Tensor) -> Tensor:
        factor = self.factor.sigmoid() if self.squashed else self.factor
        return self.head(functional.relu(self.inner(x)) * factor)


@seeded
def factored(value: float = 1.0, squashed: bool = False) -> Built:
    return Factored(value, squashed), (torch.randn(32, 16),)


class StateSpace(nn.Module):
    """Gu & Dao 2023, one state per channel: softplus(dt) is what it takes in; ``skip`` leads around the state."""

    def __init__(self, bias: float, skip: bool) -> None:
        super().__init__()
        self.enter, self.dt, self.head, self.skip = nn.Linear(8, 24), nn.Linear(24, 24), nn.Linear(24, 5), skip
        nn.init.normal_(self.dt.weight, std=0.02)
        nn.init.constant_(self.dt.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        dt, state = functional.softplus(self.dt(x)), torch.zeros(x.shape[0], 24)
        for time in range(x.shape[1]):
            state = torch.exp(-dt[:, time]) * state + dt[:, time] * x[:, time]
        return self.head(state + x[:, -1] if self.skip else state)


@seeded
def state_space(bias: float = -2.0, skip: bool = False) -> Built:
    return StateSpace(bias, skip), (torch.randn(32, 6, 8),)


class GatedValues(nn.Module):
    """An attention whose values are gated; the queries and keys alone tell nothing."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.query, self.key, self.value, self.gate = (nn.Linear(16, 16) for _ in range(4))
        self.head = nn.Linear(16, 5)
        nn.init.constant_(self.gate.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        weights = (self.query(x) @ self.key(x).transpose(1, 2) / 4).softmax(-1)
        return self.head(weights @ (self.value(x) * self.gate(x).sigmoid()))


@seeded
def gated_values(bias: float = 0.0) -> Built:
    return GatedValues(bias), (torch.randn(16, 8, 16),)


class Detector(nn.Module):
    """Scores are the product of two probabilities, or of a value and a gate."""

    def __init__(self, bias: float, probabilities: bool) -> None:
        super().__init__()
        self.stem, self.first, self.second = nn.Linear(16, 32), nn.Linear(32, 8), nn.Linear(32, 1)
        self.probabilities = probabilities
        for layer in (self.first, self.second) if probabilities else (self.second,):
            nn.init.constant_(layer.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        first = self.first(x).sigmoid() if self.probabilities else self.first(x)
        return first * self.second(x).sigmoid()


@seeded
def detector(bias: float = -4.6, probabilities: bool = True) -> Built:
    return Detector(bias, probabilities), (torch.randn(32, 16),)
