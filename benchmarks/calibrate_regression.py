"""How far above the loss of zero outputs may a regression start? A calibration of initial-loss.

    python benchmarks/calibrate_regression.py [--quick] [--write benchmarks/results/calibrate_regression.md]   # 25 min

The protocol was fixed before any outcome was seen:

Nets      MLPs of width 48 with ``depth`` hidden layers of relu, tanh or gelu, plain or as pre-norm residual blocks
          (layer norm); healthy weights are normal of std gain / sqrt(fan_in) (relu and gelu 1.41, tanh and head 1),
          biases 0.
Faults    the head times g; every layer but norms times g; the bias of the head at +g; targets of 1 / g with the
          healthy head, against a twin whose head is divided by g.
Tasks     ``wave`` and ``restore`` of ``training.py``, whose protocol of training and whose labels are used; as in
          ``truth/labels.py`` an optimiser with which the twin stays below 0.5 is left out.
Start     the mean square error of the first 32 samples, over that of outputs that are all zero.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from side_by_side import bands, decades
from torch import Tensor, nn
from training import LABELS, MARGIN, Facts, Task, Tuned, observe, tasks, tune
from truth.labels import LEARNS

WIDTH = 48
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}
GAINS = {"relu": math.sqrt(2.0), "tanh": 1.0, "gelu": math.sqrt(2.0)}
HEAD = (3.0, 10.0, 30.0, 100.0, 1000.0)
ALL = (1.5, 2.0, 4.0, 10.0)
BIAS = (3.0, 10.0, 30.0, 100.0)
TARGETS = (10.0, 30.0, 100.0, 1000.0)


class Residual(nn.Module):
    def __init__(self, *branch: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


@dataclass(frozen=True)
class Architecture:
    activation: str
    depth: int
    residual: bool
    task: str

    @property
    def name(self) -> str:
        return f"{self.task}, {self.depth} {self.activation}" + (", residual" if self.residual else "")

    def build(self, fault: str = "", g: float = 1.0) -> nn.Module:
        data = tasks()[self.task]
        size, end = data.train[0].shape[-1], data.target.shape[-1]
        layers: list[nn.Module] = [nn.Linear(size, WIDTH), ACTIVATIONS[self.activation]()]
        for _ in range(self.depth - 1):
            block = [nn.Linear(WIDTH, WIDTH), ACTIVATIONS[self.activation]()]
            layers += [Residual(nn.LayerNorm(WIDTH), *block)] if self.residual else block
        module = nn.Sequential(*layers, nn.Linear(WIDTH, end))
        maps = [each for each in module.modules() if isinstance(each, nn.Linear)]
        with torch.no_grad():
            for each in maps:
                gain = 1.0 if each is maps[-1] else GAINS[self.activation]
                each.weight.normal_(0.0, gain / math.sqrt(each.in_features))
                each.bias.zero_()
            for each in maps if fault == "all" else maps[-1:] if fault == "head" else ():
                each.weight.mul_(g)
            if fault == "bias":
                maps[-1].bias.fill_(g)
        return module


@dataclass(frozen=True)
class Outcome:
    name: str
    fault: str
    ratio: float
    verdicts: dict[str, str]
    better: str


def start_of(module: nn.Module, task: Task) -> float:
    with torch.no_grad():
        output, target = module(*task.sample), task.target[:32]
        return float(task.loss(output, target) / task.loss(torch.zeros_like(output), target))


def study(each: Architecture) -> Iterator[Outcome]:
    task = tasks()[each.task]
    tuned = tune(each.build, task)
    if tuned.best < LEARNS:
        print(f"# {each.name}: the twin reaches {tuned.best:.2f} only, left out", flush=True)
        return
    faults = [("head", g) for g in HEAD] + [("all", g) for g in ALL] + [("bias", g) for g in BIAS]
    for fault, g in [("", 1.0), *faults]:
        torch.manual_seed(0)
        ratio = start_of(each.build(fault, g), task)
        facts = observe(lambda fault=fault, g=g: each.build(fault, g), task, tuned)
        yield told(Outcome(each.name, fault, ratio, dict(facts.labels), better(facts, tuned)))
    for g in TARGETS:
        yield from small_targets(each, task, g)


def small_targets(each: Architecture, task: Task, g: float) -> Iterator[Outcome]:
    small = replace(task, target=task.target / g, test_target=task.test_target / g)
    tuned = tune(lambda: each.build("head", 1.0 / g), small)
    if tuned.best < LEARNS:
        print(f"# {each.name}, targets / {g:g}: the twin reaches {tuned.best:.2f} only, left out", flush=True)
        return
    torch.manual_seed(0)
    ratio = start_of(each.build(), small)
    facts = observe(each.build, small, tuned)
    yield told(Outcome(each.name, "targets", ratio, dict(facts.labels), better(facts, tuned)))


def better(facts: Facts, tuned: Tuned) -> str:
    """The label with the better one of the optimisers that the twin learns with."""
    counted = [facts.labels[name] for name, target in tuned.targets.items() if target + MARGIN >= LEARNS]
    return min(counted, key=LABELS.index)


def told(outcome: Outcome) -> Outcome:
    print(f"# {outcome.name}, {outcome.fault}: {outcome.ratio:.3g} {outcome.better}", flush=True)
    return outcome


def report(outcomes: list[Outcome]) -> str:
    lines = [
        "# Where a regression may start",
        "",
        "Written by `benchmarks/calibrate_regression.py`, whose docstring is the",
    ]
    lines += ["protocol. Ratio: the first error over that of zero outputs.", ""]
    kinds = (
        ("all faults", ("", "head", "all", "bias", "targets")),
        ("head", ("head",)),
        ("all layers", ("all",)),
        ("bias", ("bias",)),
        ("targets", ("targets",)),
    )
    for title, faults in kinds:
        lines += [
            f"## {title}",
            "",
            *bands([o for o in outcomes if o.fault in faults], lambda o: o.ratio, decades(0, 6), "ratio"),
        ]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one architecture of each task")
    parser.add_argument("--write", type=Path, help="also write the tables to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    every = [
        Architecture(activation, depth, residual, task)
        for task in ("wave", "restore")
        for activation in ACTIVATIONS
        for residual in (False, True)
        for depth in (2, 4, 6)
    ]
    chosen = every[::18] if arguments.quick else every
    text = report([outcome for each in chosen for outcome in study(each)])
    print(text)
    if arguments.write:
        arguments.write.write_text(text)


if __name__ == "__main__":
    main()
