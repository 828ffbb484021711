"""Do repaired models train? The cells of the benchmark of truth that initlint errs or warns of, with its fixes applied.

    python benchmarks/repaired.py [--only GLOB] [--seeds 1] [--cache FILE] [--write benchmarks/results/repaired.md]

A cell of ``trainability.py`` (``truth/``) is built and checked; the code of every verified fix of its errors and
warnings, as it is printed, is run on it after each building; then it is trained by the protocol of ``training.py``,
with the rates that were tuned on the healthy twin. Half an hour for one seed.

verified   errors and warnings, nobody's consequences, that carry a fix which the trial has confirmed, of all;
repaired   cells in which all of them do, and which then train; the bar counts these. Others are listed apart.

``--cache`` keeps what was trained by cell and code: a run goes on where another stopped, and one after a change trains
only what is told differently now.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from training import observe
from truth.initialisations import Intent
from truth.labels import Cell, Labels, cells

import initlint
from initlint.plugin import Severity

LABELS = Path(__file__).parent / "results" / "trainability.json"
VERIFIED, TRAINS = 0.90, 0.95


@dataclass(frozen=True)
class Outcome:
    cell: str
    initialisation: str
    calibrates: bool
    before: str
    """Its label without a repair."""
    headlines: int
    verified: int
    after: str
    """Its label with the verified fixes; "" where there is none."""
    score: float
    twin: float
    rules: tuple[str, ...]

    @property
    def whole(self) -> bool:
        return self.verified == self.headlines


def repaired(cell: Cell, codes: Sequence[str]) -> nn.Module:
    module = cell.build()
    for code in codes:
        exec(code, {"model": module, "nn": nn, "torch": torch})  # noqa: S102 - what initlint prints
    return module


def study(cell: Cell, labels: Labels, trainings: Trainings) -> Outcome | None:
    """None where nothing was said, or the cell was never trained."""
    facts, tuned = labels.facts(cell), labels.tuned(cell.family)
    report = initlint.check(cell.built(), cell.task.sample)
    loud = [each for each in report.findings if each.caused_by is None and each.severity > Severity.NOTE]
    if facts is None or tuned is None or not loud:
        return None
    codes = [each.fix.code for each in loud if each.verified and each.fix is not None]
    after, score = "", 0.0
    if codes:
        key = "\n".join((cell.key, *codes))
        if key not in trainings:
            trained = observe(lambda: repaired(cell, codes), cell.task, tuned, [cell.seed])
            after = min((trained.labels[name] for name in facts.labels), key=("trains", "slow", "fails").index)
            trainings.keep(key, (after, max(trained.scores.values())))
        after, score = trainings[key]
    rules = tuple(sorted({each.rule for each in loud}))
    name, planted = cell.key, cell.initialisation.name
    return Outcome(
        name, planted, cell.calibrates, facts.better, len(loud), len(codes), after, round(score, 3), facts.twin, rules
    )


class Trainings(dict[str, tuple[str, float]]):
    """(label, score) by the cell and the code of its fixes, written line by line."""

    def __init__(self, file: Path | None) -> None:
        super().__init__()
        self._file = file
        if file is not None and file.exists():
            self.update({key: (label, score) for key, label, score in map(json.loads, file.read_text().splitlines())})

    def keep(self, key: str, outcome: tuple[str, float]) -> None:
        self[key] = outcome
        if self._file is not None:
            with self._file.open("a") as lines:
                lines.write(json.dumps([key, *outcome]) + "\n")


def outcomes(chosen: Sequence[Cell], cache: Path | None) -> Iterator[Outcome]:
    labels, trainings = Labels(LABELS), Trainings(cache)
    for number, cell in enumerate(chosen, 1):
        outcome = study(cell, labels, trainings)
        print(f"{number} of {len(chosen)}: {outcome}", file=sys.stderr, flush=True)
        if outcome is not None:
            yield outcome


def report(found: Sequence[Outcome]) -> Iterator[str]:
    yield "# Do repaired models train?\n"
    yield "Written by `benchmarks/repaired.py`; its docstring explains the words.\n"
    for title, part in (("Calibration", True), ("Reported only", False)):
        mine = [each for each in found if each.calibrates is part]
        yield f"## {title}: {len(mine)} cells with an error or a warning\n"
        fixed = [each for each in mine if each.after and each.whole]
        rest = [each for each in mine if each.after and not each.whole]
        loud, verified = sum(each.headlines for each in mine), sum(each.verified for each in mine)
        yield f"- Verified fixes: {verified} of {loud} errors and warnings{_share(verified, loud, VERIFIED)}."
        good = sum(each.after == "trains" for each in fixed)
        share = _share(good, len(fixed), TRAINS)
        yield f"- Of {len(fixed)} cells with nothing but verified fixes, {good} then train{share}."
        good = sum(each.after == "trains" for each in rest)
        yield f"- Of {len(rest)} cells of which some are not verified, {good} train with those that are."
        yield f"- Labels before and after: {_moves(fixed)}.\n"
        yield "| initialisation | cells | train before | train after |\n|---|---|---|---|"
        for name in dict.fromkeys(each.initialisation for each in fixed):
            those = [each for each in fixed if each.initialisation == name]
            before, after = (sum(getattr(each, when) == "trains" for each in those) for when in ("before", "after"))
            yield f"| {name} | {len(those)} | {before} | {after} |"
        if part:
            yield "\n| not cured | before | after | score, of the twin's | rules |\n|---|---|---|---|---|"
            for each in fixed:
                if each.after != "trains":
                    scores = f"{each.score:.2f}, {each.twin:.2f}"
                    yield f"| {each.cell} | {each.before} | {each.after} | {scores} | {', '.join(each.rules)} |"
        yield ""


def _share(some: int, every: int, bar: float) -> str:
    return f" ({some / every:.1%}, bar {bar:.0%})" if every else ""


def _moves(fixed: Sequence[Outcome]) -> str:
    counts = Counter(f"{each.before} to {each.after}" for each in fixed)
    return ", ".join(f"{number} {move}" for move, number in counts.most_common()) or "none"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="*", metavar="GLOB", help="of 'family / initialisation / seed'")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--cache", type=Path, metavar="FILE")
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    chosen = [each for each in cells(options.only, options.seeds) if each.initialisation.intent is Intent.FAULT]
    text = "\n".join(report(list(outcomes(chosen, options.cache)))) + "\n"
    print(text)
    if options.write:
        options.write.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
