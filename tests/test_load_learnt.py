"""Constants that go through layers as data do make layers of these; constants that make weights do not."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from tracing import traced

import initlint
from initlint.load.from_onnx import open_onnx
from initlint.model import Model

WIDTH = 16


class Attention(nn.Module):
    """Written out: queries of ``x``, keys and values of ``context``."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        logits = self.q(x) @ self.k(context).transpose(-1, -2) / math.sqrt(WIDTH)
        return logits.softmax(-1) @ self.v(context)


class Latents(nn.Module):
    """A Perceiver's: learnt latents, normalised, attend to the inputs (Jaegle et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.latents, self.norm = nn.Parameter(torch.randn(1, 5, WIDTH)), nn.LayerNorm(WIDTH)
        self.read, self.head = Attention(), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.read(self.norm(self.latents.expand(len(x), -1, -1)), x))


class Memory(nn.Module):
    """Inputs attend to keys and values that are projected from a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.read = nn.Parameter(torch.randn(7, WIDTH)), Attention()

    def forward(self, x: Tensor) -> Tensor:
        return self.read(x, self.memory)


class PositionBias(nn.Module):
    """Swin v2's: an MLP of relative coordinates, looked up and added to the logits (Liu et al. 2022)."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(1, 32), nn.ReLU(), nn.Linear(32, 1, bias=False))
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        places = torch.arange(6)
        self.register_buffer("places", places[:, None] - places + 5)
        self.register_buffer("table", torch.linspace(-8, 8, 11)[:, None])

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        bias = 16 * torch.sigmoid(self.mlp(self.table)[self.places.flatten()].view(6, 6))
        return (q @ k.transpose(1, 2) / 4 + bias).softmax(-1) @ v


class Prefix(nn.Module):
    """Keys and values that an MLP makes of a table stand before those of the inputs (Liu et al. 2021, P-tuning v2)."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(4, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 24), nn.Tanh(), nn.Linear(24, 2 * WIDTH))
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        keys, values = self.mlp(self.table(torch.arange(4))).expand(len(x), -1, -1).chunk(2, -1)
        q, k, v = self.qkv(x).chunk(3, -1)
        return functional.scaled_dot_product_attention(q, torch.cat([keys, k], 1), torch.cat([values, v], 1))


class Coordinates(nn.Module):
    """A decoder of a fixed grid, which the inputs modulate: the gain is repeated over the places (Chan et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("grid", torch.rand(9, 2))
        self.place, self.code, self.out = nn.Linear(2, WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        gain, shift = self.code(x.mean(1))[:, None].chunk(2, -1)
        return self.out(torch.sin((1 + gain) * self.place(self.grid) + shift))


class Prompts(nn.Module):
    """Class weights that a text tower makes of prompts: what comes out of an attention is data (Zhou et al. 2022)."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.randn(3, 4, WIDTH))
        self.tower = nn.TransformerEncoderLayer(WIDTH, 2, 32, 0.0, batch_first=True)
        self.image = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.image(x.mean(1)) @ functional.normalize(self.tower(self.prompts)[:, -1], dim=-1).T


DATA: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "latents": (Latents, ["norm", "read.q"]),
    "memory": (Memory, ["read.k", "read.v"]),
    "position bias": (PositionBias, ["mlp.0", "mlp.2"]),
    "prefix": (Prefix, ["mlp.0", "mlp.2"]),
    "coordinates": (Coordinates, ["place"]),
    "prompts": (
        Prompts,
        ["self_attn", "self_attn.out_proj", "norm1", "linear1", "linear2", "norm2"],
    ),
}


def batch() -> Tensor:
    return torch.randn(4, 6, WIDTH)


def learnt(model: Model) -> list[str]:
    return [layer.name.removeprefix("tower.") for layer in model.layers if layer.learnt_input]


@pytest.mark.parametrize("name", DATA)
def test_what_data_like_constants_go_through_are_layers(name: str) -> None:
    build, layers = DATA[name]
    assert learnt(traced(build(), batch()).model) == layers


@pytest.mark.parametrize("name", ["latents", "memory", "position bias", "prompts"])
def test_files_tell_the_same(name: str, tmp_path: Path) -> None:
    build, layers = DATA[name]
    path = tmp_path / "model.onnx"
    training = torch.onnx.TrainingMode.TRAINING
    torch.onnx.export(build(), (batch(),), path, dynamo=False, training=training, do_constant_folding=False)
    assert learnt(open_onnx(path).model) == layers


@pytest.mark.parametrize("name", DATA)
def test_healthy_ones_are_not_complained_of(name: str) -> None:
    torch.manual_seed(0)
    report = initlint.check(DATA[name][0](), (batch(),))
    assert [finding for finding in report.findings if finding.severity > initlint.Severity.NOTE] == []


