"""What initlint says of a cell, against what training showed of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Any

from torch import Tensor
from training import Facts

import initlint
from initlint.plugin import Finding, Severity

from .initialisations import Intent
from .labels import Cell, Labels

TRUTHS = ("trains", "trains, in part inert", "slow", "fails")
SINGLE_UNIT = re.compile(r"weight\[\d+\]$")
SAID = ("error", "warning", "note", "nothing")


@dataclass(frozen=True)
class Verdict:
    cell: Cell
    facts: Facts
    findings: tuple[Finding, ...]
    """Those that are nobody's consequence."""
    unprobed: str
    """Why it could not be measured; empty where it was."""
    seconds: float

    def at(self, severity: Severity) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity is severity]

    @property
    def said(self) -> str:
        return str(max(finding.severity for finding in self.findings)) if self.findings else "nothing"

    @property
    def truth(self) -> str:
        if self.facts.better != "trains":
            return self.facts.better
        return TRUTHS[1] if self.inert else TRUTHS[0]

    @property
    def inert(self) -> list[str]:
        """Whole tensors, gates or experts; a single unit off, as some are in healthy ReLU nets, is none."""
        names = self.facts.never_moved | self.facts.together
        return sorted(name for name in names if not SINGLE_UNIT.search(name))

    def is_right(self, error: Finding) -> bool:
        return self.facts.better != "trains" or self.facts.is_inert(error.address)

    @property
    def wrong_errors(self) -> list[Finding]:
        return [error for error in self.at(Severity.ERROR) if not self.is_right(error)]

    @property
    def is_missed(self) -> bool:
        return self.facts.better == "fails" and self.said != "error"

    @property
    def should_be_silent(self) -> bool:
        return self.cell.initialisation.intent is not Intent.FAULT and self.truth == TRUTHS[0]

    @property
    def is_silent(self) -> bool:
        return self.said in ("note", "nothing")


def judge(chosen: Iterable[Cell], labels: Labels, with_loss: bool = False) -> Iterator[Verdict]:
    """Of all cells that are labelled; ``with_loss`` tells initlint which loss they are trained with."""
    for cell in chosen:
        facts = labels.facts(cell)
        if facts is None:
            continue
        module = cell.built()
        started = perf_counter()
        report = initlint.check(module, cell.task.sample, loss=_loss_of(cell) if with_loss else None)
        seconds = perf_counter() - started
        headlines = tuple(finding for finding in report.findings if finding.caused_by is None)
        unprobed = report.failure.message if report.failure is not None else report.probe.reason
        yield Verdict(cell, facts, headlines, unprobed, seconds)


def _loss_of(cell: Cell) -> Callable[[Any], Tensor]:
    """The loss that the cell is trained with."""

    def loss(output: Any) -> Tensor:
        size = len(output[0] if isinstance(output, list | tuple) else output)
        return cell.task.loss(output, cell.task.target[:size])

    return loss


@dataclass(frozen=True)
class Part:
    """Verdicts of one part of the cells, counted."""

    verdicts: Sequence[Verdict]

    def count(self, truth: str, said: str) -> int:
        return sum(each.truth == truth and each.said == said for each in self.verdicts)

    @cached_property
    def errors(self) -> tuple[int, int]:
        """Findings that are right, and all."""
        every = [each.is_right(error) for each in self.verdicts for error in each.at(Severity.ERROR)]
        return sum(every), len(every)

    @cached_property
    def cells_with_errors(self) -> tuple[int, int]:
        """Cells of which all errors are right, and all that have one."""
        some = [not each.wrong_errors for each in self.verdicts if each.said == "error"]
        return sum(some), len(some)

    @cached_property
    def recall(self) -> tuple[int, int]:
        """Failing cells with an error, and all."""
        failing = [not each.is_missed for each in self.verdicts if each.facts.better == "fails"]
        return sum(failing), len(failing)

    @cached_property
    def hard_recall(self) -> tuple[int, int]:
        """Likewise of those that stay below half of what the twin reaches."""
        failing = [each for each in self.verdicts if each.facts.better == "fails"]
        found = [not each.is_missed for each in failing if max(each.facts.scores.values()) < each.facts.twin / 2]
        return sum(found), len(found)

    @cached_property
    def inert_recall(self) -> tuple[int, int]:
        """Cells that train, but for inert tensors, with a right error; and all."""
        inert = [each for each in self.verdicts if each.truth == TRUTHS[1]]
        return sum(any(map(each.is_right, each.at(Severity.ERROR))) for each in inert), len(inert)

    @cached_property
    def slow_recall(self) -> tuple[int, int]:
        """Slow cells with a warning or an error, and all."""
        slow = [not each.is_silent for each in self.verdicts if each.facts.better == "slow"]
        return sum(slow), len(slow)

    @cached_property
    def silence(self) -> tuple[int, int]:
        """Healthy and idiomatic cells that train and get no warning, and all."""
        calm = [each.is_silent for each in self.verdicts if each.should_be_silent]
        return sum(calm), len(calm)

    @cached_property
    def one_headline(self) -> tuple[int, int]:
        """Planted faults of which something is said with a single warning or error, and all of which something is."""
        heads = [
            sum(finding.severity > Severity.NOTE for finding in each.findings)
            for each in self.verdicts
            if each.cell.initialisation.intent is Intent.FAULT and not each.is_silent
        ]
        return sum(number == 1 for number in heads), len(heads)

    @cached_property
    def wrong_on_healthy(self) -> int:
        return sum(
            bool(each.wrong_errors) for each in self.verdicts if each.cell.initialisation.intent is not Intent.FAULT
        )
