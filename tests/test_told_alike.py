"""Small networks of unusual kinds, broken in one place: the module and its honest exports tell the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import initlint
from initlint.report import Report
from initlint.testing import OF_MODULES, Exporter, honest_export

pytestmark = pytest.mark.usefixtures("opened_here")

Break = Callable[[Any], object]


def told(report: Report) -> set[tuple[str, str, str]]:
    """(rule, address, severity) of what is nobody's consequence, and (layer, tensor, activation) of the layers."""
    findings = {
        (each.rule, each.address, str(each.severity)) for each in report.headlines if each.rule not in OF_MODULES
    }
    return findings | {(row.layer.name, row.layer.weight.address, row.layer.activation) for row in report.layers}


def both(module: nn.Module, inputs: Tensor, exporter: Exporter) -> tuple[Report, Report]:
    proto = honest_export(module, (inputs,), exporter)
    return initlint.check(module, (inputs,)), initlint.check(proto, inputs.numpy())


class Cell(nn.Module):
    """A GRU by hand: its first step reads a state of zeros, and the older exporter numbers its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.u, self.out = nn.Linear(8, 48), nn.Linear(16, 48, bias=False), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(x.shape[0], 16)
        for step in range(3):
            x_r, x_z, x_n = self.x(x[:, step]).chunk(3, 1)
            u_r, u_z, u_n = self.u(state).chunk(3, 1)
            keep = torch.sigmoid(x_z + u_z)
            state = keep * state + (1 - keep) * torch.tanh(x_n + torch.sigmoid(x_r + u_r) * u_n)
        logits: Tensor = self.out(state)
        return logits


class Experts(nn.Module):
    """A mixture of which the gate chooses two."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.gate, self.out = nn.Linear(12, 24), nn.Linear(24, 4, bias=False), nn.Linear(24, 6)
        self.w1, self.w2 = nn.Parameter(torch.randn(4, 24, 48) / 5), nn.Parameter(torch.randn(4, 48, 24) / 7)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inp(x)
        shares = functional.softmax(self.gate(h), -1)
        best, which = shares.topk(2, -1)
        shares = torch.zeros_like(shares).scatter(1, which, best / best.sum(-1, keepdim=True))
        experts = torch.einsum("beh,ehd->bed", functional.gelu(torch.einsum("bd,edh->beh", h, self.w1)), self.w2)
        logits: Tensor = self.out(h + (experts * shares[..., None]).sum(1))
        return logits


class Pooled(nn.Module):
    """A set's points by themselves, then the largest of each feature."""

    def __init__(self) -> None:
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(3, 32), nn.ELU(), nn.Linear(32, 32))
        self.rho = nn.Sequential(nn.Linear(32, 32), nn.ELU(), nn.Linear(32, 5))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.rho(self.phi(x).max(1).values)
        return logits


class Seeds(nn.Module):
    """Learnt queries, which are multiplied with their projection before any input is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.out = nn.Linear(3, 32), nn.Linear(32, 4)
        self.seeds = nn.Parameter(torch.randn(1, 6, 32) * 0.2)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x, queries = self.inp(x), self.seeds.expand(x.shape[0], -1, -1)
        logits: Tensor = self.out(queries + self.attention(queries, x, x)[0]).mean(1)
        return logits


class Tied(nn.Module):
    """Parameters of the network itself, each used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Parameter(torch.randn(32, 64) / 8), nn.Parameter(torch.randn(16, 32) / 6)

    def forward(self, x: Tensor) -> Tensor:
        code = torch.tanh(torch.tanh(x @ self.w1.t()) @ self.w2.t())
        return torch.tanh(code @ self.w2) @ self.w1


class Sines(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 64), *(nn.Linear(64, 64) for _ in range(3)), nn.Linear(64, 3)])
        nn.init.uniform_(self.layers[0].weight, -0.5, 0.5)  # type: ignore[arg-type]
        for layer in self.layers[1:]:
            nn.init.uniform_(layer.weight, -0.01, 0.01)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:  # type: ignore[assignment]
            x = torch.sin(30 * layer(x))
        last: Tensor = self.layers[-1](x)
        return last


def squash(vectors: Tensor) -> Tensor:
    square = (vectors * vectors).sum(-1, keepdim=True)
    return vectors * square.clamp_min(1e-12).sqrt() / (1 + square)


