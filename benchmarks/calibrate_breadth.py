"""Which measurements tell nets that fail from nets that train? A calibration over many kinds of nets and faults.

    python benchmarks/calibrate_breadth.py --labels FILE.json [--only GLOB] [--train] [--write FILE.md]   # 40 minutes

The nets are none of ``truth/families.py``: other depths, widths, functions and shapes, among them regressions,
deep normed stacks and recurrences. Faults are planted as there, over a range of strengths. The protocol of training and
its labels are those of ``trainability.py`` (160 steps, Adam and SGD, the rate tuned on the healthy twin alone); one
seed each. ``--train`` trains what FILE.json lacks.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import torch
from side_by_side import bands
from torch import Tensor, nn
from training import Facts
from truth.blocks import Residual, mlp
from truth.families import RELU, Family
from truth.initialisations import (
    Initialisation,
    Intent,
    alternating,
    constant,
    default,
    everything,
    fan_in,
    fill,
    head_biases,
    heads,
    hidden,
    hidden_biases,
    middle,
    normal,
    of_pieces,
    scheme,
    sparse,
    times,
    to,
)
from truth.labels import Cell, Labels, applies
from truth.sequences import Block

from initlint.heads import is_spread
from initlint.kinds import Use
from initlint.model import Model
from initlint.paths import expected_gain, ways
from initlint.probe.on_torch import TorchSession
from initlint.probe.signals import Signals
from initlint.settings import ProbeSettings
from initlint.stats import WeightStats


class Joined(nn.Module):
    """A net that reads several inputs as one."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.net(torch.cat(inputs, -1))


class Glu(nn.Module):
    """Gated linear units (Dauphin et al. 2017) in a row, behind layer norms or without, with shortcuts or without."""

    def __init__(self, inputs: int, outputs: int, width: int, depth: int, norm: bool, shortcuts: bool) -> None:
        super().__init__()
        self.shortcuts = shortcuts
        self.embed, self.head = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.norms = nn.ModuleList(nn.LayerNorm(width) if norm else nn.Identity() for _ in range(depth))
        self.values = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.gates = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for norm, value, gate in zip(self.norms, self.values, self.gates, strict=True):
            inner = norm(x)
            inner = value(inner) * torch.sigmoid(gate(inner))
            x = x + inner if self.shortcuts else inner
        return self.head(x)


class PostNorm(nn.Module):
    """Residual blocks with the norm behind the sum, as in the first transformers."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(64, width), nn.Linear(width, 10)
        self.inner = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)) for _ in range(depth)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for inner, norm in zip(self.inner, self.norms, strict=True):
            x = norm(x + inner(x))
        return self.head(x)


class Bounded(nn.Module):
    """A policy or a generator: values within +-2."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *inputs: Tensor) -> Tensor:
        return 2.0 * torch.tanh(self.net(torch.cat(inputs, -1)))


