"""Of tensors that stand still side by side the one whose change sets the others free is named, with that change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import initlint
from initlint import Report
from initlint.plugin import Finding, Severity
from initlint.trial import PROBES, Trial


class Thresholds(nn.Module):
    """LISTA (Gregor and LeCun 2010): soft thresholds."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.code, self.again, self.head = nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 10)
        self.threshold = nn.Parameter(torch.full((32,), threshold))

    def _shrunk(self, z: Tensor) -> Tensor:
        return torch.sign(z) * torch.relu(z.abs() - self.threshold)

    def forward(self, x: Tensor) -> Tensor:
        start = self.code(x)
        return self.head(self._shrunk(start + self.again(self._shrunk(start))))


class Centres(nn.Module):
    """Radial basis functions."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.rand(64, 2) * 2 - 1 + shift)
        self.width, self.head = nn.Parameter(torch.full((64,), 10.0)), nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.exp(-self.width * torch.cdist(x.tanh(), self.centres).pow(2)))


class Gates(nn.Module):
    """ReZero (Bachlechner et al. 2020) with |alpha|, whose slope at zero is zero, if ``folded``."""

    def __init__(self, folded: bool) -> None:
        super().__init__()
        self.folded, self.head = folded, nn.Linear(32, 10)
        self.branches = nn.ModuleList(nn.Sequential(nn.Linear(32, 32), nn.Tanh()) for _ in range(2))
        self.gates = nn.ParameterList(nn.Parameter(torch.zeros(1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for branch, gate in zip(self.branches, self.gates, strict=True):
            x = x + (gate.abs() if self.folded else gate) * branch(x)
        return self.head(x)


class Coupling(nn.Module):
    """RealNVP (Dinh et al. 2017): a scale times tanh of a head that starts at zero."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.net, self.head = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16)), nn.Linear(16, 1)
        self.scale = nn.Parameter(torch.full((8,), scale))
        nn.init.zeros_(self.net[2].weight)
        nn.init.zeros_(self.net[2].bias)

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1)
        logarithm, shift = self.net(kept).chunk(2, 1)
        return self.head(torch.cat([kept, changed * torch.exp(self.scale * torch.tanh(logarithm)) + shift], 1))


class ActNorms(nn.Module):
    """Kingma and Dhariwal 2018 (Glow), section 3.1: scales as logarithms."""

    def __init__(self, logarithm: float) -> None:
        super().__init__()
        self.logs = nn.ParameterList(nn.Parameter(torch.full((32,), logarithm)) for _ in range(2))
        self.maps, self.head = nn.ModuleList(nn.Linear(32, 32) for _ in range(2)), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer, logs in zip(self.maps, self.logs, strict=True):
            x = torch.tanh(layer(x) * logs.exp())
        return self.head(x)


class Quantiser(nn.Module):
    """LSQ (Esser et al. 2020): a learned step."""

    def __init__(self, step: float) -> None:
        super().__init__()
        self.inner, self.head, self.step = nn.Linear(8, 32), nn.Linear(32, 4), nn.Parameter(torch.tensor(step))

    def forward(self, x: Tensor) -> Tensor:
        scaled = (torch.relu(self.inner(x)) / self.step).clamp(-8, 7)
        return self.head((scaled + (scaled.round() - scaled).detach()) * self.step)


class Reflections(nn.Module):
    """Householder maps I - 2 v v^T / |v|^2."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.axes = nn.ParameterList(nn.Parameter(torch.randn(32) * value) for _ in range(3))
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        for axis in self.axes:
            x = x - 2 * (x @ axis)[:, None] * axis / axis.square().sum()
        return self.head(x)


def heads(report: Report) -> list[Finding]:
    return [each for each in report.findings if each.caused_by is None and each.severity > Severity.NOTE]


def checked(module: nn.Module, width: int) -> Report:
    return initlint.check(module, torch.randn(64, width, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    "build, good, width",
    [
        (Thresholds, 0.05, 64),
        (Centres, 0.0, 2),
        (Gates, False, 32),
        (Coupling, 1.0, 16),
        (ActNorms, 0.0, 32),
        (Quantiser, 0.1, 8),
        (Reflections, 1.0, 32),
    ],
)
def test_the_repaired_ones_are_left_alone(build: type[nn.Module], good: float, width: int) -> None:
    torch.manual_seed(0)
    assert heads(checked(build(good), width)) == []


@pytest.mark.parametrize(
    "build, bad, width, at, code",
    [
        (Thresholds, 10.0, 64, "threshold", 'nn.init.constant_(model.get_parameter("threshold"), 1)'),
        (Centres, 5.0, 2, "centres", 'nn.init.normal_(model.get_parameter("centres"), std=1)'),
        (Gates, True, 32, "gates.0", "nn.init.constant_(model.get_parameter(name), 1)"),
        (Coupling, 0.0, 16, "scale", 'nn.init.constant_(model.get_parameter("scale"), 1)'),
        (ActNorms, -30.0, 32, "logs.0", "nn.init.constant_(model.get_parameter(name), -1)"),
        (Quantiser, 0.0, 8, "step", 'nn.init.constant_(model.get_parameter("step"), 1)'),
    ],
)
def test_one_is_blamed_with_a_fix_that_was_tried(
    build: type[nn.Module], bad: float, width: int, at: str, code: str
) -> None:
    torch.manual_seed(0)
    (finding,) = heads(checked(build(bad), width))
    assert (finding.address, finding.severity, finding.verified) == (at, Severity.ERROR, True)
    assert finding.fix is not None
    assert code in finding.fix.code


def test_where_an_overflow_comes_up_next_is_mended_with_it() -> None:
    torch.manual_seed(0)
    module = Reflections(0.0)
    (finding,) = heads(checked(module, 32))
    assert finding.rule == "non-finite-activations"
    assert finding.verified
    assert finding.fix is not None
    assert all(f'"axes.{i}"' in finding.fix.code for i in range(3))


@pytest.mark.parametrize("build, bad, width", [(Thresholds, 10.0, 64), (Gates, True, 32), (Reflections, 0.0, 32)])
def test_it_costs_no_more_probes_than_others(
    build: type[nn.Module], bad: float, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    attempt = Trial.attempt

    def counted(self: Trial, *arguments: object) -> object:
        after = attempt(self, *arguments)  # type: ignore[arg-type]
        left.append(self.left)
        return after

    monkeypatch.setattr(Trial, "attempt", counted)
    torch.manual_seed(0)
    checked(build(bad), width)
    assert 0 < len(left) <= PROBES
    assert min(left) >= 0


def test_a_fix_that_changes_nothing_or_does_not_help_is_not_given() -> None:
    class Refused(nn.Module):
        """NaN whatever the step is."""

        def __init__(self) -> None:
            super().__init__()
            self.inner, self.step = nn.Linear(8, 4), nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) * ((self.step - self.step) / (self.step - self.step))

    torch.manual_seed(0)
    (finding,) = heads(checked(Refused(), 8))
    assert finding.rule == "non-finite-activations"
    assert finding.fix is None
