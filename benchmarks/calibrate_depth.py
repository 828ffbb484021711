"""What is left of the signal, and how many layers have lost it: which nets train? A calibration of vanishing-signal.

    python benchmarks/calibrate_depth.py [--write benchmarks/results/calibrate_depth.md]      # 4 minutes

Protocol  that of ``training.py``: rates tuned on the healthy twin, Adam and SGD, 160 steps, its labels.
Nets      MLPs on digits, He's weights and zero biases, all hidden layers times one factor, so that a ``goal`` of the
          signal is about left at the last of them; measured is what is left, as vanishing-signal measures it.

Depths and goals were fixed before any outcome was seen, but for depths 8, 12 and 16 of ReLU nets.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn
from training import observe, tasks, tune
from truth.blocks import mlp

from initlint.paths import spreads_along
from initlint.probe.on_torch import TorchSession
from initlint.settings import ProbeSettings

FUNCTIONS = {"relu": nn.ReLU, "gelu": nn.GELU}
DEPTHS = (6, 8, 10, 12, 16)
GOALS = (1e-4, 3e-4, 1e-3, 3e-3)
WIDTH = 64


def net(function: type[nn.Module], depth: int, factor: float) -> nn.Sequential:
    made = mlp(64, *[WIDTH] * depth, 10, act=function)
    layers = [each for each in made if isinstance(each, nn.Linear)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    for layer in layers[:-1]:
        layer.weight.data.mul_(factor)
    return made


def left(module: nn.Module) -> float:
    with TorchSession(module, tasks()["flat"].sample, {}) as session:
        (path, spreads), *_ = spreads_along(session.model, session.probe(ProbeSettings()))
    return spreads[-1] / path.entry


def rows() -> Iterator[str]:
    yield "# What is left of the signal after how many layers\n"
    yield "Written by `python benchmarks/calibrate_depth.py --write`; its docstring explains the words.\n"
    yield "| net | layers | left | Adam | SGD | twin |\n|---|---|---|---|---|---|"
    for name, function in FUNCTIONS.items():
        for depth in DEPTHS:
            tuned = tune(partial(net, function, depth, 1.0), tasks()["flat"])
            for goal in GOALS:
                build = partial(net, function, depth, goal ** (1 / depth))
                facts = observe(build, tasks()["flat"], tuned)
                torch.manual_seed(0)
                marks = " | ".join(f"{label} ({facts.scores[each]:.2f})" for each, label in facts.labels.items())
                yield f"| {name} | {depth} | {left(build()):.2g} | {marks} | {facts.twin:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    for line in rows():
        print(line, flush=True)
        lines.append(line)
    if options.write:
        options.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
