"""A layer is reported if its scale is far off and shows: not where a norm, a sine or a residual sum hides it."""

from __future__ import annotations

import math
from functools import partial

import onnx
import torch
from models import Fault, focal_prior, gpt, layer_scale, lstm, mobilenet, relu_mlp, siren, torch_default_mlp, zero_head
from models.altered import altered, planted
from models.graphs import Array, Graph, mlp, residual

import initlint
from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

WARNING, NOTE = Severity.WARNING, Severity.NOTE
LEGACY = ("legacy",)


def times(factor: float) -> object:
    def change(weight: Array) -> Array:
        return weight * factor

    return change


def fourier_features(seed: int = 0) -> onnx.ModelProto:
    """Tancik et al. 2020: a projection of std 10 in front of sine and cosine."""
    graph = Graph(seed)
    x = graph.input("x", ["batch", 3])
    angles = graph.op("MatMul", x, graph.normal("frequencies", 3, 32, std=10.0 * 2 * math.pi))
    waves = graph.op("Concat", graph.op("Sin", angles), graph.op("Cos", angles), axis=1)
    hidden = graph.op("Relu", graph.linear("hidden", waves, 64, 64, 2.0))
    return graph.model(graph.linear("head", hidden, 64, 3, 1.0))


def normed(seed: int = 0, factor: float = 100.0) -> onnx.ModelProto:
    graph = Graph(seed, {"conv2.weight": times(factor)})
    x = graph.op("Relu", graph.conv("conv1", graph.input("x", ["batch", 3, 8, 8]), 3, 16))
    x = graph.op("Relu", graph.norm("norm", graph.conv("conv2", x, 16, 16), 16))
    return graph.model(graph.conv("conv3", x, 16, 4))


@cases(
    Good("he-initialised mlp", mlp),
    Good("PyTorch's default", torch_default_mlp, exporters=LEGACY),
    Good("GPT-2's depth-scaled residual branches", gpt, exporters=LEGACY),
    Good("depthwise convolutions", mobilenet, exporters=LEGACY),
    Good("SIREN", siren, exporters=LEGACY),
    Good("Fourier features", fourier_features),
    Good("focal prior with a head of std 0.01", focal_prior, exporters=LEGACY),
    Good("LayerScale", layer_scale, exporters=LEGACY),
    Good("zero head", zero_head, notes_ok=False, exporters=LEGACY),
    Good("near miss: 100 times too large in front of batch norm", normed),
    Good("near miss: 5 times too large", partial(mlp, changes={"2.weight": times(5.0)})),
    Good("near miss: 0.01 of the scale in a shallow net", partial(mlp, changes={"2.weight": times(0.01)})),
    Good("near miss: 0.1 of the scale in a deep one", partial(mlp, depth=10, changes={"8.weight": times(0.1)})),
    Good(
        "near miss: the small end of a residual branch",
        partial(residual, changes={"blocks.1.fc2.weight": times(0.001)}),
    ),
    Good("near miss: a small head", partial(mlp, depth=10, changes={"18.weight": times(0.01)})),
    Good("near miss: all layers small, which is another rule's", partial(mlp, depth=10, gain=0.4), notes_ok=False),
    Bad(
        "hidden layer 100 times too large",
        planted(relu_mlp, Fault.LOUD, "2.weight"),
        ["2.weight"],
        WARNING,
        exporters=("legacy",),
    ),
    Bad(
        "hidden layer of std 1",
        partial(mlp, width=512, changes={"2.weight": times(512**0.5 / 2**0.5)}),
        ["2.weight"],
        WARNING,
    ),
    Bad("head of variance 1", altered(gpt, lambda m: m.head.weight.normal_(std=2.0)), ["head.weight"], WARNING, LEGACY),
    Bad(
        "first layer of a residual branch",
        partial(residual, changes={"blocks.1.fc1.weight": times(100.0)}),
        ["blocks.1.fc1.weight"],
        WARNING,
    ),
    Bad("input half of an LSTM", planted(lstm, Fault.LOUD, "cell.weight_ih_l0"), ["cell.weight_ih_l0"], WARNING),
    Bad(
        "recurrent half of an LSTM",
        planted(lstm, Fault.LOUD, "cell.weight_hh_l0"),
        ["cell.weight_hh_l0"],
        WARNING,
        LEGACY,
    ),
    Bad("table of std 100", planted(lstm, Fault.LOUD, "embedding.weight"), ["embedding.weight"], WARNING, LEGACY),
    Bad(
        "0.01 of the scale in a deep plain net",
        partial(mlp, depth=10, changes={"8.weight": times(0.01)}),
        ["8.weight"],
        WARNING,
    ),
)
def test_variance_mismatch(case: Case) -> None:
    check("variance-mismatch", case, seeds=(0,))


class Windows(torch.nn.Module):
    """A smoothing window per channel, as in Leaf (Zeghidour et al. 2021, arXiv:2101.08596, section 3.3).

    Its Gaussian is made of one width a channel; or the widths are taps that are squared one by one.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.front, self.head = torch.nn.Conv1d(1, 8, 15, padding=7), torch.nn.Linear(8, 4)
        self.width = torch.nn.Parameter(torch.rand(shape) * 0.4 + 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        times = torch.linspace(-1.0, 1.0, 401)
        window = torch.exp(-((times / self.width) ** 2) / 2) if self.width.shape[-1] == 1 else (2 * self.width).square()
        smooth = torch.nn.functional.conv1d(self.front(x).square(), window, stride=100, padding=200, groups=8)
        return self.head(torch.log(smooth + 1e-6).mean(-1))


def test_a_window_is_no_draw_of_weights_however_large() -> None:
    rules = {}
    for shape in ((8, 1, 1), (8, 1, 401)):
        torch.manual_seed(0)
        found = initlint.check(Windows(shape), torch.randn(8, 1, 2000)).findings
        rules[shape[-1]] = {each.rule for each in found if each.severity is WARNING}
    assert "variance-mismatch" not in rules[1]
    assert "variance-mismatch" in rules[401]
