"""How many layers of zeros in a row still wake up in time? A calibration of zero-weights and constant-outputs.

    python benchmarks/calibrate_zeros.py [--cache FILE] [--write benchmarks/results/calibrate_zeros.md]

Protocol  that of ``training.py``: rates tuned on the healthy twin, Adam and SGD, 160 steps, its labels.
Families  MLPs 64 -> 32 -> ... -> 10 of six layers, an unnormed residual net and message passing, as they stand in
          ``truth``; biases are drawn as PyTorch does by default, so that none of them holds zeros for ever.
Zeros     in the last maps before the head (``inner``), or the head and what is before it (``head``); of the residual
          net the embedding and the head, of message passing both maps of each round.
Measured  how many steps of the liveness probe leave the outputs the same for all inputs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from training import observe, tasks, tune
from truth import blocks

PLAIN = (
    ("relu", nn.ReLU, None),
    ("tanh", nn.Tanh, None),
    ("gelu", nn.GELU, None),
    ("relu, batch norm", nn.ReLU, nn.BatchNorm1d),
    ("gelu, layer norm", nn.GELU, nn.LayerNorm),
)


@dataclass(frozen=True)
class Net:
    label: str
    task: str
    zeros: str
    build: Callable[[bool], nn.Module]


def _emptied(make: Callable[[], nn.Module], names: tuple[str, ...], broken: bool) -> nn.Module:
    net = make()
    for name in names if broken else ():
        nn.init.zeros_(net.get_parameter(f"{name}.weight"))
    return net


def nets() -> Iterator[Net]:
    for label, act, norm in PLAIN:
        make = partial(blocks.mlp, 64, *[32] * 5, 10, act=act, norm=norm)
        maps = [name for name, each in make().named_modules() if isinstance(each, nn.Linear)]
        for count in range(1, 6):
            yield Net(label, "flat", f"{count} inner", partial(_emptied, make, tuple(maps[-1 - count : -1])))
            yield Net(label, "flat", f"{count} head", partial(_emptied, make, tuple(maps[-count:])))
    residual = partial(blocks.Residual, 64, 10, norm=False)
    yield Net("residual", "flat", "2 ends", partial(_emptied, residual, ("embed", "head")))
    whole = tuple(name for name, each in residual().named_modules() if isinstance(each, nn.Linear))
    yield Net("residual", "flat", "all", partial(_emptied, residual, whole))
    rounds = [(f"messages.{at}", f"own.{at}") for at in range(3)]
    for count in range(1, 4):
        inner = tuple(name for each in rounds[-count:] for name in each)
        yield Net("messages", "image", f"{count} inner", partial(_emptied, blocks.Graph, inner))
        yield Net("messages", "image", f"{count + 1} head", partial(_emptied, blocks.Graph, (*inner, "head")))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cache", type=Path, metavar="FILE", help="keep outcomes")
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = json.loads(options.cache.read_text()) if options.cache and options.cache.exists() else {}
    tuned = {}
    lines = ["# How many layers of zeros in a row still train", "", "Written by `benchmarks/calibrate_zeros.py`.", "",
             "| net | zeros | Adam | SGD | twin |", "|---|---|---|---|---|"]  # fmt: skip
    for net in nets():
        key = f"{net.label}|{net.zeros}"
        if key not in known:
            if net.label not in tuned:
                tuned[net.label] = tune(partial(net.build, False), tasks()[net.task])
            facts = observe(partial(net.build, True), tasks()[net.task], tuned[net.label])
            known[key] = [f"{label} ({facts.scores[name]:.2f})" for name, label in facts.labels.items()]
            known[key].append(f"{facts.twin:.2f}")
            if options.cache:
                options.cache.write_text(json.dumps(known, indent=1))
        lines.append(f"| {net.label} | {net.zeros} | " + " | ".join(known[key]) + " |")
        print(lines[-1], flush=True)
    if options.write:
        options.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
