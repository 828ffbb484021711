"""Logits that start out certain are reported where they are known to be logits; priors and small heads are fine."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from models import Built, focal_prior, gpt, relu_mlp, zero_head
from models.altered import altered
from models.graphs import Array, Graph
from onnx import ModelProto
from torch import Tensor, nn
from torch.nn import functional

import initlint
from initlint.fixes import edits_of
from initlint.plugin import Fill, Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING = Severity.ERROR, Severity.WARNING


def classifier(
    seed: int = 0, scale: float = 1.0, bias: float = 0.0, end: str = "Softmax", name: str = ""
) -> ModelProto:
    """A ReLU net whose head has ``scale`` times the healthy weights."""

    def change(weight: Array) -> Array:
        return weight * scale

    graph = Graph(seed, {"head.weight": change, "head.bias": bias})
    x = graph.op("Relu", graph.linear("fc", graph.input("x", ["batch", 32]), 32, 64))
    x = graph.linear("head", x, 64, 10, 1.0)
    x = graph.op(end, x, **({"axis": -1} if end.endswith("Softmax") else {}))
    if name:
        graph.nodes[-1].output[0] = x = name
    return graph.model(x)


@cases(
    Good("small logits", classifier, notes_ok=False),
    Good("gpt", gpt, notes_ok=False, exporters=("legacy",)),
    Good("focal prior", focal_prior, notes_ok=False, exporters=("legacy",)),
    Good("zero head", zero_head, notes_ok=False, exporters=("legacy",)),
    Good("near miss: logits of rms 10", partial(classifier, scale=10.0), notes_ok=False),
    Good("near miss: one bias for all classes", partial(classifier, bias=-1000.0), notes_ok=False),
    Good("near miss: loud outputs that nobody calls logits", partial(classifier, scale=100.0, end="Identity")),
    Bad("a softmax over logits of rms 60", partial(classifier, scale=60.0), ["head.weight"], WARNING),
    Bad("a log-softmax", partial(classifier, scale=60.0, end="LogSoftmax"), ["head.weight"], WARNING),
    Bad("an output called logits", partial(classifier, scale=60.0, end="Identity", name="logits"), ["head.weight"]),
    Bad("logits beyond hope", partial(classifier, scale=3e4), ["head.weight"], ERROR),
)
def test_initial_loss(case: Case) -> None:
    check("initial-loss", case, seeds=(0,))


def loud(seed: int = 0, scale: float = 60.0) -> Built:
    return altered(relu_mlp, lambda m: m[-1].weight.mul_(scale))(seed)


def cross_entropy(reduction: str, output: Tensor) -> Tensor:
    target = torch.arange(len(output)) % output.shape[1]
    return functional.cross_entropy(output, target, reduction=reduction)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_given_cross_entropy_is_held_against_even_probabilities(reduction: str) -> None:
    module, inputs = loud()
    report = initlint.check(module, inputs, loss=partial(cross_entropy, reduction), select=["initial-loss"])
    (finding,) = report.findings
    assert (finding.tensor, finding.severity) == ("6.weight", WARNING)
    assert finding.data["classes"] == 10
    assert finding.data["excess"] == pytest.approx(60 * 1.54, rel=0.5), "the largest of ten normal logits"


@pytest.mark.parametrize(("scale", "severity"), [(2.0, None), (9.0, WARNING), (60.0, ERROR)])
def test_a_given_loss_of_another_kind_is_held_against_outputs_of_zero(scale: float, severity: Severity | None) -> None:
    module, inputs = loud(scale=scale)
    report = initlint.check(module, inputs, loss=lambda y: (y - 1).square().mean(), select=["initial-loss"])
    assert [(finding.tensor, finding.severity) for finding in report.findings] == (
        [("6.weight", severity)] if severity else []
    )


def test_the_bias_of_a_regression_is_to_blame_for_what_its_units_share() -> None:
    module, inputs = altered(relu_mlp, lambda m: m[-1].bias.fill_(50.0))(0)
    report = initlint.check(module, inputs, loss=lambda y: (y - 1).square().mean(), select=["initial-loss"])
    assert [(finding.tensor, finding.severity) for finding in report.findings] == [("6.bias", ERROR)]


def test_targets_far_from_zero_and_losses_that_vanish_at_zero_say_nothing() -> None:
    module, inputs = loud()
    for loss in (lambda y: (y - 1e4).square().mean(), lambda y: y.square().mean(), lambda y: y.sum()):
        assert initlint.check(module, inputs, loss=loss, select=["initial-loss"]).findings == ()


@pytest.mark.parametrize("size", [0.1, 0.01, 0.001])
def test_a_head_that_no_redraw_makes_quiet_enough_for_small_targets_is_to_start_at_zero(size: float) -> None:
    module, inputs = altered(relu_mlp, lambda m: m[-1].weight.normal_(std=m[-1].in_features ** -0.5))(0)
    target = size * torch.randn(module(inputs[0]).shape, generator=torch.Generator().manual_seed(0))
    (finding,) = initlint.check(module, inputs, loss=lambda y: functional.mse_loss(y, target)).findings
    assert (finding.rule, finding.layer, finding.severity) == ("initial-loss", "6", ERROR if size < 0.03 else WARNING)
    assert (finding.fix, finding.verified) == (Fill("6.weight", 0.0), True)


def test_a_head_is_not_silenced_where_the_layers_before_it_are_loud() -> None:
    module, inputs = altered(relu_mlp, lambda m: [m[number].weight.mul_(20.0) for number in (0, 2, 4)])(0)
    loss = partial(functional.mse_loss, target=torch.randn(module(inputs[0]).shape))
    findings = initlint.check(module, inputs, loss=loss).findings
    assert "initial-loss" in {finding.rule for finding in findings}
    assert all(edit.kind == "reinit" for finding in findings for edit in edits_of(finding.fix))


def test_binary_cross_entropy_starts_at_the_log_of_two() -> None:
    module, inputs = loud(scale=200.0)

    def loss(output: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(output, (torch.arange(10) % 2).expand_as(output).float())

    (finding,) = initlint.check(module, inputs, loss=loss, select=["initial-loss"]).findings
    assert finding.data["classes"] == 2


def test_a_loss_that_is_not_finite_although_the_outputs_are() -> None:
    module, inputs = relu_mlp(0)
    report = initlint.check(module, inputs, loss=lambda y: (y - 1e6).log().mean(), select=["initial-loss"])
    (finding,) = report.findings
    assert (finding.tensor, finding.layer, finding.severity) == (None, None, ERROR)
    assert math.isnan(float(str(finding.data["loss"])))


def test_logits_by_name_in_the_output_of_a_module() -> None:
    class Named(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.net = module

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.net(x)}

    module, inputs = loud()
    (finding,) = initlint.check(Named(module), inputs, select=["initial-loss"]).findings
    assert finding.tensor == "net.6.weight"