FAULTS: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "zeros": (lambda p: p.zero_(), "zero-weights"),
    "constant": (lambda p: p.fill_(0.05), "constant-weights"),
    "loud": (lambda p: p.mul_(1000), "variance-mismatch"),
    "copies": (lambda p: p[1:].copy_(p[:1].expand_as(p[1:])), "duplicate-units"),
    "NaN": (lambda p: p[0].fill_(math.nan), "non-finite-weights"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("name", "weight"), [("latents", "read.q.weight"), ("prefix", "mlp.0.weight")])
def test_faults_of_such_layers_are_found(name: str, weight: str, fault: str) -> None:
    torch.manual_seed(0)
    spoil, rule = FAULTS[fault]
    module = DATA[name][0]()
    with torch.no_grad():
        spoil(module.get_parameter(weight))
    report = initlint.check(module, (batch(),))
    assert rule in [finding.rule for finding in report.findings if finding.tensor == weight]


class Generated(nn.Module):
    """A hypernetwork: an MLP makes weight and bias of an embedding (Ha et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Parameter(torch.randn(1, 8))
        self.maker = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, WIDTH * 4 + 4))

    def forward(self, x: Tensor) -> Tensor:
        made = self.maker(self.code)[0]
        return functional.linear(x, made[:-4].view(4, WIDTH), made[-4:])


class BesideEachOther(nn.Module):
    """A hypernetwork with a map for the weight and another one for what is added."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Parameter(torch.randn(8))
        self.weight, self.shift = nn.Linear(8, WIDTH * 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight(self.code).view(WIDTH, 4) + self.shift(self.code)


class LowRankPlaces(nn.Module):
    """Positions as a product of two parameters: factors, not a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = (
            nn.Parameter(torch.randn(6, 2)),
            nn.Parameter(torch.randn(2, WIDTH)),
            nn.Linear(WIDTH, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x + self.a @ self.b)


class OnIdentity(nn.Module):
    """W + B A, the product taken by running both maps on an identity (as peft does for DoRA)."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(WIDTH, 4)
        self.a, self.b = nn.Linear(WIDTH, 2, bias=False), nn.Linear(2, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.base.weight + self.b(self.a(torch.eye(WIDTH))).T, self.base.bias)


class Gains(nn.Module):
    """What the inputs are multiplied by, channel by channel, and what is added beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.code, self.out = nn.Parameter(torch.randn(8)), nn.Linear(WIDTH, 3)
        self.gain, self.shift = nn.Linear(8, WIDTH), nn.Linear(8, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x * self.gain(self.code) + self.shift(self.code))


class LongFilter(nn.Module):
    """Hyena's filters, made by an MLP of time (Poli et al. 2023)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("time", torch.rand(6, 3))
        self.filter = nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        taps = torch.fft.rfft(self.filter(self.time).T, n=12)
        return torch.fft.irfft(torch.fft.rfft(x.transpose(1, 2), n=12) * taps, n=12)[..., :6]


@pytest.mark.parametrize("build", [Generated, BesideEachOther, LowRankPlaces, OnIdentity, Gains, LongFilter])
def test_what_makes_weights_is_no_layer(build: Callable[[], nn.Module]) -> None:
    assert learnt(traced(build(), batch()).model) == []


class FromNothing(nn.Module):
    """DETR's first block: zeros and learnt places; nothing is learnt of what the values are made of (Carion 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.places, self.own, self.read = nn.Parameter(torch.randn(5, WIDTH)), Attention(), Attention()

    def forward(self, x: Tensor) -> Tensor:
        start = torch.zeros(len(x), 5, WIDTH)
        logits = self.own.q(start + self.places) @ self.own.k(start + self.places).transpose(1, 2)
        return self.read(start + logits.softmax(-1) @ self.own.v(start) + self.places, x)


def test_zeros_are_no_data() -> None:
    torch.manual_seed(0)
    model = traced(FromNothing(), batch()).model
    assert learnt(model) == ["own.q", "own.k", "read.q"]
    assert [each.at for each in model.not_checked] == ["own.v.weight"]
    report = initlint.check(FromNothing(), (batch(),))
    assert [finding for finding in report.findings if finding.severity > initlint.Severity.NOTE] == []


def test_a_layer_that_is_called_on_data_too_is_no_learnt_one() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.map = nn.Parameter(torch.randn(1, 6, WIDTH)), nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            return self.map(x) * self.map(self.start)

    (layer,) = traced(Both(), batch()).model.layers
    assert (layer.calls, layer.learnt_input) == (2, False)


def test_a_network_of_a_grid_alone_is_no_side_path() -> None:
    class Grid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("grid", torch.rand(50, 2))
            self.net = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 3))

        def forward(self) -> Tensor:
            return self.net(self.grid)

    layers = traced(Grid()).model.layers
    assert [(layer.name, layer.bypassed) for layer in layers] == [("net.0", False), ("net.2", False)]
