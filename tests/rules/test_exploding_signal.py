"""Factors that multiply from layer to layer end in absurd outputs."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
import pytest
import torch
from models import Built, batchnorm_resnet, fixup, gpt, relu_cnn, seeded
from models.altered import altered
from models.graphs import mlp, residual
from torch import nn

import initlint
from initlint.plugin import Severity
from initlint.testing import Bad, Build, Case, Good, cases, check

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
LEGACY = ("legacy",)
HE = np.sqrt(2.0)


@seeded
def sampled(std: float = 0.1) -> Built:
    """A mean and a deviation, and what is drawn from them; logits that a mask takes out are -1e9."""
    net = Sampled()
    with torch.no_grad():
        net.deviation.weight.normal_(0.0, std)
    return net, (torch.randn(32, 16),)


class Sampled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.mean, self.deviation = nn.Linear(16, 64), nn.Linear(64, 4), nn.Linear(64, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.tanh(self.hidden(x))
        drawn = self.mean(hidden) + torch.exp(self.deviation(hidden)) * x[:, :4]
        return drawn, self.mean(hidden).masked_fill(x[:, :4] > 0, -1e9)


class Iterated(nn.Module):
    """One residual function, used again and again."""

    def __init__(self, end: float) -> None:
        super().__init__()
        self.first, self.last, self.head = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 4)
        for layer in (self.first, self.last):
            nn.init.kaiming_normal_(layer.weight)
        nn.init.normal_(self.last.weight, std=end * (2.0 / 32.0) ** 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(20):
            x = x + self.last(torch.relu(self.first(x)))
        return self.head(x)


@seeded
def iterated(end: float = 1.0) -> Built:
    return Iterated(end), (torch.randn(32, 32),)


@cases(
    Good("he-initialised, 20 layers", partial(mlp, depth=20), notes_ok=False),
    Good("he-initialised cnn", relu_cnn, notes_ok=False, exporters=LEGACY),
    Good("fixup", fixup, notes_ok=False, exporters=LEGACY),
    Good("gpt", gpt, notes_ok=False, exporters=LEGACY),
    Good("near miss: twice the scale, 4 layers", partial(mlp, gain=2 * HE), notes_ok=False),
    Good(
        "near miss: batch norm forgets the scale",
        altered(batchnorm_resnet, lambda m: [p.mul_(100) for n, p in m.named_parameters() if "conv" in n]),
        notes_ok=False,
        exporters=LEGACY,
    ),
    Good(
        "near miss: a loud layer that a quiet one makes up for",
        partial(mlp, changes={"2.weight": lambda w: w * 100, "4.weight": lambda w: w / 100}),
        notes_ok=False,
    ),
    Good("near miss: masked logits beside a sample", sampled, notes_ok=False, exporters=()),
    Good("near miss: one output, 2.2 times per layer, 4 layers", partial(mlp, gain=2 * HE, outputs=1)),
    Good("near miss: a residual function whose end is divided by its 20 calls", partial(iterated, end=0.05)),
    Bad("a residual function called 20 times", iterated, ["head"], ERROR, exporters=LEGACY),
    Bad("a sample with an absurd deviation", partial(sampled, std=3.0), ["deviation"], ERROR, exporters=()),
    Bad("one output, five layers", partial(mlp, depth=6, gain=2.2 * HE, outputs=1), ["10"], ERROR),
    Bad("twice the scale, 8 layers", partial(mlp, depth=8, gain=2 * HE), ["14"]),
    Bad(
        "four times the scale, 12 layers",
        altered(relu_cnn, lambda m: [p.mul_(4) for p in m.parameters()], depth=8),
        ["15"],
        ERROR,
        exporters=("legacy",),
    ),
    Bad("a head 40 times too large", partial(mlp, changes={"6.weight": lambda w: w * 40}), ["6"], WARNING),
    Bad(
        "two layers of std 100",
        partial(mlp, depth=2, gain=800.0, changes={"2.weight": lambda w: w * 100}),
        ["2"],
        ERROR,
    ),
    Bad(
        "residual blocks that double the signal",
        partial(residual, blocks=16, changes={f"blocks.{i}.fc2.weight": lambda w: w * 8 for i in range(16)}),
        ["head"],
        ERROR,
    ),
)
def test_exploding_signal(case: Case) -> None:
    check("exploding-signal", case, seeds=(0,))


# Without a probe ------------------------------------------------------------------------------------------------------

POSITIVE = {f"{2 * i}.weight": lambda w: np.random.default_rng(0).random(w.shape, np.float32) for i in range(4)}


def predicted(model: onnx.ModelProto) -> list[tuple[str, Severity]]:
    report = initlint.check(model, no_probe=True, select=["exploding-signal"])
    assert report.skipped_rules == ()
    assert all(finding.message.startswith("the weights predict outputs") for finding in report.findings)
    return [(finding.address, finding.severity) for finding in report.findings]


@pytest.mark.parametrize(
    ("build", "severity"),
    [
        (partial(mlp, changes={"6.weight": lambda w: w * 60}), NOTE),  # measured: a warning
        (partial(mlp, depth=8, gain=3 * HE), WARNING),  # measured: an error
        (partial(mlp, depth=20, gain=10 * HE), ERROR),  # beyond every doubt: 1e19
        (partial(mlp, changes=POSITIVE), ERROR),  # the means alone do it
        (partial(mlp, depth=20, gain=1e4), ERROR),  # beyond float32 before it reaches the output
    ],
    ids=["head", "three times", "ten times", "uniform(0, 1)", "overflow"],
)
def test_a_prediction_counts_a_step_less(build: Build, severity: Severity) -> None:
    ((_, found),) = predicted(build(seed=0))
    assert found is severity


@pytest.mark.parametrize(
    "build",
    [
        partial(mlp, depth=20),
        partial(mlp, gain=2 * HE),
        partial(mlp, changes={"2.weight": lambda w: w * 100, "4.weight": lambda w: w / 100}),
        partial(residual, blocks=16),
    ],
    ids=["he", "twice the scale, 4 layers", "loud, then quiet", "residual"],
)
def test_near_misses_are_not_predicted_either(build: Build) -> None:
    assert predicted(build(seed=0)) == []


def test_the_message_says_what_each_layer_does_and_what_would_help() -> None:
    (finding,) = initlint.check(mlp(depth=8, gain=3 * HE), select=["exploding-signal"]).findings
    assert ": each layer multiplies it by 2." in finding.message
    assert finding.message.partition("; He initialisation keeps ")[2].startswith(("0.9", "1"))


def test_the_end_of_a_function_that_is_called_again_and_again_is_to_be_smaller() -> None:
    report = initlint.check(*iterated())
    (finding,) = (each for each in report.headlines if each.severity >= WARNING)
    assert (finding.rule, finding.verified) == ("exploding-signal", True)
    assert 'model.get_parameter("last.weight"), gain=0.05' in finding.fix.code
    half = next(each for each in report.findings if each.rule == "half-precision-range")
    assert half.caused_by is not None and half.caused_by.rule == "exploding-signal"


class Branches(nn.Module):
    """A residual net without a norm, or one layer that is called ``calls`` times."""

    def __init__(self, blocks: int, calls: int) -> None:
        super().__init__()
        self.enter, self.leave, self.shared = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32)) for _ in range(blocks)
        )
        self.calls = calls
        for layer in self.blocks.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
        with torch.no_grad():
            nn.init.kaiming_normal_(self.shared.weight).mul_(2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x)
        for block in self.blocks:
            x = x + block(x)
        for _ in range(self.calls):
            x = torch.relu(self.shared(x))
        return self.leave(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("blocks", "calls", "layers"), [(20, 0, 42), (0, 10, 12)])
def test_what_a_layer_multiplies_by_counts_branches_and_calls(blocks: int, calls: int, layers: int) -> None:
    torch.manual_seed(0)
    report = initlint.check(Branches(blocks, calls), torch.randn(64, 32), select=["exploding-signal"])
    (finding,) = report.findings
    said = finding.message.partition(" times the input's scale, after ")[2]
    assert said.startswith(f"{layers} layers: on average each of them multiplies it by 1.")
