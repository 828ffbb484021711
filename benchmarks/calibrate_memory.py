"""At which bias of its forget gates does an LSTM no longer learn to remember? A calibration of forget-gate-bias.

    python benchmarks/calibrate_memory.py [--write benchmarks/results/calibrate_memory.md]      # 1 minute

Nets      a table of 16, one LSTM of 48 units, a linear head; as PyTorch draws them, but for the forget gates' biases,
          which are ``bias`` in one of the two vectors and 0 in the other.
Task      random symbols, to be said again three steps later; training and labels as in ``benchmarks/training.py``.
Twin      the same net with a bias of 1.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from training import observe, tasks, tune

BIASES = (1.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -10.0, -20.0)
HIDDEN = 48


class Net(nn.Module):
    def __init__(self, bias: float) -> None:
        super().__init__()
        self.table, self.cell, self.head = nn.Embedding(8, 16), nn.LSTM(16, HIDDEN, batch_first=True), nn.Linear(48, 8)
        with torch.no_grad():
            self.cell.bias_ih_l0[HIDDEN : 2 * HIDDEN] = bias
            self.cell.bias_hh_l0[HIDDEN : 2 * HIDDEN] = 0.0

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.cell(self.table(x))[0])
        return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = tasks()["echo"]
    tuned = tune(partial(Net, 1.0), task)
    lines = ["# Forget gates by their bias\n"]
    lines.append("Written by `python benchmarks/calibrate_memory.py --write`; its docstring explains the words.\n")
    lines.append("| bias | gate | Adam | SGD | score, Adam | score, SGD | twin |\n|---|---|---|---|---|---|---|")
    for bias in BIASES:
        facts = observe(partial(Net, bias), task, tuned)
        gate = float(torch.sigmoid(torch.tensor(bias)))
        scores = " | ".join(f"{facts.scores[optimiser]:.2f}" for optimiser in ("adam", "sgd"))
        labels = " | ".join(facts.labels[optimiser] for optimiser in ("adam", "sgd"))
        lines.append(f"| {bias:g} | {gate:.2g} | {labels} | {scores} | {facts.twin:.2f} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        options.write.write_text(text)


if __name__ == "__main__":
    main()
