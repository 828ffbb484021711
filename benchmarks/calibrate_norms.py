"""Which gains of norms in series train? A calibration of zero-norm-gain.

    python benchmarks/calibrate_norms.py [--write benchmarks/results/calibrate_norms.md]      # 5 minutes

Nets      scikit-learn's digits. Rows of Linear, norm, ReLU, 64 wide, with layer or batch norms; post-norm transformer
          encoders, 48 wide, over the rows of an image. PyTorch's default weights and biases.
Faults    every gain of every norm constant (c) or drawn from N(0, std) (N).
Training  160 steps of 32 samples, Adam and SGD with momentum, the better of two rates for the net with gains of one.
Spread    standard deviation over 64 inputs of what the last norm gives.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

RATES = {"adam": (3e-3, 1e-2), "sgd": (1e-2, 1e-1)}
GAINS = tuple((kind, size) for kind in "cN" for size in (1.0, 0.3, 0.1, 0.02))
TRAIN = 1437


class Net(nn.Module):
    def __init__(self, kind: str, depth: int, gain: tuple[str, float]) -> None:
        super().__init__()
        self.embed, self.head = (nn.Linear(8, 48), nn.Linear(48, 10)) if kind == "post" else (None, nn.Linear(64, 10))
        norm = nn.BatchNorm1d if kind == "batch" else nn.LayerNorm
        blocks = [nn.Sequential(nn.Linear(64, 64), norm(64), nn.ReLU()) for _ in range(depth)]
        layer = nn.TransformerEncoderLayer(48, 4, 96, 0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, depth) if kind == "post" else nn.Sequential(*blocks)
        for each in list(self.modules()):
            if isinstance(each, norm):
                self.last = each
                with torch.no_grad():
                    nn.init.normal_(each.weight, std=gain[1]) if gain[0] == "N" else each.weight.fill_(gain[1])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x) if self.embed is None else self.body(self.embed(x.view(-1, 8, 8))).mean(1))


def trained(net: tuple[str, int, tuple[str, float]], optimiser: str, rate: float) -> tuple[float, float]:
    """Spread behind the last norm, and accuracy on samples that were held out."""
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32), torch.tensor(digits.target)
    x = (x - x.mean(0)) / 6.0
    torch.manual_seed(0)
    model, drawn, seen = Net(*net), torch.Generator().manual_seed(0), []
    hook = model.last.register_forward_hook(lambda module, inputs, output: seen.append(output))
    model(x[:64])
    hook.remove()
    spread = float((seen[0] - seen[0].mean(0)).detach().square().mean().sqrt())
    kinds = {"adam": torch.optim.Adam(model.parameters(), rate), "sgd": torch.optim.SGD(model.parameters(), rate, 0.9)}
    for _ in range(160):
        batch = torch.randint(TRAIN, (32,), generator=drawn)
        kinds[optimiser].zero_grad()
        functional.cross_entropy(model(x[batch]), y[batch]).backward()
        kinds[optimiser].step()
    with torch.no_grad():
        return spread, float((model.eval()(x[TRAIN:]).argmax(-1) == y[TRAIN:]).float().mean())


def rows(kind: str, depth: int) -> list[str]:
    rates = {o: max(r, key=lambda rate, o=o: trained((kind, depth, GAINS[0]), o, rate)[1]) for o, r in RATES.items()}
    told = []
    for gain in GAINS:
        found = {o: trained((kind, depth, gain), o, rate) for o, rate in rates.items()}
        scores = " | ".join(f"{score:.2f}" for _, score in found.values())
        told.append(f"| {kind} | {depth} | {gain[0]} {gain[1]:g} | {found['adam'][0]:.1e} | {scores} |")
        print(told[-1], flush=True)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", type=Path, help="also write the table to this file")
    arguments = parser.parse_args()
    head = ["| net | depth | gains | spread behind the last norm | Adam | SGD |", "|---|---|---|---|---|---|"]
    table = [*head, *(row for kind in ("layer", "batch", "post") for depth in (2, 4, 6) for row in rows(kind, depth))]
    title = (
        "# Gains of norms in series\n\nWritten by `benchmarks/calibrate_norms.py`, whose docstring is the protocol.\n"
    )
    if arguments.write:
        arguments.write.write_text(title + "\n" + "\n".join(table) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
