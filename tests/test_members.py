"""A weight that several parameters make up: each of them is looked at under its own name, in modules and in files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

import initlint
from initlint.plugin import Severity
from initlint.report import Report


class Fused(nn.Module):
    """One product for queries, keys and values, as speed wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(16, 32), nn.Linear(32, 10)
        self.q, self.k, self.v = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = torch.cat([self.q.weight, self.k.weight, self.v.weight])
        bias = torch.cat([self.q.bias, self.k.bias, self.v.bias])
        q, k, v = linear(self.stem(x).relu(), weight, bias).chunk(3, -1)
        return self.head(torch.softmax(q @ k.mT / 32**0.5, -1) @ v)


class Stacked(nn.Module):
    """An ensemble whose members are multiplied at once."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(16, 32), nn.Linear(32, 10)
        self.experts = nn.ModuleList(nn.Linear(32, 24, bias=False) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = torch.stack([expert.weight for expert in self.experts])
        hidden = torch.einsum("bi,eoi->beo", self.stem(x).relu(), weight).relu()
        return self.head(torch.cat([hidden.mean(1), x[:, :8]], 1))


class Columns(nn.Module):
    """Parameters stored as (in, out) side by side: their rows are no consecutive values."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(16, 8) / 4), nn.Parameter(torch.randn(16, 24) / 4)
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((x @ torch.cat([self.a, self.b], 1)).relu())


class Merged(nn.Module):
    """A low-rank update that is added to the weight rather than to the output."""

    def __init__(self) -> None:
        super().__init__()
        self.base, self.head = nn.Linear(16, 32), nn.Linear(32, 10)
        self.down, self.up = nn.Linear(16, 4, bias=False), nn.Linear(4, 32, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.base.weight + self.up.weight @ self.down.weight
        return self.head(linear(x, weight, self.base.bias).relu())


def both(module: nn.Module, x: torch.Tensor, folder: Path) -> tuple[Report, Report]:
    """The reports of a module and of its export as it stands: an optimising exporter joins small tensors for good."""
    path = folder / "model.onnx"
    torch.onnx.export(module.eval(), (x,), path, dynamo=True, verbose=False, optimize=False)
    return initlint.check(module, x), initlint.check(path)


def layers(report: Report) -> list[tuple[str, tuple[int, ...]]]:
    return [(layer["tensor"], tuple(layer["shape"])) for layer in report.to_dict()["layers"]]


def told(report: Report, least: Severity = Severity.WARNING) -> list[tuple[str, str, Severity]]:
    return [(each.rule, each.address, each.severity) for each in report.findings if each.severity >= least]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_joined_projections_are_layers_of_their_own(tmp_path: Path) -> None:
    for report in both(Fused(), torch.randn(8, 6, 16), tmp_path):
        names = ["stem.weight", "q.weight", "k.weight", "v.weight", "head.weight"]
        assert [name for name, _ in layers(report)] == names
        assert not told(report)


def test_the_one_at_fault_is_named_and_mended(tmp_path: Path) -> None:
    module = Fused()
    nn.init.zeros_(module.v.weight)
    x = torch.randn(8, 6, 16)
    reports = both(module, x, tmp_path)
    for report in reports:
        assert ("zero-weights", "v.weight", Severity.ERROR) in told(report)
        assert all(each.caused_by or each.rule == "zero-weights" for each in report.findings)
    (finding,) = (each for each in reports[0].findings if each.rule == "zero-weights")
    assert finding.verified and finding.fix is not None and finding.fix.code is not None
    exec(finding.fix.code, {"model": module, "nn": nn})  # noqa: S102 - what initlint prints
    assert not told(initlint.check(module, x))


def test_a_nan_is_blamed_on_the_parameter_that_holds_it(tmp_path: Path) -> None:
    module = Fused()
    with torch.no_grad():
        module.k.weight[3, 4] = torch.nan
    for report in both(module, torch.randn(8, 6, 16), tmp_path):
        assert {address for _, address, _ in told(report)} == {"k.weight"}


def test_every_matrix_of_a_stack_is_a_layer(tmp_path: Path) -> None:
    module = Stacked()
    nn.init.zeros_(module.experts[2].weight)
    for report in both(module, torch.randn(8, 16), tmp_path):
        assert ("experts.2.weight", (24, 32)) in layers(report)
        assert [each[:2] for each in told(report)] == [("zero-weights", "experts.2.weight")]


def test_parts_of_rows_are_followed_through_the_layout(tmp_path: Path) -> None:
    module = Columns()
    nn.init.zeros_(module.b)
    for report in both(module, torch.randn(8, 16), tmp_path):
        assert [name for name, _ in layers(report)] == ["a", "b", "head.weight"]
        assert ("zero-weights", "b", Severity.ERROR) in told(report)
        assert not any(address == "a" for _, address, _ in told(report, Severity.NOTE))


def test_signals_are_those_of_a_member_alone() -> None:
    module = Fused()
    with torch.no_grad():
        module.k.weight.mul_(0.1)
        module.k.bias.mul_(0.1)
    x = torch.randn(8, 6, 16)
    signals = {layer["name"]: layer["signal"] for layer in initlint.check(module, x).to_dict()["layers"]}
    for name in ("q", "k", "v"):
        output = getattr(module, name)(module.stem(x).relu())
        assert signals[name]["rms"] == pytest.approx(float(output.detach().square().mean().sqrt()), rel=1e-4)


def test_a_mixture_has_the_name_of_its_weight_and_its_factors_are_looked_at(tmp_path: Path) -> None:
    module = Merged()
    x = torch.randn(8, 16)
    for report in both(module, x, tmp_path):
        assert layers(report)[0] == ("base.weight", (32, 16))
        assert not told(report)
    nn.init.zeros_(module.down.weight)
    for report in both(module, x, tmp_path):
        assert {each[:2] for each in told(report)} == {
            ("stuck-parameters", "down.weight"),
            ("stuck-parameters", "up.weight"),
        }


class Radial(nn.Module):
    """Distances to centres; an exporter writes them as one product of joined tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.centres, self.head = nn.Parameter(torch.randn(32, 16)), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.exp(-(torch.cdist(x, self.centres) ** 2) / 16))


def test_points_that_distances_are_taken_to_are_no_map(tmp_path: Path) -> None:
    for report in both(Radial(), torch.randn(8, 16), tmp_path):
        assert [name for name, _ in layers(report)] == ["head.weight"]
        assert not told(report)
        assert [each.at for each in report.not_checked] == ["centres"]
