"""Cells of the benchmark of truth, and the file of what training showed of each."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import torch
import training
from torch import nn
from training import Facts, Task, Tuned, observe, tasks, tune

from .families import FAMILIES, Family
from .initialisations import Initialisation, Planted, chosen
from .split import calibrates

SEEDS = 3
LEARNS = 0.5
"""An optimiser with which the healthy twin stays below this score says nothing about the family."""
CLOSE = 0.01
"""Losses at the start that differ by less, relatively, are of the same model; QR differs between machines."""
PROTOCOL = hashlib.sha256(
    json.dumps(
        [training.BATCH, training.EARLY, training.STEPS, training.MARGIN, training.TOGETHER, training.RATES, SEEDS]
    ).encode()
).hexdigest()[:12]


@dataclass(frozen=True)
class Cell:
    family: Family
    initialisation: Initialisation
    seed: int

    @property
    def key(self) -> str:
        return f"{self.family.name} / {self.initialisation.name} / {self.seed}"

    @property
    def calibrates(self) -> bool:
        return calibrates(self.family.name, self.initialisation.name)

    @property
    def task(self) -> Task:
        return tasks()[self.family.task]

    def build(self) -> nn.Module:
        """From torch's global generator, as ``training`` seeds it."""
        module = self.family.build()
        self.initialisation.apply(module, self.family)
        return module

    def built(self) -> nn.Module:
        torch.manual_seed(self.seed)
        return self.build()

    def planted(self) -> Planted:
        """Addresses of what the initialisation changed; empty where it does not apply."""
        torch.manual_seed(self.seed)
        return self.initialisation.apply(self.family.build(), self.family)


def cells(pattern: str = "*", seeds: int = SEEDS) -> Iterator[Cell]:
    """All that apply; all families and initialisations on the first seed, then on the next."""
    for seed in range(seeds):
        for family in FAMILIES:
            for initialisation in chosen(family):
                cell = Cell(family, initialisation, seed)
                if fnmatchcase(cell.key, pattern) and applies(family, initialisation):
                    yield cell


@cache
def applies(family: Family, initialisation: Initialisation) -> bool:
    return bool(Cell(family, initialisation, 0).planted())


def start_of(module: nn.Module, task: Task) -> list[str]:
    """Tells models apart: the loss of the sample, and the root of the mean square of all parameters."""
    with torch.no_grad():
        loss = float(task.loss(module.train()(*task.sample), task.target[: len(task.sample[0])]))
        flat = torch.cat([parameter.flatten() for parameter in module.parameters()])
    return [f"{loss:.5g}", f"{float(flat.square().mean().sqrt()):.5g}"]


def is_same(starts: Sequence[str], others: Sequence[str]) -> bool:
    return all(
        one == other or math.isclose(float(one), float(other), rel_tol=CLOSE)
        for one, other in zip(starts, others, strict=True)
    )


class Labels:
    """What is known, in a file of JSON with a line for each cell; what is of another model or protocol is forgotten."""

    def __init__(self, path: Path) -> None:
        self.path = path
        stored: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        known = stored.get("protocol") == PROTOCOL
        self.twins: dict[str, dict[str, Any]] = stored["twins"] if known else {}
        self.cells: dict[str, dict[str, Any]] = stored["cells"] if known else {}

    def save(self) -> None:
        parts = [
            f'"protocol": "{PROTOCOL}",\n"twins": {{\n{_lines(self.twins)}\n}},\n"cells": {{\n{_lines(self.cells)}\n}}'
        ]
        unfinished = self.path.with_suffix(".part")
        unfinished.write_text("{\n" + parts[0] + "\n}\n")
        unfinished.replace(self.path)

    def facts(self, cell: Cell) -> Facts | None:
        """What training showed of this very model; None where it was not trained."""
        raw, twin = self.cells.get(cell.key), self.tuned(cell.family)
        if raw is None or twin is None or not is_same(raw["start"], start_of(cell.built(), cell.task)):
            return None
        counted = [name for name, target in twin.targets.items() if target + training.MARGIN >= LEARNS]
        still, together = (frozenset(raw.get(each, ())) for each in ("never_moved", "together"))
        still -= _nothing_to_learn(cell)
        return Facts({name: raw["labels"][name] for name in counted}, raw["scores"], twin.best, still, together)

    def keep(self, family: Family) -> None:
        """Forget the others."""
        self.twins = {name: each for name, each in self.twins.items() if name == family.name}
        self.cells = {key: each for key, each in self.cells.items() if key.startswith(f"{family.name} / ")}

    def add(self, others: Labels) -> None:
        self.twins |= others.twins
        self.cells |= others.cells

    def tuned(self, family: Family) -> Tuned | None:
        raw = self.twins.get(family.name)
        if raw is None or not is_same(raw["start"], _twin_start(family)):
            return None
        return Tuned(raw["rates"], raw["targets"], frozenset(raw["never_moved"]), frozenset(raw["together"]))

    def train(self, cell: Cell) -> bool:
        """Train what is not known yet; whether that was necessary."""
        twin = self.tuned(cell.family) or self._tune(cell.family)
        if self.facts(cell) is not None:
            return False
        facts = observe(cell.build, cell.task, twin, [cell.seed])
        entry: dict[str, Any] = {
            "labels": dict(facts.labels),
            "scores": {name: round(score, 3) for name, score in facts.scores.items()},
            "start": start_of(cell.built(), cell.task),
        }
        for name in ("never_moved", "together"):
            if getattr(facts, name):
                entry[name] = sorted(getattr(facts, name))
        self.cells[cell.key] = entry
        return True

    def _tune(self, family: Family) -> Tuned:
        tuned = tune(family.build, tasks()[family.task], SEEDS)
        self.cells = {key: each for key, each in self.cells.items() if not key.startswith(f"{family.name} / ")}
        self.twins[family.name] = {
            "rates": dict(tuned.rates),
            "targets": {name: round(target, 4) for name, target in tuned.targets.items()},
            "never_moved": sorted(tuned.never_moved),
            "together": sorted(tuned.together),
            "start": _twin_start(family),
        }
        return tuned


@cache
def _twin_start(family: Family) -> list[str]:
    torch.manual_seed(0)
    return start_of(family.build(), tasks()[family.task])


def _nothing_to_learn(cell: Cell) -> frozenset[str]:
    """Rows of a head that are right at zero: pixels that are blank in every digit."""
    target = cell.task.target
    if target.dtype == torch.long or target.ndim != 2:
        return frozenset()
    blank = (target == 0).all(0).nonzero()[:, 0].tolist()
    return frozenset(f"{head}[{row}]" for head in cell.family.heads for row in blank)


def _lines(entries: dict[str, dict[str, Any]]) -> str:
    return ",\n".join(f"{json.dumps(key)}: {json.dumps(each)}" for key, each in entries.items())
