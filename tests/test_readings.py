"""Why no output depends on a parameter: a buffer of zeros, a softmax over one value, a reading as a number."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import initlint
from initlint.plugin import Severity

FLAT = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
ROWS = torch.randn(32, 6, 8, generator=torch.Generator().manual_seed(0))
Told = list[tuple[Severity, str, str]]


def told(module: nn.Module, inputs: Tensor) -> Told:
    return [(each.severity, each.rule, each.address) for each in initlint.check(module, inputs).headlines]


class Gated(nn.Module):
    """Two branches, each multiplied by a gate of zero: in a buffer, as a parameter, or in one that training fills."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.branches, self.head = nn.ModuleList(nn.Linear(8, 8) for _ in range(2)), nn.Linear(8, 3)
        self.way = way
        for number in range(2):
            if way == "parameter":
                self.register_parameter(f"gate{number}", nn.Parameter(torch.zeros(1)))
            else:
                self.register_buffer(f"gate{number}", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        for number, branch in enumerate(self.branches):
            gate = getattr(self, f"gate{number}")
            if self.way == "filled" and self.training:
                gate.fill_(1.0)
            x = x + gate * torch.tanh(branch(x))
        return self.head(x)


def test_a_gate_in_a_buffer_that_nothing_raises_is_named() -> None:
    report = initlint.check(Gated("buffer"), FLAT)
    assert [(each.severity, each.rule, each.data["buffer"], each.data["others"]) for each in report.headlines] == [
        (Severity.NOTE, "unused-parameters", "gate0", 1),
        (Severity.NOTE, "unused-parameters", "gate1", 1),
    ]


@pytest.mark.parametrize("way", ["parameter", "filled"])
def test_a_gate_that_training_raises_is_fine(way: str) -> None:
    assert not told(Gated(way), FLAT)


class Scaled(nn.Module):
    """All that passes is multiplied by a buffer of a dtype of one's choice."""

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Linear(8, 16), nn.Linear(16, 3)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.first(x)) * self.scale)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_a_factor_of_zeros_that_nothing_passes_is_an_error_whatever_its_dtype(dtype: torch.dtype) -> None:
    found = told(Scaled(torch.full((16,), 0.25).to(torch.int64).to(dtype)), FLAT)
    assert (Severity.ERROR, "stuck-parameters", "first.weight") in found


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_a_factor_of_ones_is_fine(dtype: torch.dtype) -> None:
    assert not told(Scaled(torch.ones(16).to(dtype)), FLAT)


class Pooled(nn.Module):
    """Pools positions by scores that are normalised over ``axis``."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.map, self.score, self.head, self.axis = nn.Linear(8, 16), nn.Linear(16, 1), nn.Linear(16, 3), axis

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.map(x))
        return self.head((self.score(x).softmax(self.axis) * x).sum(1))


class Keyed(nn.Module):
    """Attention to as many keys as there are ``slots``."""

    def __init__(self, slots: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key, self.head, self.slots = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3), slots

    def forward(self, x: Tensor) -> Tensor:
        keys = self.key(x[:, : self.slots])
        return self.head((self.query(x) @ keys.transpose(1, 2)).softmax(-1) @ x[:, : self.slots])


SINGLE: list[tuple[Callable[[], nn.Module], Tensor, Told]] = [
    (lambda: Pooled(-1), ROWS, [(Severity.WARNING, "unused-parameters", "score.weight")]),
    (lambda: Pooled(1), ROWS, []),
    (lambda: Pooled(1), ROWS[:, :1], [(Severity.NOTE, "unused-parameters", "score.weight")]),
    (
        lambda: Keyed(1),
        ROWS,
        [(Severity.NOTE, "unused-parameters", "key.weight"), (Severity.NOTE, "unused-parameters", "query.weight")],
    ),
]


@pytest.mark.parametrize(("build", "inputs", "found"), SINGLE)
def test_a_softmax_over_one_value_is_told_unless_it_is_a_length_of_the_inputs(
    build: Callable[[], nn.Module], inputs: Tensor, found: Told
) -> None:
    assert told(build(), inputs) == found


class Numbered(nn.Module):
    """Multiplies by a parameter, or by what ``item`` says of it."""

    def __init__(self, item: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.scale, self.head, self.item = (
            nn.Linear(8, 16),
            nn.Parameter(torch.ones(())),
            nn.Linear(16, 3),
            item,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.first(x)) * (self.scale.item() if self.item else self.scale))


def test_a_parameter_that_is_read_as_a_number_is_told_so() -> None:
    (finding,) = initlint.check(Numbered(True), FLAT).headlines
    assert (finding.severity, finding.address) == (Severity.NOTE, "scale")
    assert "plain number" in finding.message
    assert not told(Numbered(False), FLAT)