class Capsules(nn.Module):
    """Vectors whose lengths are bounded from below, where nothing has a slope."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Linear(16, 32)
        self.w1, self.w2 = (nn.Parameter(torch.randn(rows, 5, 8, 8) * 0.3) for rows in (4, 5))

    def forward(self, x: Tensor) -> Tensor:
        vectors = squash(self.p(x).view(-1, 4, 8))
        for weight in (self.w1, self.w2):
            vectors = squash(torch.einsum("bic,iocd->bod", vectors, weight))
        lengths: Tensor = vectors.pow(2).sum(-1).clamp_min(1e-12).sqrt()
        return lengths * 10


class Masked(nn.Module):
    """Attention that sees what is before each position, itself included unless ``hidden``."""

    hidden: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))
        self.register_buffer("hidden", torch.ones(6, 6).triu(1).bool())

    def forward(self, x: Tensor) -> Tensor:
        logits = (self.q(x) @ self.k(x).transpose(1, 2) / 4).masked_fill(self.hidden, -torch.inf)
        seen: Tensor = self.out(logits.softmax(-1) @ self.v(x))
        return seen


class Spike(torch.autograd.Function):
    """A step with a gradient of its own, of which a file knows nothing."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] / (1 + 10 * ctx.saved_tensors[0].abs()) ** 2

    @staticmethod
    def symbolic(g: Any, x: Any) -> Any:
        return g.op("Cast", g.op("Greater", x, g.op("Constant", value_t=torch.tensor(0.0))), to_i=1)


class Spiking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(12, 32), nn.Linear(32, 32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        spikes = Spike.apply(self.two(Spike.apply(self.one(x) - 0.2)) - 0.3)
        logits: Tensor = self.out(spikes)
        return logits


def healthy(module: Any) -> None:
    pass


def shut(cell: Cell) -> None:
    cell.x.bias[16:32].fill_(60.0)


def cases() -> list[tuple[str, Callable[[], nn.Module], tuple[int, ...], Break]]:
    return [
        ("cell", Cell, (32, 3, 8), healthy),
        ("cell whose gate keeps the state", Cell, (32, 3, 8), shut),
        ("cell with loud recurrence", Cell, (32, 3, 8), lambda m: m.u.weight.mul_(100)),
        ("experts", Experts, (64, 12), healthy),
        ("experts behind a gate of zeros", Experts, (64, 12), lambda m: m.gate.weight.zero_()),
        ("experts that start at zero", Experts, (64, 12), lambda m: (m.w1.zero_(), m.w2.zero_())),
        ("pooled sets", Pooled, (16, 10, 3), healthy),
        ("zeros around the pool", Pooled, (16, 10, 3), lambda m: (m.phi[2].weight.zero_(), m.rho[0].weight.zero_())),
        ("seeds", Seeds, (16, 9, 3), healthy),
        ("seeds of zeros", Seeds, (16, 9, 3), lambda m: m.seeds.zero_()),
        ("tied weights", Tied, (32, 64), healthy),
        ("tied weights, one of them zero", Tied, (32, 64), lambda m: m.w2.zero_()),
        ("capsules", Capsules, (32, 16), healthy),
        ("capsules that are cut off", Capsules, (32, 16), lambda m: (m.w1.mul_(0.01), m.w2.mul_(0.01))),
        ("masked attention", Masked, (8, 6, 16), healthy),
        ("attention that may not see itself", Masked, (8, 6, 16), lambda m: m.hidden.fill_diagonal_(True)),
        ("spikes", Spiking, (32, 12), healthy),
        ("spikes that zeros keep quiet", Spiking, (32, 12), lambda m: (m.two.weight.zero_(), m.two.bias.zero_())),
        ("sines", Sines, (64, 2), healthy),
        ("sines, one of them loud", Sines, (64, 2), lambda m: m.layers[2].weight.mul_(100)),
    ]  # fmt: skip


NEWER = ("experts behind a gate of zeros", "seeds of zeros", "tied weights")
"""Cases for the newer exporter too, which takes longer."""


def variants() -> list[object]:
    older = [pytest.param(*case, "legacy", id=name) for name, *case in cases()]
    return older + [pytest.param(*case, "dynamo", id=f"{name}, newer") for name, *case in cases() if name in NEWER]


@pytest.mark.parametrize(("build", "shape", "broken", "exporter"), variants())
def test_a_module_and_its_file_tell_the_same(
    build: Callable[[], nn.Module], shape: tuple[int, ...], broken: Break, exporter: Exporter
) -> None:
    torch.manual_seed(0)
    module = build()
    with torch.no_grad():
        broken(module)
    of_module, of_file = both(module, torch.randn(shape), exporter)
    assert told(of_module) == told(of_file)
    if broken is healthy:
        assert of_module.ok and not [each for each in of_module.headlines if each.severity > 1]
