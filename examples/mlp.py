"""A small classifier in PyTorch: built with four typical mistakes, and repaired.

    initlint examples/mlp.py:broken
    initlint examples/mlp.py:repaired

The mistakes are those of broken_mlp.onnx, each in a layer of its own.
"""

from __future__ import annotations

import torch
from torch import nn


class Mlp(nn.Module):
    """Digits of 8 x 8 pixels in, ten logits out."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 10),
        )
        for layer in self.linear():
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def linear(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def repaired() -> Mlp:
    """He-normal weights and zero biases."""
    return Mlp()


def broken() -> Mlp:
    """Four mistakes in a row."""
    model = Mlp()
    first, second, third, fourth, _ = model.linear()
    nn.init.constant_(first.bias[16:], -10.0)  # a prior for rare classes, given to the wrong layer
    nn.init.normal_(second.weight, std=17.0)  # meant: 0.17
    nn.init.constant_(third.weight, 0.01)  # all units compute the same
    nn.init.zeros_(fourth.weight)  # zeros in a hidden layer
    return model
