"""Message passing: two maps of every round side by side, so that each leads around the other."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from .initialised import Built, he, seeded


class Messages(nn.Module):
    """relu(A x W + x U) on a ring of eight nodes, read as a whole."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        ring = torch.eye(8).roll(1, 0)
        self.near: Tensor
        self.register_buffer("near", (ring + ring.T) / 2)
        widths = [4, *(16 for _ in range(depth))]
        self.messages = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(widths))
        self.own = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.head = nn.Linear(8 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        for message, own in zip(self.messages, self.own, strict=True):
            x = torch.relu(message(self.near @ x) + own(x))
        out: Tensor = self.head(x.flatten(1))
        return out


@seeded
def messages(depth: int = 3) -> Built:
    module = Messages(depth)
    module.apply(he)
    with torch.no_grad():
        for each in (*module.messages, *module.own):
            each.weight.mul_(0.7)  # two of them add up
    return module, (torch.randn(32, 8, 4),)


def scaled(module: Messages, factor: float) -> None:
    for each in (*module.messages, *module.own):
        each.weight.mul_(factor)


def emptied(module: Messages, rounds: int) -> None:
    """The last ``rounds`` of them start at zero, their biases as PyTorch draws them."""
    for each in (*module.messages[-rounds:], *module.own[-rounds:]):
        each.weight.zero_()
        if each.bias is not None:
            nn.init.uniform_(each.bias, -0.25, 0.25)


def shut(module: Messages, bias: float) -> None:
    for each in module.own:
        each.bias.fill_(bias)
