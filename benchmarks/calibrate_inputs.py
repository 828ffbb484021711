"""From which scale on do inputs keep a network from training? A calibration of input-scale.

    python benchmarks/calibrate_inputs.py [--write benchmarks/results/calibrate_inputs.md]      # 8 minutes

Nets      as ``NETS`` says, on digits as vectors, images or rows, as PyTorch draws them, or by He's or Xavier's scheme.
Inputs    the digits of ``training.tasks``, centred and of standard deviation 1, times a ``factor``; and pixels as they
          are stored: the same plus ``OFFSET`` before the factor, so that nearly all are positive.
Training  and labels as in ``benchmarks/training.py``; the twin is the same net on the inputs of factor 1 and offset 0.
Flat      the largest share of pre-activations in front of a bounded function that lie where it is flat.

Nets, factors and offset were fixed before any outcome was seen.
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from training import LABELS, Facts, Task, observe, tasks, tune

import initlint

FACTORS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
OFFSET = 1.8
"""Of the standard deviation: pixels of photographs have a mean of about 120 and a standard deviation of about 65."""


def mlp(function: type[nn.Module], depth: int, norm: bool = False, scheme: str = "") -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(64, 64), *([nn.BatchNorm1d(64)] if norm else []), function()]
    return schemed(nn.Sequential(*layers, nn.Linear(64, 10)), scheme)


def convolutional(function: type[nn.Module], norm: bool = False) -> nn.Module:
    layers: list[nn.Module] = []
    for channels in (1, 16, 32):
        layers += [nn.Conv2d(channels, max(16, 2 * channels), 3, padding=1)]
        layers += [*([nn.BatchNorm2d(max(16, 2 * channels))] if norm else []), function(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 10))


class Rows(nn.Module):
    """A recurrence, or an encoder, over the rows of an image."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.embed = nn.Linear(8, 48)
        layer = nn.TransformerEncoderLayer(48, 4, 96, 0.0, batch_first=True, norm_first=kind == "pre-norm")
        self.body = nn.LSTM(48, 48, batch_first=True) if kind == "lstm" else nn.TransformerEncoder(layer, 2)
        self.norm = nn.LayerNorm(48)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(self.embed(x))
        return self.head(out[0][:, -1]) if self.kind == "lstm" else self.head(self.norm(out.mean(1)))


def schemed(net: nn.Module, scheme: str) -> nn.Module:
    for layer in net.modules():
        if scheme and isinstance(layer, nn.Linear):
            draw = nn.init.kaiming_normal_ if scheme == "he" else nn.init.xavier_normal_
            draw(layer.weight)
            nn.init.zeros_(layer.bias)
    return net


NETS: Mapping[str, tuple[str, Callable[[], nn.Module]]] = {
    "relu-2": ("flat", partial(mlp, nn.ReLU, 2)),
    "relu-2, He": ("flat", partial(mlp, nn.ReLU, 2, scheme="he")),
    "relu-5, He": ("flat", partial(mlp, nn.ReLU, 5, scheme="he")),
    "gelu-3, He": ("flat", partial(mlp, nn.GELU, 3, scheme="he")),
    "silu-3": ("flat", partial(mlp, nn.SiLU, 3)),
    "tanh-1": ("flat", partial(mlp, nn.Tanh, 1)),
    "tanh-3": ("flat", partial(mlp, nn.Tanh, 3)),
    "tanh-3, Xavier": ("flat", partial(mlp, nn.Tanh, 3, scheme="xavier")),
    "sigmoid-1": ("flat", partial(mlp, nn.Sigmoid, 1)),
    "sigmoid-2, Xavier": ("flat", partial(mlp, nn.Sigmoid, 2, scheme="xavier")),
    "batch norm, relu-3": ("flat", partial(mlp, nn.ReLU, 3, norm=True)),
    "convolutions, relu": ("image", partial(convolutional, nn.ReLU)),
    "convolutions, tanh": ("image", partial(convolutional, nn.Tanh)),
    "convolutions, batch norm": ("image", partial(convolutional, nn.ReLU, norm=True)),
    "lstm": ("rows", partial(Rows, "lstm")),
    "encoder, pre-norm": ("rows", partial(Rows, "pre-norm")),
    "encoder, post-norm": ("rows", partial(Rows, "post-norm")),
}


@dataclass(frozen=True)
class Outcome:
    net: str
    factor: float
    offset: float
    rms: float
    flat: float
    facts: Facts


def scaled(task: Task, factor: float, offset: float) -> Task:
    one, other = (tuple((each + offset) * factor for each in part) for part in (task.train, task.test))
    return replace(task, train=one, test=other)


def flat_share(build: Callable[[], nn.Module], task: Task) -> float:
    torch.manual_seed(0)
    report = initlint.check(build(), task.sample)
    return max((layer.signal.saturated for layer in report.layers if layer.signal is not None), default=0.0)


def outcomes() -> Iterator[Outcome]:
    for name, (kind, build) in NETS.items():
        task = tasks()[kind]
        tuned = tune(build, task)
        for factor, offset in itertools.product(FACTORS, (0.0, OFFSET)):
            given = scaled(task, factor, offset)
            rms = float(given.train[0].square().mean().sqrt())
            yield Outcome(name, factor, offset, rms, flat_share(build, given), observe(build, given, tuned))


def told(found: list[Outcome]) -> Iterator[str]:
    yield "# Inputs by their scale\n"
    yield "Written by `python benchmarks/calibrate_inputs.py --write`; its docstring explains the words.\n"
    yield "| net | factor | offset | rms | flat | Adam | SGD | score | twin |\n|---|---|---|---|---|---|---|---|---|"
    for each in found:
        labels, facts = each.facts.labels, each.facts
        score = max(facts.scores.values())
        yield (
            f"| {each.net} | {each.factor:g} | {each.offset:g} | {each.rms:.3g} | {each.flat:.2f} | {labels['adam']} "
            f"| {labels['sgd']} | {score:.2f} | {facts.twin:.2f} |"
        )
    yield "\n| rms | nets | better: trains | slow | fails | Adam fails | SGD fails |\n|---|---|---|---|---|---|---|"
    edges = (2.0, 5.0, 15.0, 50.0, 150.0, 500.0, 5000.0)
    for norm in (False, True):
        for low, high in itertools.pairwise(edges):
            inside = [each for each in found if low <= each.rms < high and ("batch norm" in each.net) == norm]
            better = Counter(each.facts.better for each in inside)
            fails = [sum(each.facts.labels[optimiser] == "fails" for each in inside) for optimiser in ("adam", "sgd")]
            numbers = " | ".join(map(str, (len(inside), *(better[label] for label in LABELS), *fails)))
            yield f"| {low:g} .. {high:g}{', batch norm first' if norm else ''} | {numbers} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for outcome in outcomes():
        found.append(outcome)
        print(
            outcome.net, outcome.factor, outcome.offset, dict(outcome.facts.labels), f"{outcome.flat:.2f}", flush=True
        )
    text = "\n".join(told(found)) + "\n"
    print(text)
    if options.write:
        options.write.write_text(text)


if __name__ == "__main__":
    main()
