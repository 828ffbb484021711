"""Recurrent weights: large ones take off or saturate, small ones only forget."""

from __future__ import annotations

import torch
from models import gru, identity_rnn, lstm
from models.altered import altered
from models.initialised import Built, seeded
from models.recurrent import Recurrent
from torch import nn

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
LEGACY = ("legacy",)
HIDDEN = "cell.weight_hh_l0"


def radius(value: float) -> object:
    def change(module: nn.Module) -> None:
        module.cell.weight_hh_l0.normal_(std=value / 32**0.5)

    return change


@seeded
def rnn(length: int = 12) -> Built:
    return Recurrent("rnn", 100, 32, 1, False, 5), (torch.randint(100, (16, length)),)


@cases(
    Good("LSTM as torch draws it", lstm, notes_ok=False, exporters=LEGACY),
    Good("GRU as torch draws it", gru, notes_ok=False, exporters=LEGACY),
    Good("identity", identity_rnn, notes_ok=False, exporters=LEGACY),
    Good("near miss: tanh, 1.5", altered(rnn, radius(1.5)), notes_ok=False, exporters=LEGACY),
    Good("near miss: LSTM, 3", altered(lstm, radius(3.0)), notes_ok=False, exporters=LEGACY),
    Good("near miss: no memory at first", altered(rnn, radius(0.01)), notes_ok=False, exporters=LEGACY),
    Good("near miss: two steps", altered(rnn, radius(4.0), length=2), exporters=LEGACY),
    Bad("tanh, 4", altered(rnn, radius(4.0)), [HIDDEN], ERROR, LEGACY),
    Bad("ReLU, 4", altered(identity_rnn, radius(4.0)), [HIDDEN], ERROR, LEGACY),
    Bad("LSTM, 6", altered(lstm, radius(6.0)), [HIDDEN], WARNING, LEGACY),
    Bad("GRU, 10", altered(gru, radius(10.0)), [HIDDEN], ERROR, LEGACY),
)
def test_recurrent_radius(case: Case) -> None:
    check("recurrent-radius", case, seeds=(0,))
