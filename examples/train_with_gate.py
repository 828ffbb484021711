"""A training script that refuses to start when the model will not train.

    python examples/train_with_gate.py             trains a classifier of generated data
    python examples/train_with_gate.py --broken    the same with a mistake in its initialisation: stopped, exit status 1

Needs PyTorch. The gate is the one line with ``initlint.gate``; without a fault it changes nothing about the run.
"""

from __future__ import annotations

import argparse
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import initlint


def build(broken: bool) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    if broken:
        nn.init.zeros_(model[2].weight)
        nn.init.constant_(model[2].bias, -1.0)  # the ReLU behind it is off, and stays off
    return model


def samples() -> TensorDataset:
    """Four classes: in which quadrant the first two of sixteen numbers lie."""
    x = torch.randn(2048, 16)
    return TensorDataset(x, (x[:, 0] > 0) + 2 * (x[:, 1] > 0))


def main(broken: bool, epochs: int) -> None:
    torch.manual_seed(0)
    model, data, criterion = build(broken), samples(), nn.CrossEntropyLoss()
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)

    initlint.gate(model, data[:64], criterion)

    for epoch in range(epochs):
        for x, y in DataLoader(data, batch_size=64, shuffle=True):
            optimiser.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimiser.step()
        print(f"epoch {epoch}: loss {loss.item():.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--broken", action="store_true", help="start with a mistake")
    parser.add_argument("--epochs", type=int, default=5)
    chosen = parser.parse_args()
    try:
        main(chosen.broken, chosen.epochs)
    except initlint.FindingsError as refusal:
        sys.exit(str(refusal))
