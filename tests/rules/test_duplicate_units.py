"""Equal units that read the same input are reported, unless chance or the data type explains them."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import torch
from ml_dtypes import bfloat16
from models import Built, Fault, gpt, lstm, pixel_shuffle, relu_mlp
from models.altered import altered, planted
from models.graphs import Array, Graph, mlp
from torch import Tensor, nn

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

WARNING, NOTE = Severity.WARNING, Severity.NOTE


def first_copied(count: int, weight: Array) -> Array:
    """The first ``count`` units twice."""
    weight = weight.copy()
    weight[count : 2 * count] = weight[:count]
    return weight


def binary(seed: int = 0, fan_in: int = 6) -> onnx.ModelProto:
    """64 units of +-1 with six inputs: of 64 patterns some have to coincide."""
    return mlp(seed, inputs=fan_in, changes={"0.weight": np.sign})


def narrow(seed: int = 0, copied: int = 0) -> onnx.ModelProto:
    """Weights stored as bfloat16 (7 bits of mantissa) with one input only, cast to float32 in the graph."""
    graph = Graph(seed)
    x = graph.input("x", ["batch", 1])
    stored = graph.tensor("first.weight", first_copied(copied, graph.rng.standard_normal((512, 1))).astype(bfloat16))
    weight = graph.op("Cast", stored, to=onnx.TensorProto.FLOAT)
    x = graph.op("Relu", graph.op("Gemm", x, weight, transB=1))
    return graph.model(graph.linear("head", x, 512, 4))


def quantised(seed: int = 0, fan_in: int = 2, copied: int = 0) -> onnx.ModelProto:
    """int8 weights of a layer with two inputs behind DequantizeLinear: equal pairs happen."""
    graph = Graph(seed)
    x = graph.input("x", ["batch", fan_in])
    drawn = np.clip(np.round(graph.rng.standard_normal((256, fan_in)) * 3), -7, 7).astype(np.int8)
    stored = graph.tensor("first.weight", first_copied(copied, drawn))
    weight = graph.op("DequantizeLinear", stored, graph.tensor("scale", np.array(0.2, np.float32)))
    return graph.model(graph.linear("head", graph.op("Relu", graph.op("Gemm", x, weight, transB=1)), 256, 4))


def grouped(seed: int = 0, within: bool = False) -> onnx.ModelProto:
    """Two groups with the same filters, which read different channels; ``within`` repeats filters inside a group."""

    def repeat(weight: Array) -> Array:
        return np.concatenate([weight[:4]] * 4) if within else np.concatenate([weight[:8]] * 2)

    graph = Graph(seed, {"conv.weight": repeat})
    x = graph.op("Relu", graph.conv("conv", graph.input("x", ["batch", 8, 8, 8]), 8, 16, group=2))
    return graph.model(graph.conv("head", x, 16, 4))


class Relative(nn.Module):
    """Logits by distance (Shaw et al. 2018, arXiv:1803.02155): rows of a table, looked up by ``distances``."""

    def __init__(self, distances: Tensor, copied: bool = False) -> None:
        super().__init__()
        self.query, self.head, self.table = (
            nn.Linear(16, 16),
            nn.Linear(16, 3),
            nn.Embedding(int(distances.max()) + 1, 16),
        )
        self.register_buffer("distances", distances)
        if copied:
            with torch.no_grad():
                self.table.weight[40:80] = self.table.weight[:40]

    def forward(self, x: Tensor) -> Tensor:
        looked_up = self.table(self.distances)
        return self.head(torch.einsum("bld,rd->blr", self.query(x), looked_up).softmax(-1) @ x)  # type: ignore[no-any-return]


def relative(clipped: int, copied: bool = False, seed: int = 0) -> Built:
    """Distances of 80 places to the fortieth, cut off at ``clipped``."""
    torch.manual_seed(seed)
    distances = (torch.arange(80) - 40).clamp(-clipped, clipped) + clipped
    return Relative(distances, copied), torch.randn(8, 80, 16)


@cases(
    Good("near miss: rows of a table that are looked up several times", partial(relative, 4), notes_ok=False),
    Bad("rows of a table that are copies", partial(relative, 40, copied=True), ["table.weight"], WARNING),
    Good("he-initialised mlp", mlp, notes_ok=False),
    Good("ICNR in front of a pixel shuffle", pixel_shuffle, notes_ok=False, exporters=("legacy",)),
    Good("equal filters in different groups", grouped, notes_ok=False),
    Good("near miss: binary weights that coincide by chance", binary, notes_ok=False),
    Good("near miss: bfloat16 with a fan-in of one", narrow, notes_ok=False),
    Good("near miss: int8 with a fan-in of two", quantised, notes_ok=False),
    Good(
        "near miss: equal up to the sign",
        partial(mlp, changes={"2.weight": lambda w: np.concatenate([w[:32], -w[:32]])}),
    ),
    Good(
        "near miss: equal up to one bit",
        partial(mlp, changes={"2.weight": lambda w: np.concatenate([w[:32], np.nextafter(w[:32], np.float32(9))])}),
    ),
    Good(
        "near miss: zero units are no copies",
        partial(mlp, changes={"2.weight": lambda w: np.concatenate([w[:32], 0 * w[:32]])}),
    ),
    Bad(
        "half of a table's rows, which separate by themselves",
        altered(lstm, lambda m: m.embedding.weight[:50].copy_(m.embedding.weight[50:])),
        ["embedding.weight"],
        NOTE,
        exporters=("legacy",),
    ),
    Bad("one unit of 64 copied", partial(mlp, changes={"2.weight": partial(first_copied, 1)}), ["2.weight"], NOTE),
    Bad("half of the units copied", planted(relu_mlp, Fault.HALF_DUPLICATED, "2.weight"), ["2.weight"], WARNING),
    Bad(
        "one unit drawn, all others copies",
        partial(mlp, changes={"2.weight": lambda w: np.repeat(w[:1], 64, 0)}),
        ["2.weight"],
        WARNING,
    ),
    Bad("all filters of a group equal", partial(grouped, within=True), ["conv.weight"], WARNING),
    Bad(
        "within the query, key and value",
        planted(gpt, Fault.HALF_DUPLICATED, "blocks.0.attention.qkv.weight"),
        ["blocks.0.attention.qkv.weight"],
        WARNING,
        exporters=("legacy",),
    ),
    Bad(
        "within the gates of an LSTM",
        planted(lstm, Fault.HALF_DUPLICATED, "cell.weight_hh_l0"),
        ["cell.weight_hh_l0"],
        WARNING,
    ),
    Bad("int8 with a fan-in of eight", partial(quantised, fan_in=8, copied=128), ["first.weight"], WARNING),
)
def test_duplicate_units(case: Case) -> None:
    check("duplicate-units", case, seeds=(0,))
