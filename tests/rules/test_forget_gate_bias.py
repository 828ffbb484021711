"""Forget gates at one half are worth a note; biases of one, in either tensor, and other recurrences are not."""

from __future__ import annotations

from functools import partial

import torch
from models import Built, gru, lstm, relu_mlp
from models.altered import altered

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

WARNING, NOTE = Severity.WARNING, Severity.NOTE
LEGACY = ("legacy",)


def default(seed: int = 0) -> Built:
    """As torch draws it."""
    return altered(lstm, lambda m: [each.uniform_(-0.18, 0.18) for each in _biases(m)])(seed)


def _biases(module: torch.nn.Module) -> list[torch.Tensor]:
    return [p for name, p in module.named_parameters() if "bias_" in name]


def halves(module: torch.nn.Module) -> None:
    """Half of the idiom in each of the two tensors."""
    for each in _biases(module):
        each.zero_()[32:64] = 0.5


def chrono(module: torch.nn.Module) -> None:
    """Tallec & Ollivier 2018: logs of the lengths to be remembered."""
    module.cell.bias_ih_l0[32:64] = torch.linspace(1, 100, 32).log()


def forgetful(module: torch.nn.Module, bias: float) -> None:
    module.cell.bias_ih_l0[32:64] = bias


def wrong_order(module: torch.nn.Module) -> None:
    """-5 was meant for another gate, in another order."""
    for each in _biases(module):
        each.zero_()
    forgetful(module, -5.0)


def scattered(module: torch.nn.Module) -> None:
    """Some units forget, and others do not."""
    module.cell.bias_ih_l0[32:64] = torch.linspace(-8, 1, 32)


@cases(
    Good("a bias of 1", lstm, notes_ok=False, exporters=LEGACY),
    Good("no recurrence", relu_mlp, notes_ok=False, exporters=LEGACY),
    Good("near miss: half in each of the two", altered(lstm, halves), notes_ok=False, exporters=LEGACY),
    Good("near miss: chrono initialisation", altered(lstm, chrono), notes_ok=False, exporters=LEGACY),
    Good("near miss: a GRU", gru, notes_ok=False, exporters=LEGACY),
    Good("near miss: a bias of its own for each unit", altered(lstm, scattered), notes_ok=False, exporters=LEGACY),
    Bad("below zero", altered(lstm, partial(forgetful, bias=-1.0)), ["cell.bias_ih_l0[f]"], NOTE, exporters=()),
    Bad("shut", altered(lstm, wrong_order), ["cell.bias_ih_l0[f]"], WARNING, exporters=LEGACY),
    Bad("shut for good", altered(lstm, partial(forgetful, bias=-1e4)), ["cell.bias_ih_l0[f]"], WARNING, exporters=()),
    Bad("torch's default", default, ["cell.bias_ih_l0[f]"], NOTE, exporters=()),
)
def test_forget_gate_bias(case: Case) -> None:
    check("forget-gate-bias", case, seeds=(0,))
