"""How loud may the outputs of a residual net without norms start? A calibration of exploding-signal.

    python benchmarks/calibrate_residual.py [--write benchmarks/results/calibrate_residual.md]      # 4 minutes

Nets      64 -> 48, ``blocks`` of x + W2 relu(W1 x), -> 10; He's weights, zero biases. The healthy twin divides W2 by
          the root of the number of blocks.
Faults    W1 and W2 of every block times g, without the division.
Training  ``training.py``, on the flat digits; as in ``truth/labels.py`` an optimiser with which the twin stays below
          0.5 is left out.
Ratio     rms of the logits of the first 32 samples, over that of the inputs or 1, where that is larger.

Factors were chosen so that the ratios lie between 10 and 10,000; outcomes at some of them had been seen when that of
the others was not.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from side_by_side import bands
from torch import Tensor, nn
from training import LABELS, MARGIN, observe, tasks, tune
from truth.labels import LEARNS

WIDTH = 48
FACTORS = {1: (3.0, 5.0, 8.0), 2: (1.5, 2.0, 3.0, 5.0), 3: (1.3, 1.5, 1.7, 2.0, 2.5), 4: (1.0, 1.2, 1.3, 1.4, 1.7, 2.0)}
FACTORS |= {6: (1.0, 1.1, 1.2, 1.3, 1.5), 8: (0.9, 1.0, 1.05, 1.1, 1.2, 1.3), 12: (0.8, 0.9, 0.95, 1.0, 1.05)}


class Block(nn.Module):
    def __init__(self, scale: float, end: float) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        for layer, factor in ((self.fc1, scale), (self.fc2, scale * end)):
            nn.init.normal_(layer.weight, std=factor * math.sqrt(2.0 / WIDTH))
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(torch.relu(self.fc1(x)))


def net(blocks: int, scale: float = 1.0, end: float = 1.0) -> nn.Module:
    embed, head = nn.Linear(64, WIDTH), nn.Linear(WIDTH, 10)
    for layer in (embed, head):
        nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(embed, *(Block(scale, end) for _ in range(blocks)), head)


@dataclass(frozen=True)
class Outcome:
    blocks: int
    ratio: float
    verdicts: dict[str, str]
    better: str


def study(blocks: int) -> Iterator[Outcome]:
    task = tasks()["flat"]
    tuned = tune(lambda: net(blocks, end=blocks**-0.5), task)
    for g in FACTORS[blocks]:
        torch.manual_seed(0)
        with torch.no_grad():
            rms = float(net(blocks, g)(*task.sample).square().mean().sqrt())
        ratio = rms / max(1.0, float(task.sample[0].square().mean().sqrt()))
        facts = observe(lambda g=g: net(blocks, g), task, tuned)
        counted = [facts.labels[name] for name, target in tuned.targets.items() if target + MARGIN >= LEARNS]
        print(f"# {blocks} blocks, {g:g}: {ratio:.3g} {facts.scores} of {tuned.best:.2f}", flush=True)
        yield Outcome(blocks, ratio, dict(facts.labels), min(counted, key=LABELS.index))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", type=Path, help="also write the tables to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    outcomes = [outcome for blocks in FACTORS for outcome in study(blocks)]
    lines = [
        "# How loud residual nets may start",
        "",
        "Written by `benchmarks/calibrate_residual.py`, whose docstring is",
    ]
    lines += ["the protocol.", ""]
    for title, chosen in (("one and two blocks", (1, 2)), ("three blocks and more", (3, 4, 6, 8, 12))):
        mine = [outcome for outcome in outcomes if outcome.blocks in chosen]
        lines += [f"## {title}", "", *bands(mine, lambda o: o.ratio, (0, 10, 30, 100, 300, 1e3, 1e4, 1e6), "ratio")]
    text = "\n".join(lines).rstrip() + "\n"
    print(text)
    if arguments.write:
        arguments.write.write_text(text)


if __name__ == "__main__":
    main()
