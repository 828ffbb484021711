"""Embedding, recurrence, linear head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .initialised import Built, seeded


class Recurrent(nn.Module):
    def __init__(self, cell: str, vocabulary: int, width: int, layers: int, bidirectional: bool, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        kind = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[cell]
        self.cell = kind(width, width, layers, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(width * (1 + bidirectional), classes)

    def forward(self, ids: Tensor) -> Tensor:
        states, _ = self.cell(self.embedding(ids))
        return self.head(states.mean(1))


@seeded
def lstm(vocabulary: int = 100, width: int = 32, layers: int = 1, bidirectional: bool = False) -> Built:
    """Embedding, LSTM and a linear head as torch draws them, forget-gate bias 1 (Jozefowicz et al. 2015)."""
    module = Recurrent("lstm", vocabulary, width, layers, bidirectional, 5)
    with torch.no_grad():
        for name, parameter in module.cell.named_parameters():
            if name.startswith("bias_ih"):
                parameter[width : 2 * width] = 1.0
    return module, (torch.randint(vocabulary, (16, 12)),)


@seeded
def gru(vocabulary: int = 100, width: int = 32, layers: int = 1, bidirectional: bool = False) -> Built:
    return Recurrent("gru", vocabulary, width, layers, bidirectional, 5), (torch.randint(vocabulary, (16, 12)),)


@seeded
def identity_rnn(vocabulary: int = 100, width: int = 32) -> Built:
    """Le et al. 2015: a ReLU recurrence that starts as the identity, input weights of std 0.001."""
    module = Recurrent("rnn", vocabulary, width, 1, False, 5)
    module.cell = nn.RNN(width, width, nonlinearity="relu", batch_first=True)
    nn.init.eye_(module.cell.weight_hh_l0)
    nn.init.normal_(module.cell.weight_ih_l0, std=0.001)
    nn.init.zeros_(module.cell.bias_ih_l0)
    nn.init.zeros_(module.cell.bias_hh_l0)
    return module, (torch.randint(vocabulary, (16, 12)),)