class Reader(nn.Module):
    """Attention over the rows of an image, pooled or read at the last row."""

    def __init__(self, width: int, depth: int, packed: bool, pooled: bool) -> None:
        super().__init__()
        self.pooled = pooled
        self.embed, self.positions = nn.Linear(8, width), nn.Parameter(torch.empty(8, width))
        self.blocks = nn.Sequential(*(Block(width, packed, causal=not pooled) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.blocks(self.embed(x) + self.positions))
        return self.head(x.mean(1) if self.pooled else x[:, -1])


class Mixer(nn.Module):
    """MLP-Mixer (Tolstikhin et al. 2021) over rows."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(8, width), nn.Linear(width, 10)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(width),
                    "rows": nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)),
                    "norm2": nn.LayerNorm(width),
                    "channels": nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)),
                }
            )
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = x + block["rows"](block["norm1"](x).transpose(1, 2)).transpose(1, 2)
            x = x + block["channels"](block["norm2"](x))
        return self.head(x.mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], width: int, depth: int) -> None:
        super().__init__()
        self.cell, self.head = kind(8, width, depth, batch_first=True), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


def conv(widths: tuple[int, ...], act: type[nn.Module], norm: bool, pool: bool) -> nn.Module:
    net, before = nn.Sequential(), 1
    for number, width in enumerate(widths):
        net.add_module(f"conv{number}", nn.Conv2d(before, width, 3, 1, 1))
        if norm:
            net.add_module(f"norm{number}", nn.BatchNorm2d(width))
        net.add_module(f"act{number}", act())
        if pool and number % 2:
            net.add_module(f"pool{number}", nn.MaxPool2d(2))
        before = width
    net.add_module("pool", nn.AvgPool2d(2))
    net.add_module("flat", nn.Flatten())
    side = 4 // 2 ** (len(widths) // 2) if pool else 4
    net.add_module("head", nn.Linear(before * side * side, 10))
    return net


def critic(*widths: int, act: type[nn.Module]) -> nn.Module:
    return Joined(mlp(64, *widths, 1, act=act))


NETWORK = ("net.head.weight",)
FAMILIES = (
    Family("relu 5x40", "flat", partial(mlp, 64, *[40] * 5, 10), RELU, plain=True),
    Family("relu 3x96", "flat", partial(mlp, 64, *[96] * 3, 10), RELU, plain=True),
    Family("gelu 6x48", "flat", partial(mlp, 64, *[48] * 6, 10, act=nn.GELU), 1.5, plain=True),
    Family("tanh 3x48", "flat", partial(mlp, 64, *[48] * 3, 10, act=nn.Tanh), 1.0, plain=True),
    Family("tanh 7x64", "flat", partial(mlp, 64, *[64] * 7, 10, act=nn.Tanh), 1.0, plain=True),
    Family("silu 5x40", "flat", partial(mlp, 64, *[40] * 5, 10, act=nn.SiLU), 1.6, plain=True),
    Family("elu 4x32", "flat", partial(mlp, 64, *[32] * 4, 10, act=nn.ELU), 1.2, plain=True),
    Family("leaky 10x48", "flat", partial(mlp, 64, *[48] * 10, 10, act=nn.LeakyReLU), RELU, plain=True),
    Family("bn 6x48", "flat", partial(mlp, 64, *[48] * 6, 10, norm=nn.BatchNorm1d), RELU, plain=True),
    Family("bn tanh 3x32", "flat", partial(mlp, 64, *[32] * 3, 10, act=nn.Tanh, norm=nn.BatchNorm1d), 0, plain=True),
    Family("ln 5x32", "flat", partial(mlp, 64, *[32] * 5, 10, act=nn.GELU, norm=nn.LayerNorm), 0, plain=True),
    Family("relu 3x64, wave", "wave", partial(mlp, 2, *[64] * 3, 1), RELU, plain=True),
    Family("tanh 4x32, wave", "wave", partial(mlp, 2, *[32] * 4, 1, act=nn.Tanh), 1.5, plain=True),
    Family("silu 5x48, wave", "wave", partial(mlp, 2, *[48] * 5, 1, act=nn.SiLU), 1.6, plain=True),
    Family("gelu 3x24, wave", "wave", partial(mlp, 2, *[24] * 3, 1, act=nn.GELU), 1.5, plain=True),
    Family("residual 3x32, wave", "wave", partial(Residual, 2, 1, width=32, depth=3), 0),
    Family("relu 5x64, critic", "critic", partial(critic, *[64] * 5, act=nn.ReLU), RELU, NETWORK, plain=True),
    Family("gelu 4x48, critic", "critic", partial(critic, *[48] * 4, act=nn.GELU), 1.5, NETWORK, plain=True),
    Family("tanh 3x64, critic", "critic", partial(critic, *[64] * 3, act=nn.Tanh), 1.0, NETWORK, plain=True),
    Family("relu autoencoder", "restore", partial(mlp, 64, 48, 24, 48, 64), RELU, plain=True),
    Family("gelu autoencoder", "restore", partial(mlp, 64, 48, 32, 32, 48, 64, act=nn.GELU), 1.5, plain=True),
    Family("tanh autoencoder", "restore", partial(mlp, 64, 32, 64, act=nn.Tanh), 1.0, plain=True),
    Family("residual 6x40", "flat", partial(Residual, 64, 10, width=40, depth=6), 0),
    Family("unnormed residual 2x48", "flat", partial(Residual, 64, 10, norm=False, width=48, depth=2), 0),
    Family("post-norm 3x32", "flat", partial(PostNorm, 32, 3), 0),
    Family("glu 4x24, normed", "flat", partial(Glu, 64, 10, 24, 4, True, True), 0),
    Family("glu 2x32, plain", "flat", partial(Glu, 64, 10, 32, 2, False, False), 0),
    Family("conv 4, relu", "image", partial(conv, (12, 12, 24, 24), nn.ReLU, False, True), RELU, plain=True),
    Family("conv 5, gelu", "image", partial(conv, (8,) * 5, nn.GELU, False, False), 1.5, plain=True),
    Family("conv 3, bn", "image", partial(conv, (8, 16, 16), nn.ReLU, True, False), 0, plain=True),
    Family("reader 1x32", "rows", partial(Reader, 32, 1, True, True), 0),
    Family("reader 3x24, last", "rows", partial(Reader, 24, 3, False, False), 0),
    Family("mixer 2x24", "rows", partial(Mixer, 24, 2), 0),
    Family("gru 1x48", "rows", partial(Recurrent, nn.GRU, 48, 1), 0),
    Family("lstm 2x24", "rows", partial(Recurrent, nn.LSTM, 24, 2), 0),
    Family("relu 4x48, binary", "binary", partial(mlp, 64, *[48] * 4, 1), RELU, plain=True),
    Family("gelu 5x40, binary", "binary", partial(mlp, 64, *[40] * 5, 1, act=nn.GELU), 1.5, plain=True),
    Family("tanh 3x40, binary", "binary", partial(mlp, 64, *[40] * 3, 1, act=nn.Tanh), 1.0, plain=True),
    Family("silu 2x64, binary", "binary", partial(mlp, 64, *[64] * 2, 1, act=nn.SiLU), 1.6, plain=True),
    Family("elu 5x32, binary", "binary", partial(mlp, 64, *[32] * 5, 1, act=nn.ELU), 1.2, plain=True),
    Family("leaky 8x40, binary", "binary", partial(mlp, 64, *[40] * 8, 1, act=nn.LeakyReLU), RELU, plain=True),
    Family("gelu 3x48, binary", "binary", partial(mlp, 64, *[48] * 3, 1, act=nn.GELU), 1.5, plain=True),
    Family("relu 7x56, binary", "binary", partial(mlp, 64, *[56] * 7, 1), RELU, plain=True),
    Family("silu 4x40, binary", "binary", partial(mlp, 64, *[40] * 4, 1, act=nn.SiLU), 1.6, plain=True),
    Family("relu 2x64, bounded", "critic", lambda: Bounded(mlp(64, 64, 64, 1)), RELU, NETWORK, plain=True),
    Family("relu 4x48, bounded", "critic", lambda: Bounded(mlp(64, *[48] * 4, 1)), RELU, NETWORK, plain=True),
    Family("silu 3x48, bounded", "wave", lambda: Bounded(mlp(2, *[48] * 3, 1, act=nn.SiLU)), 1.6, NETWORK, plain=True),
    Family("rnn 1x40", "rows", partial(Recurrent, nn.RNN, 40, 1), 0),
)


def inner(module: nn.Module, family: Family) -> list[str]:
    return hidden(module, family)


def std(value: float) -> Callable[[Tensor], object]:
    return lambda tensor: nn.init.normal_(tensor, std=value)


def faults() -> Iterator[Initialisation]:
    yield Initialisation("twin", Intent.HEALTHY, lambda module, family: tuple(everything(module, family)))
    yield Initialisation("torch default", Intent.HEALTHY, default)
    yield Initialisation("Xavier normal", Intent.HEALTHY, scheme(nn.init.xavier_normal_))
    yield Initialisation("He normal", Intent.HEALTHY, scheme(normal(RELU, fan_in)))
    yield Initialisation("bias 0.1", Intent.IDIOM, to(hidden_biases, fill(0.1)))
    yield Initialisation("zero head", Intent.IDIOM, to(heads, fill(0.0)))
    for value in (0.003, 0.01, 0.03, 0.3, 1.0, 3.0):
        yield Initialisation(f"all std {value:g}", Intent.FAULT, to(everything, std(value)))
    for value in (0.01, 0.1, 2.0, 3.0, 4.0, 10.0, 100.0):
        yield Initialisation(f"all x{value:g}", Intent.FAULT, to(everything, times(value)))
    for value in (0.01, 10.0, 30.0, 100.0, 1000.0):
        yield Initialisation(f"one x{value:g}", Intent.FAULT, to(middle, times(value)))
    for value in (10.0, 30.0, 100.0, 1000.0):
        yield Initialisation(f"head x{value:g}", Intent.FAULT, to(heads, times(value)))
    for value in (-3.0, 1.0, 2.0, 5.0, 10.0, 20.0):
        yield Initialisation(f"bias {value:g}", Intent.FAULT, to(hidden_biases, fill(value)))
    for value in (5.0, 10.0, 20.0, 40.0):
        yield Initialisation(f"bias +-{value:g}", Intent.FAULT, to(hidden_biases, alternating(value)))
    for value in (10.0, 100.0):
        yield Initialisation(f"head bias {value:g}", Intent.FAULT, to(head_biases, fill(value)))
    yield Initialisation("all constant", Intent.FAULT, of_pieces(everything, constant))
    yield Initialisation("hidden constant", Intent.FAULT, of_pieces(inner, constant))
    for value in (0.9, 0.97, 0.99, 0.997):
        yield Initialisation(f"all {value:g} zeros", Intent.FAULT, to(everything, sparse(value)))


FAULTS = tuple(faults())


def cells(pattern: str) -> list[Cell]:
    every = (Cell(family, fault, 0) for family in FAMILIES for fault in FAULTS)
    return [c for c in every if fnmatchcase(c.key, pattern) and applies(c.family, c.initialisation)]


@dataclass(frozen=True)
class Row:
    family: str
    better: str
    verdicts: dict[str, str]
    values: dict[str, float]


def measure(cell: Cell, facts: Facts) -> Row:
    session = TorchSession(cell.built(), cell.task.sample, {})
    return row_of(cell, facts, session.model, session.stats(), session.probe(ProbeSettings()))


def row_of(cell: Cell, facts: Facts, model: Model, stats: Mapping[str, WeightStats], signals: Signals) -> Row:
    maps = [layer for layer in model.layers if layer.kind.is_map]
    values: dict[str, float] = {}
    if any(layer.bypassed for layer in maps) and (ratios := list(_ratios(model, stats, signals))):
        values["branches"] = min(ratios)
    if any(layer.kind.is_norm for layer in model.layers) and maps:
        gains = sorted(expected_gain(layer, stats[layer.weight.address]) for layer in maps)
        values["median"] = gains[(len(gains) - 1) // 2]
    elif cell.family.plain and "tanh" not in cell.family.name and "conv" not in cell.family.name:
        hidden = [layer for layer in maps if Use.OUTPUT not in layer.uses and layer.bias is not None]
        ratios = [stats[layer.bias.address].mean / max(signals.layers[layer.name].std, 0.4) for layer in hidden]
        if min(ratios, default=0.0) >= 1.5:
            values["bias"] = max(ratios)
    for head in (layer for layer in maps if Use.OUTPUT in layer.uses and layer.weight.view.units == 1):
        signal = signals.layers[head.name]
        if isinstance(cell.family.make, partial) and ways(model, head)[0] >= 5:
            ratio = signal.rms / max(1.0, signals.input_rms)
            values["spread" if is_spread(model, signals, head, ratio, 3.0) else "single"] = ratio
        elif not isinstance(cell.family.make, partial):
            values["flat"] = signal.saturated
    return Row(cell.family.name, facts.better, {"adam": "", "sgd": ""} | dict(facts.labels), values)


def _ratios(model: Model, stats: Mapping[str, WeightStats], signals: Signals) -> Iterator[float]:
    """As oversized-bias has it: rms of the bias over what depends on the input, of each hidden map."""
    for layer in model.layers:
        if layer.kind.is_map and layer.bias is not None and Use.OUTPUT not in layer.uses:
            yield math.sqrt(stats[layer.bias.address].mean_square) / max(signals.layers[layer.name].std, 0.4)


TABLES = (
    ("median", "Median gain: nets with norms", (0.0, 1.5, 2.5, 4.7, 9.0, 10.0, 20.0, 50.0, math.inf)),
    ("bias", "Biases of all hidden layers", (0.0, 3.0, 6.0, 9.0, 12.0, 20.0, math.inf)),
    ("branches", "Biases of all hidden layers, where shortcuts are", (0.0, 1.5, 3.0, 6.0, 9.0, 12.0, 20.0, math.inf)),
    ("spread", "One output, several loud layers", (0.0, 3.0, 10.0, 30.0, 100.0, math.inf)),
    ("single", "One output, one loud layer", (0.0, 3.0, 10.0, 30.0, 100.0, 1000.0, math.inf)),
    ("flat", "Outputs of tanh: share that is flat", (0.0, 0.1, 0.5, 0.8, 0.95, 1.01)),
)


def report(rows: list[Row]) -> str:
    lines = ["# Which measurements tell failing nets from training ones", ""]
    lines += [f"Written by `benchmarks/calibrate_breadth.py`, whose docstring is the protocol. {len(rows)} cells.", ""]
    for name, title, edges in TABLES:
        of = [row for row in rows if name in row.values]
        lines += [f"## {title}", "", *bands(of, lambda row, name=name: row.values[name], edges, name), ""]
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, metavar="FILE")
    parser.add_argument("--only", default="*", metavar="GLOB", help="of 'net / fault / seed'")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    labels, chosen, started = Labels(options.labels), cells(options.only), time.perf_counter()
    for number, cell in enumerate(chosen if options.train else (), 1):
        if labels.train(cell):
            labels.save()
        print(f"{number} of {len(chosen)} after {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    facts = [(cell, known) for cell in chosen if (known := labels.facts(cell)) is not None and known.labels]
    text = report([measure(cell, known) for cell, known in facts])
    print(text)
    if options.write:
        options.write.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
