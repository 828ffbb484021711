"""Gates that start shut: with a way around them, as is usual, and without."""

from __future__ import annotations

import math

import torch
from models.initialised import he
from torch import Tensor, nn
from torch.nn import functional

from .case import Bug, Idiom


class Glu(nn.Module):
    """Dauphin et al. 2017; the way around it where ``residual``."""

    def __init__(self, inputs: int, outputs: int, bias: float, residual: bool = False) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)
        nn.init.constant_(self.gate.bias, bias)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        gated = self.value(x) * torch.sigmoid(self.gate(x))
        return x + gated if self.residual else gated


def glu_stack(broken: bool) -> nn.Module:
    """Highway networks' advice for deep nets, biases down to -10, where no carry gate makes up for it."""
    bias = -10.0 if broken else 0.0
    return nn.Sequential(Glu(64, 48, bias), Glu(48, 48, bias), nn.Linear(48, 10))


class WaveNet(nn.Module):
    """van den Oord et al. 2016: the outputs are sums of what the gates let through, without the input itself."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.embed = nn.Conv1d(8, 24, 1)
        self.gated = nn.ModuleList(nn.Conv1d(24, 48, 2, dilation=2**level) for level in range(3))
        self.back, self.skip = (nn.ModuleList(nn.Conv1d(24, 24, 1) for _ in range(3)) for _ in range(2))
        self.head = nn.Linear(24 * 8, 10)
        with torch.no_grad():
            for layer in self.gated:
                layer.bias[24:] = bias

    def forward(self, x: Tensor) -> Tensor:
        x, sums = self.embed(x.transpose(1, 2)), torch.zeros(())
        for gated, back, skip in zip(self.gated, self.back, self.skip, strict=True):
            value, gate = gated(functional.pad(x, (gated.dilation[0], 0))).chunk(2, 1)
            value = torch.tanh(value) * torch.sigmoid(gate)
            x, sums = x + back(value), sums + skip(value)
        return self.head(torch.relu(sums).flatten(1))


def wavenet(broken: bool) -> nn.Module:
    return WaveNet(-20.0 if broken else 0.0)


class Gated(nn.Module):
    """An LSTM whose biases of one gate were filled."""

    def __init__(self, gate: int, bias: float) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(8, 48, batch_first=True), nn.Linear(48, 10)
        with torch.no_grad():
            self.cell.bias_ih_l0[gate * 48 : (gate + 1) * 48] = bias

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


def input_gate(broken: bool) -> nn.Module:
    """A bias meant for the forget gate, with the wrong sign and in the wrong quarter."""
    return Gated(0, -20.0) if broken else Gated(1, 1.0)


class Steps(nn.Module):
    """Gu & Dao 2023 (Mamba), one state per channel: softplus(dt) lets the input in, and the state out."""

    def __init__(self, bias: Tensor, skips: bool) -> None:
        super().__init__()
        self.enter, self.dt, self.head = nn.Linear(8, 48), nn.Linear(48, 48), nn.Linear(48, 10)
        self.decay = nn.Parameter(torch.zeros(48))
        self.skip = nn.Parameter(torch.ones(48)) if skips else None
        nn.init.normal_(self.dt.weight, std=0.02)
        with torch.no_grad():
            self.dt.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.enter(x))
        dt, state = functional.softplus(self.dt(x)), torch.zeros(x.shape[0], 48)
        for time in range(x.shape[1]):
            state = torch.exp(-dt[:, time] * self.decay.exp()) * state + dt[:, time] * x[:, time]
        return self.head(state if self.skip is None else state + self.skip * x[:, -1])


def step_bias(broken: bool) -> nn.Module:
    """softplus' inverse taken twice, so that steps of 1e-3 became steps of e^-1000, clamped to e^-40."""
    return Steps(torch.full((48,), -40.0 if broken else math.log(math.expm1(0.1))), False)


def mamba_steps() -> nn.Module:
    """As published: steps log-uniform from 1e-3 to 1e-1, and D around the state."""
    steps = torch.exp(torch.rand(48) * math.log(100) + math.log(1e-3))
    return Steps(steps + torch.log(-torch.expm1(-steps)), True)


class Highway(nn.Module):
    def __init__(self, width: int, bias: float) -> None:
        super().__init__()
        self.transform, self.gate = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.constant_(self.gate.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        return gate * torch.relu(self.transform(x)) + (1 - gate) * x


def highway(bias: float) -> nn.Module:
    return nn.Sequential(nn.Linear(64, 48), *(Highway(48, bias) for _ in range(4)), nn.Linear(48, 10))


def sealed_highway(broken: bool) -> nn.Module:
    """The net trains, by its carry gates, and never uses a layer of it: the gates' biases do not move by a bit."""
    return highway(-30.0 if broken else -2.0)


def gated_feed_forward() -> nn.Module:
    """Gates at -5 that have a skip connection around them."""
    return nn.Sequential(nn.Linear(64, 48), *(Glu(48, 48, -5.0, True) for _ in range(3)), nn.Linear(48, 10)).apply(
        he_values
    )


def he_values(module: nn.Module) -> None:
    if isinstance(module, Glu):
        he(module.value)


def normed_glu() -> nn.Module:
    """A layer norm behind every gate makes up for its 0.02."""
    layers = (Glu(64, 48, -4.0), nn.LayerNorm(48), Glu(48, 48, -4.0), nn.LayerNorm(48))
    return nn.Sequential(*layers, nn.Linear(48, 10))


class Factored(nn.Module):
    """A factor of 1e-12 that is learned as it stands: its own gradient is as large as any, and it grows at once."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.factor, self.head = nn.Linear(64, 48), nn.Parameter(torch.tensor(1e-12)), nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.factor * torch.relu(self.inner(x)))


BUGS = (
    Bug("GLU gates at -10", "flat", glu_stack, ("?.gate.bias",), "arXiv:1505.00387, section 4.1"),
    Bug("WaveNet gates at -20", "rows", wavenet, ("gated.*.bias",), "calibration"),
    Bug("LSTM's input gate at -20", "rows", input_gate, ("cell.bias_ih_l0*",), "calibration"),
    Bug("step sizes of e^-40", "rows", step_bias, ("dt.bias",), "calibration"),
    Bug("highway gates at -30", "flat", sealed_highway, ("*.gate.bias",), "calibration"),
)

IDIOMS = (
    Idiom("highway, gates at -4", lambda: highway(-4.0), "flat"),
    Idiom("gated residuals, gates at -5", gated_feed_forward, "flat"),
    Idiom("gates before layer norms", normed_glu, "flat"),
    Idiom("step sizes of Mamba", mamba_steps, "rows"),
    Idiom("a learned factor of 1e-12", Factored, "flat"),
)
