"""A zero weight is a fault where nothing can wake it, and good practice where the first step does."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import torch
from models import Built, adaln_zero, gpt, lora, relu_mlp, zero_head
from models.altered import altered
from models.graphs import Graph, mlp, residual
from models.initialised import seeded
from models.messages import emptied, messages
from torch import nn

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


def _all_zero(module: nn.Module) -> None:
    for each in module.modules():
        if isinstance(each, nn.Linear):
            nn.init.zeros_(each.weight)
            if each.bias is not None:
                nn.init.uniform_(each.bias, -0.1, 0.1)


def in_series(seed: int = 0, activation: str = "Tanh", bias: float = 0.0) -> onnx.ModelProto:
    return mlp(seed, activation=activation, gain=1.0, changes={"2.weight": 0.0, "4.weight": 0.0, "2.bias": bias})


def normed(seed: int = 0, shift: float = 0.0) -> onnx.ModelProto:
    graph = Graph(seed, {"conv2.weight": 0.0, "norm.bias": shift})
    x = graph.op("Relu", graph.conv("conv1", graph.input("x", ["batch", 3, 8, 8]), 3, 16))
    x = graph.op("Relu", graph.norm("norm", graph.conv("conv2", x, 16, 16), 16))
    return graph.model(graph.conv("conv3", x, 16, 4))


def spatial_transformer(seed: int = 0) -> onnx.ModelProto:
    """Jaderberg et al. 2015: the last layer of the localisation net is zero, its bias the identity transform."""
    graph = Graph(seed, {"theta.weight": 0.0, "theta.bias": np.array([1, 0, 0, 0, 1, 0], np.float32)}, opset=20)
    x = graph.input("x", ["batch", 3, 8, 8])
    pooled = graph.op("Flatten", graph.op("Relu", graph.conv("look", x, 3, 8)))
    theta = graph.op("Reshape", graph.linear("theta", pooled, 512, 6), graph.tensor("shape", np.array([-1, 2, 3])))
    size = graph.op("Shape", x)
    warped = graph.op("GridSample", x, graph.op("AffineGrid", theta, size))
    return graph.model(graph.conv("classify", warped, 3, 4))


def zero_query(seed: int = 0, key: bool = False) -> onnx.ModelProto:
    """muP (Yang et al. 2022): attention starts uniform because the query is zero."""
    graph = Graph(seed, {"query.weight": 0.0, **({"key.weight": 0.0} if key else {})})
    x = graph.input("x", ["batch", 8, 32])
    q, k, v = (graph.matmul(name, x, 32, 32) for name in ("query", "key", "value"))
    scores = graph.op("Softmax", graph.op("MatMul", q, graph.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
    mixed = graph.op("MatMul", scores, v)
    return graph.model(graph.matmul("out", mixed, 32, 10))


def gated(seed: int = 0) -> onnx.ModelProto:
    """x + gate(x) * value(x) with a zero gate layer."""
    graph = Graph(seed, {"gate.weight": 0.0})
    x = graph.input("x", ["batch", 32])
    gate = graph.op("Sigmoid", graph.linear("gate", x, 32, 32))
    x = graph.op("Add", x, graph.op("Mul", gate, graph.linear("value", x, 32, 32)))
    return graph.model(graph.linear("head", x, 32, 10))


class _Proposals(nn.Module):
    """Zhu et al. 2021 (Deformable DETR, two stages): boxes are an output, and what the decoder starts from."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.boxes = nn.Linear(16, 32), nn.Linear(32, 4)
        self.places, self.head = nn.Linear(4, 32), nn.Linear(32, 3)
        nn.init.zeros_(self.boxes.weight)
        nn.init.zeros_(self.boxes.bias)
        self.prior: torch.Tensor
        self.register_buffer("prior", torch.randn(4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.relu(self.inner(x))
        boxes = self.boxes(hidden) + self.prior
        return self.head(torch.relu(hidden + self.places(boxes.detach().sigmoid()))), boxes.sigmoid()


@seeded
def proposals() -> Built:
    return _Proposals(), (torch.randn(32, 16),)


class _Shares(nn.Module):
    """A router whose sigmoids are divided by their sum; it starts at zero, and all shares are alike."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.head = nn.Linear(16, 4, bias=False), nn.Linear(16, 3)
        self.experts = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))
        nn.init.zeros_(self.router.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shares = self.router(x).sigmoid()
        shares = shares / shares.sum(-1, keepdim=True)
        mixed = torch.stack([expert(x) for expert in self.experts], 1)
        out: torch.Tensor = self.head((mixed * shares.unsqueeze(-1)).sum(1))
        return out


@seeded
def shares() -> Built:
    return _Shares(), (torch.randn(32, 16),)


class LowRank(nn.Module):
    """AdaLoRA (Zhang et al. 2023): x (A * E)^T B^T beside a frozen map, E at zero."""

    def __init__(self, beside: bool = True) -> None:
        super().__init__()
        self.base, self.head, self.beside = nn.Linear(32, 32), nn.Linear(32, 4), beside
        self.down, self.up = nn.Linear(32, 4, bias=False), nn.Linear(4, 32, bias=False)
        self.scale = nn.Parameter(torch.zeros(4, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        added = self.up(nn.functional.linear(x, self.down.weight * self.scale))
        return self.head(torch.tanh(self.base(x) + added if self.beside else added))


def adaptive(seed: int = 0, beside: bool = True) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(seed)
    return LowRank(beside), torch.randn(16, 32)


def down_at_zero(seed: int = 0, up: float | None = None) -> onnx.ModelProto:
    """x + up(down(x)) with the first of the two at zero."""
    graph = Graph(seed, {"down.weight": 0.0} | ({} if up is None else {"up.weight": up}))
    x = graph.input("x", ["batch", 32])
    x = graph.op("Add", x, graph.matmul("up", graph.matmul("down", x, 32, 4), 4, 32))
    return graph.model(graph.linear("head", x, 32, 10))


class Shared(nn.Module):
    """One tensor of zeros in two places: its bias wakes it, and it needs no other."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.one, self.two, self.head = (nn.Linear(16, 16) for _ in range(4))
        nn.init.zeros_(self.one.weight)
        self.two.weight = self.one.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.two(torch.relu(self.one(self.enter(x)))))
        return self.head(x)  # type: ignore[no-any-return]


def shared(seed: int = 0) -> Built:
    torch.manual_seed(seed)
    return Shared(), torch.randn(32, 16)


@cases(
    Good("near miss: a head that others read, detached", proposals),
    Good("near miss: shares of a router", shares),
    Good("he-initialised mlp", mlp, notes_ok=False),
    Good("zero head", zero_head, exporters=("legacy",)),
    Good("zero logistic regression", partial(mlp, depth=1, changes={"0.weight": 0.0})),
    Good("one factor of a low-rank pair", lora, exporters=("legacy",)),
    Good("adaLN-Zero with a zero head", adaln_zero, exporters=("legacy",)),
    Good("identity spatial transformer", spatial_transformer),
    Good("zero query", zero_query),
    Good("AdaLoRA", adaptive, exporters=()),
    Good("zero start of a linear branch", down_at_zero),
    Bad("both maps of a linear branch", partial(down_at_zero, up=0.0), ["down.weight"], ERROR),
    Bad("nothing leads around the branch", partial(adaptive, beside=False), ["scale"], exporters=()),
    Good("zero gate", gated),
    Good("near miss: the last non-zero weight", partial(mlp, changes={"2.weight": lambda w: w * (w == w.max())})),
    Good("near miss: zero positions beside drawn tokens", altered(gpt, lambda m: m.positions.weight.zero_())),
    Good(
        "near miss: one part of three is zero",
        altered(gpt, lambda m: m.blocks[0].attention.qkv.weight[:48].zero_()),
        exporters=("legacy",),
    ),
    Bad(
        "zero end of a residual branch",
        partial(residual, changes={"blocks.1.fc2.weight": 0.0}),
        ["blocks.1.fc2.weight"],
        NOTE,
    ),
    Bad("hidden layer in front of ReLU", altered(relu_mlp, lambda m: m[2].weight.zero_()), ["2.weight"], ERROR),
    Bad("in front of batch norm and ReLU", normed, ["conv2.weight"], ERROR),
    Bad("a positive shift keeps the ReLU open", partial(normed, shift=0.5), ["conv2.weight"], WARNING),
    Bad(
        "a positive bias keeps the ReLU open",
        partial(mlp, changes={"2.weight": 0.0, "2.bias": 1.0}),
        ["2.weight"],
        WARNING,
    ),
    Bad("in front of tanh", partial(mlp, activation="Tanh", changes={"2.weight": 0.0}), ["2.weight"], WARNING),
    Bad(
        "first layer in front of GELU",
        partial(mlp, activation="Sigmoid", changes={"0.weight": 0.0}),
        ["0.weight"],
        WARNING,
    ),
    Bad(
        "packed queries and keys hold each other at zero",
        altered(gpt, lambda m: m.blocks[0].attention.qkv.weight.zero_()),
        ["blocks.0.attention.qkv.weight"],
        WARNING,
    ),
    Bad("one tensor twice in a row", shared, ["one.weight"], WARNING),
    Good("near miss: one of two maps side by side", altered(messages, lambda m: m.own[1].weight.zero_()), exporters=()),
    Bad(
        "two rounds of two maps side by side, with biases",
        altered(messages, partial(emptied, rounds=2)),
        ["messages.1.weight"],
        ERROR,
        exporters=(),  # which store equal tensors once, as if they were one
    ),
    Bad(
        "all maps of a residual net",
        altered(gpt, _all_zero),
        [f"blocks.{block}.{name}.weight" for block in range(3) for name in ("attention.qkv", "mlp.fc1")],
        WARNING,
        exporters=("legacy",),
    ),
    Bad("two in series", in_series, ["2.weight", "4.weight"], ERROR),
    Bad("two in series, kept awake by a bias", partial(in_series, bias=0.3), ["2.weight", "4.weight"], ERROR),
    Bad("sigmoid(0) is not 0", partial(in_series, activation="Sigmoid"), ["2.weight", "4.weight"], ERROR),
    Bad(
        "both factors of a low-rank pair",
        altered(lora, lambda m: m[2].a.weight.zero_()),
        ["2.a.weight"],
        ERROR,
    ),
    Bad(
        "a whole residual branch",
        partial(residual, changes={"blocks.1.fc1.weight": 0.0, "blocks.1.fc2.weight": 0.0}),
        ["blocks.1.fc1.weight"],
        ERROR,
    ),
)
def test_zero_weights(case: Case) -> None:
    check("zero-weights", case, seeds=(0,))
