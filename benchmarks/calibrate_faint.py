"""Outputs that are too faint to move, and noise of training that drowns them. A calibration of two rules.

    python benchmarks/calibrate_faint.py [--write benchmarks/results/calibrate_faint.md]      # 4 minutes

Nets      MLPs on digits as vectors, three or five layers of 64 units, by He's or Xavier's scheme.
Faint     the outputs times a constant ``factor``; measured is what unmoved-outputs does.
Noise     noisy layers (Fortunato et al. 2018, independent noise) whose sigma is ``factor`` over the root of the
          fan-in, in training mode alone; measured is the share of training-noise.
Training  and labels as in ``benchmarks/training.py``; the twin has a factor of 1, or no noise.

Nets and factors were fixed before any outcome was seen.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from calibrate_inputs import mlp
from torch import Tensor, nn
from torch.nn import functional
from training import observe, tasks, tune

from initlint.plugin import Context
from initlint.probe.on_torch import TorchSession
from initlint.probe.signals import Signals
from initlint.rules.unmoved_outputs import Options, outputs_moved
from initlint.settings import ProbeSettings

FAINT = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8)
NOISE = (0.5, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 300.0, 1000.0)
NETS = (("relu 3", nn.ReLU, 3, "he"), ("gelu 5", nn.GELU, 5, "he"), ("tanh 3", nn.Tanh, 3, "xavier"))


class Faint(nn.Module):
    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * self.factor


class Noisy(nn.Module):
    """A linear map whose weights get noise while it is trained."""

    def __init__(self, inner: nn.Linear, factor: float) -> None:
        super().__init__()
        self.inner = inner
        self.sigma = nn.Parameter(torch.full_like(inner.weight, factor / math.sqrt(inner.in_features)))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.inner.weight
        if self.training:
            weight = weight + self.sigma * torch.randn_like(weight)
        return functional.linear(x, weight, self.inner.bias)


def faint(function: type[nn.Module], depth: int, scheme: str, factor: float) -> nn.Module:
    return Faint(mlp(function, depth, scheme=scheme), factor)


def noisy(function: type[nn.Module], depth: int, scheme: str, factor: float) -> nn.Module:
    layers = [
        Noisy(each, factor) if isinstance(each, nn.Linear) else each for each in mlp(function, depth, scheme=scheme)
    ]
    return nn.Sequential(*layers)


def measured(net: nn.Module) -> tuple[Context, Signals]:
    with TorchSession(net, tasks()["flat"].sample, {}) as session:
        signals = session.probe(ProbeSettings(backward=True, liveness=True))
        return Context(session.model, session.stats(), signals), signals


def rows() -> Iterator[str]:
    yield "# Outputs too faint to move, and noise that drowns them\n"
    yield "Written by `python benchmarks/calibrate_faint.py --write`; its docstring explains the words.\n"
    yield "| kind | net | factor | measured | Adam | SGD | twin |\n|---|---|---|---|---|---|---|"
    for name, function, depth, scheme in NETS:
        kinds: tuple[tuple[str, Callable[..., nn.Module], float, tuple[float, ...]], ...] = (
            ("faint", faint, 1.0, FAINT),
            ("noise", noisy, 0.0, NOISE),
        )
        for kind, build, healthy, factors in kinds:
            tuned = tune(partial(build, function, depth, scheme, healthy), tasks()["flat"])
            for factor in factors:
                make = partial(build, function, depth, scheme, factor)
                facts = observe(make, tasks()["flat"], tuned)
                torch.manual_seed(0)
                context, signals = measured(make())
                noise = signals.training_noise
                value = outputs_moved(context, Options()) if kind == "faint" else noise.share if noise else math.nan
                marks = " | ".join(f"{label} ({facts.scores[each]:.2f})" for each, label in facts.labels.items())
                yield f"| {kind} | {name} | {factor:g} | {value:.2g} | {marks} | {facts.twin:.2f} |"


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
