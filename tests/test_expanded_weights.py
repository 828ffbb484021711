"""A parameter that is expanded over the batch is one matrix, not one per sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import initlint
from initlint.plugin import Severity


class Memory(nn.Module):
    """Slots that every sample reads and writes in a copy of its own, as of a neural Turing machine."""

    def __init__(self, slots: Tensor) -> None:
        super().__init__()
        self.slots = nn.Parameter(slots)
        self.key, self.write, self.head = nn.Linear(8, 32), nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        memory = self.slots.expand(len(x), -1, -1)
        for step in x.unbind(1):
            share = (memory @ self.key(step)[..., None]).softmax(1)
            memory = memory + share * torch.tanh(self.write(step))[:, None]
        return self.head((memory * share).sum(1))


def checked(slots: Tensor) -> initlint.Report:
    return initlint.check(Memory(slots), torch.randn(16, 5, 8))


def test_slots_that_start_equal_stay_so_and_are_counted_once() -> None:
    torch.manual_seed(0)
    report = checked(torch.full((8, 32), 0.1))
    (found,) = (each for each in report.findings if each.severity is Severity.ERROR)
    assert (found.rule, found.address) == ("constant-weights", "slots")
    assert found.message == "all 256 weights are 0.1, and 7 of its 8 units stay equal"


def test_slots_that_differ_are_one_matrix() -> None:
    torch.manual_seed(0)
    report = checked(torch.randn(8, 32) / 4)
    assert report.parameters == 8 * 32 + 2 * (8 * 32 + 32) + 4 * 32 + 4
    assert [each for each in report.findings if each.severity > Severity.NOTE] == []
