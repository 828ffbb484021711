"""Which biases, attentions and weights in front of norms still train? A calibration of the rules about them.

    python benchmarks/calibrate_bias.py [--quick] [--cache FILE] [--write benchmarks/results/calibrate_bias.md]

Protocol  that of ``training.py``: rates tuned on the healthy twin, Adam and SGD, 160 steps, its labels.
Families  ``bias``: MLPs 64 -> 64 -> ... -> 10, He or Xavier weights, the middle hidden layer's bias drawn from
          N(0, b^2) (``drawn``) or set to +b (``same``); the size is b over the std over the batch of W x (``ratio``).
          ``normed bias``: the same with a layer norm behind the biased layer.
          ``attention``: one or three blocks of width 32, four heads, pre-norm (``residual``) or attention alone, twice,
          with nothing around it (``bare``); query and key weights times g; measured is the mean entropy of the rows.
          ``norm``: MLPs with batch norm, all maps (``all``) or the middle one (``one``) in front of a norm times g.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from models.attention import Attention, Block
from models.initialised import he, xavier
from models.plain import mlp
from torch import nn
from training import observe, tasks, tune

from initlint.probe.on_torch import TorchSession
from initlint.probe.signals import Signals
from initlint.settings import ProbeSettings

RECIPES = {
    "relu": (nn.ReLU, he), "gelu": (nn.GELU, he), "tanh": (nn.Tanh, xavier), "sigmoid": (nn.Sigmoid, xavier),
}  # fmt: skip
SIZES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
FACTORS = (2.0, 3.0, 5.0, 10.0, 30.0)
LOUD = (3.0, 10.0, 30.0, 100.0, 1000.0)


@dataclass(frozen=True)
class Net:
    family: str
    label: str
    task: str
    size: float
    build: Callable[[bool], nn.Module]
    measure: Callable[[Signals], float]


def biased(activation: str, depth: int, size: float, same: bool, normed: bool, broken: bool) -> nn.Module:
    kind, draw = RECIPES[activation]
    net = mlp(kind, depth, 64, 64, 10)
    net.apply(draw)
    middle = 2 * ((depth - 1) // 2)
    for layer in net[::2]:
        nn.init.zeros_(layer.bias)
    if broken:
        bias = net[middle].bias
        nn.init.constant_(bias, size) if same else nn.init.normal_(bias, std=size)
    if normed:
        net.insert(middle + 1, nn.LayerNorm(64))
    return net


class Bare(nn.Module):
    """Attention alone: no way around it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(8, 32), nn.Linear(256, 10)
        self.blocks = nn.Sequential(Attention(32, 4), nn.LayerNorm(32), Attention(32, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.embed(x)).flatten(1))


def attending(depth: int, factor: float, broken: bool) -> nn.Module:
    if depth == 0:
        net: nn.Module = Bare()
    else:
        net = nn.Sequential(nn.Linear(8, 32), *(Block(32, 4) for _ in range(depth)))
        net.extend([nn.LayerNorm(32), nn.Flatten(), nn.Linear(256, 10)])
    for module in net.modules():
        if isinstance(module, Attention) and broken:
            module.qkv.weight.data[:64] *= factor
    return net


def normed(depth: int, factor: float, everywhere: bool, broken: bool) -> nn.Module:
    net = nn.Sequential()
    for number in range(depth - 1):
        layer = nn.Linear(64, 64, bias=False)
        he(layer)
        if broken and (everywhere or number == (depth - 1) // 2):
            layer.weight.data *= factor
        net.extend([layer, nn.BatchNorm1d(64), nn.ReLU()])
    return net.append(nn.Linear(64, 10))


def nets(quick: bool) -> Iterator[Net]:
    for activation in ("relu", "tanh") if quick else RECIPES:
        for depth in (3, 6):
            for same in (False, True):
                middle = str(2 * ((depth - 1) // 2))
                for size in SIZES:
                    build = partial(biased, activation, depth, size, same, False)
                    label = f"{activation} {depth} {'same' if same else 'drawn'}"
                    yield Net("bias", label, "flat", size, build, lambda s, at=middle, b=size: b / s.layers[at].std)
    for size in SIZES:
        build = partial(biased, "relu", 4, size, False, True)
        yield Net("normed bias", "relu 4 drawn", "flat", size, build, lambda s, b=size: b / s.layers["2"].std)
    for depth in (0, 1, 3):
        for factor in FACTORS:
            label = "bare" if depth == 0 else f"residual {depth}"
            yield Net("attention", label, "rows", factor, partial(attending, depth, factor), _entropy)
    for depth in (3, 6):
        for everywhere in (True, False):
            for factor in LOUD:
                label = f"{depth} {'all' if everywhere else 'one'}"
                yield Net("norm", label, "flat", factor, partial(normed, depth, factor, everywhere), lambda s: math.nan)


def _entropy(signals: Signals) -> float:
    return min(each.entropy for each in signals.softmaxes.values())


def measured(net: Net) -> float:
    torch.manual_seed(0)
    settings = ProbeSettings(backward=True)
    with TorchSession(net.build(True), tasks()[net.task].sample, {}) as session:
        return net.measure(session.probe(settings))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="relu and tanh alone")
    parser.add_argument("--cache", type=Path, metavar="FILE", help="keep outcomes")
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(options.cache.read_text()) if options.cache and options.cache.exists() else {}
    tuned = {}
    lines = ["# Which biases, attentions and loud weights train", "", "Written by `benchmarks/calibrate_bias.py`.", "",
             "| family | net | size | measured | Adam | SGD | twin |", "|---|---|---|---|---|---|---|"]  # fmt: skip
    for net in nets(options.quick):
        key = f"{net.family}|{net.label}|{net.size:g}"
        if key not in known:
            group = (net.family, net.label.rpartition(" ")[0] if "norm" not in net.family else net.label)
            if group not in tuned:
                tuned[group] = tune(partial(net.build, False), tasks()[net.task])
            facts = observe(partial(net.build, True), tasks()[net.task], tuned[group])
            marks = [f"{label} ({facts.scores[name]:.2f})" for name, label in facts.labels.items()]
            known[key] = [f"{measured(net):.3g}", *marks, f"{facts.twin:.2f}"]
            if options.cache:
                options.cache.write_text(json.dumps(known, indent=1))
        lines.append(f"| {net.family} | {net.label} | {net.size:g} | " + " | ".join(known[key]) + " |")
        print(lines[-1], flush=True)
    if options.write:
        options.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
