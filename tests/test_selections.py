"""What a choice leaves out has no gradient for now; only what is shut off whatever the input can never learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import initlint
from initlint.plugin import Severity

Select = Callable[[Tensor, Tensor], Tensor]
FLAT = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))


class Selecting(nn.Module):
    """Selects between activations and a learned number ``level``."""

    def __init__(self, select: Select, level: float, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.level, self.head = nn.Linear(8, 32), nn.Parameter(torch.tensor(level)), nn.Linear(32, 4)
        self.select = select

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.select(self.first(x), self.level))


def pact(x: Tensor, level: Tensor) -> Tensor:
    """As in the paper: between 0 and the level."""
    return 0.5 * (x.abs() - (x - level).abs() + level)


def masked(x: Tensor, level: Tensor) -> Tensor:
    return x + (x > level) * (level - x)


def s_shaped(x: Tensor, level: Tensor) -> Tensor:
    """Beyond the level it goes on with a slope of the level's own, which starts at 1."""
    return torch.where(x >= level, level + (level / level.detach()) * (x - level), x)


OPEN: dict[str, tuple[Select, float]] = {
    "minimum": (lambda x, level: torch.minimum(x.relu(), level), 10.0),
    "of two": (torch.min, 10.0),
    "maximum": (torch.maximum, -10.0),
    "fmax": (torch.fmax, -10.0),
    "clamp": (lambda x, level: x.relu().clamp(max=level), 10.0),
    "where": (lambda x, level: torch.where(x > level, level, x.relu()), 10.0),
    "absolute": (pact, 10.0),
    "mask": (masked, 10.0),
    "own slope": (s_shaped, 10.0),
    "amax": (lambda x, level: torch.stack([x, level.expand_as(x)]).amax(0), -10.0),
    "max along an axis": (lambda x, level: torch.stack([x, level.expand_as(x)]).max(0).values, -10.0),
}
SHUT: dict[str, tuple[Select, float]] = {
    "minimum": (lambda x, level: torch.minimum(x.relu(), level), -1.0),
    "maximum": (torch.maximum, 30.0),
    "clamp": (lambda x, level: x.relu().clamp(max=level), -1.0),
    "where": (lambda x, level: torch.where(x < level, level, x), 30.0),
}


def errors(target: nn.Module | Path, inputs: Tensor | None = None) -> list[tuple[str, str]]:
    report = initlint.check(target, inputs)
    return [(each.rule, each.address) for each in report.headlines if each.severity is not Severity.NOTE]


def exported(module: nn.Module, folder: Path) -> Path:
    program = torch.onnx.export(module.eval(), (FLAT,), dynamo=True, optimize=False, verbose=False)
    assert program is not None
    program.save(folder / "model.onnx")
    return folder / "model.onnx"


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_level_that_values_may_grow_to_is_not_stuck(name: str, seed: int) -> None:
    report = initlint.check(Selecting(*OPEN[name], seed), FLAT)
    assert not report.headlines


@pytest.mark.parametrize("name", ["minimum", "clamp", "where", "absolute", "amax"])
def test_nor_is_it_in_a_file_where_it_is_far_out(name: str, tmp_path: Path) -> None:
    assert not errors(exported(Selecting(OPEN[name][0], 100 * OPEN[name][1]), tmp_path))


@pytest.mark.parametrize("name", SHUT)
@pytest.mark.parametrize("file", [False, True], ids=["module", "file"])
def test_what_a_level_shuts_off_for_every_input_is_stuck(name: str, file: bool, tmp_path: Path) -> None:
    module = Selecting(*SHUT[name])
    found = errors(exported(module, tmp_path)) if file else errors(module, FLAT)
    assert found == [("stuck-parameters", "first.bias"), ("stuck-parameters", "first.weight")]


def test_a_step_of_quantisation_above_all_values_holds_what_comes_behind_it() -> None:
    def quantised(x: Tensor, step: Tensor) -> Tensor:
        scaled = x / step
        return (scaled + (scaled.round() - scaled).detach()) * step

    assert ("stuck-parameters", "head.weight") in errors(Selecting(quantised, 1000.0), FLAT)
    assert not errors(Selecting(quantised, 0.1), FLAT)


class Segments(nn.Module):
    """Words, and the segments they belong to; ``scale`` multiplies what is known of the segments."""

    def __init__(self, scale: float = 1.0, padding: int | None = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.segments = nn.Embedding(50, 16), nn.Embedding(2, 16, padding_idx=padding)
        self.register_buffer("scale", torch.tensor(scale))
        self.head = nn.Linear(16, 3)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.words(words) + (self.segments(torch.zeros_like(words)) * self.scale).clamp(min=-50))


WORDS = torch.randint(0, 50, (8, 10), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("padding", [0, -2, None])
def test_a_table_of_which_only_the_padding_was_looked_up_is_not_stuck(padding: int | None) -> None:
    assert not initlint.check(Segments(padding=padding), WORDS).headlines


def test_a_table_behind_a_clamp_that_no_row_reaches_is_stuck() -> None:
    module = Segments()
    with torch.no_grad():
        module.segments.weight.fill_(-2000.0)
    assert ("stuck-parameters", "segments.weight") in errors(module, WORDS)
