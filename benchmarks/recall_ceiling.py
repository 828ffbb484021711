"""How many more failing models could be told at best, from all that the report holds, or from training for a while?

    python benchmarks/recall_ceiling.py N [N ...] [--write benchmarks/results/recall_ceiling.md]

Of the cells of ``drawn.py`` with warnings but no error: which of these warnings should have been errors? Boosted trees
(scikit-learn's) guess it for nets that they have not seen (ten folds, whole nets each) from

findings   how many warnings each rule gives, and the smallest and the largest of every number that its findings hold,
           warnings and notes; how many modules of which type the net has;
training   the loss after 5, 10, 20 and 40 steps of Adam at two rates, of the cell and of its twin, on the probe's batch
           with random targets: what a trial could do in place of a probe, at the price of 80 of them.

The most probable ones are made errors as long as a given share of them is right. A rule is a guess of this kind too,
from fewer numbers: what the trees do not find, no threshold of a rule will. A quarter of an hour for nine draws.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from drawn import RESULTS, cells_of, learns
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import GroupKFold
from truth.drawn_nets import drawn_family
from truth.labels import Cell, Labels
from truth.tables import share, table
from truth.verdicts import Verdict, judge

from initlint.plugin import Severity

FOLDS = 10
OFTEN = 15
"""A number that fewer cells have is left out."""
STEPS, RATES = (5, 10, 20, 40), (1e-3, 1e-2)
PRECISIONS = (0.98, 0.95, 0.9, 0.85, 0.8, 0.7)
Features = dict[str, float]
Matrix = NDArray[np.float64]


def of_findings(verdict: Verdict) -> Features:
    module = verdict.cell.built()
    found: Features = {
        f"a {name}": count for name, count in Counter(type(m).__name__ for m in module.modules()).items()
    }
    for finding in verdict.findings:
        if finding.severity is Severity.WARNING:
            found[finding.rule] = found.get(finding.rule, 0) + 1
        for key, value in finding.data.items():
            if isinstance(value, int | float) and math.isfinite(value):
                size = math.log(abs(value) + 1e-30)
                for name, choose in ((f"{finding.rule}.{key} least", min), (f"{finding.rule}.{key} most", max)):
                    found[name] = choose(found.get(name, size), size)
    return found


def of_training(verdict: Verdict) -> Features:
    cell = verdict.cell
    found: Features = {}
    for rate in RATES:
        for step, own, twins in zip(STEPS, _losses(cell, rate), _of_twin(cell.family.name, rate), strict=True):
            found |= {f"{rate} {step}": own, f"{rate} {step} twin": twins, f"{rate} {step} more": own - twins}
    return found


@cache
def _of_twin(family: str, rate: float) -> list[float]:
    number = int(family.split()[1])
    return _losses(next(cells_of(drawn_family(number), number, 0)), rate)


def _losses(cell: Cell, rate: float) -> list[float]:
    """Mean square errors after STEPS; as large as float32 goes from where they are not finite."""
    module, inputs = cell.built().train(), cell.task.sample
    optimiser, generator = torch.optim.Adam(module.parameters(), rate), torch.Generator().manual_seed(7)
    found: list[float] = []
    target: torch.Tensor | None = None
    for step in range(max(STEPS) + 1):
        output = module(*inputs)
        output = output[0] if isinstance(output, list | tuple) else output
        target = torch.randn(output.shape, generator=generator) if target is None else target
        loss = (output - target).square().mean()
        if step in STEPS:
            found.append(float(loss))
        if not torch.isfinite(loss):
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    worst = float(np.finfo(np.float32).max)
    found += [worst] * (len(STEPS) - len(found))
    return [each if math.isfinite(each) else worst for each in found]


def matrix(rows: Sequence[Features]) -> Matrix:
    counts = Counter(name for row in rows for name in row)
    names = sorted(name for name, count in counts.items() if count >= OFTEN)
    return np.array([[row.get(name, math.nan) for name in names] for row in rows])


def probabilities(features: Matrix, right: NDArray[np.bool_], nets: Sequence[str]) -> Matrix:
    found = np.zeros(len(right))
    for known, unseen in GroupKFold(FOLDS).split(features, right, nets):
        trees = HistGradientBoostingClassifier(max_iter=150, learning_rate=0.06, max_leaf_nodes=12, random_state=0)
        found[unseen] = trees.fit(features[known], right[known]).predict_proba(features[unseen])[:, 1]
    return found


def promoted(chances: Matrix, right: NDArray[np.bool_], verdicts: Sequence[Verdict]) -> Iterator[tuple[str, ...]]:
    """By precision: how many cells get an error, how many of them are right, fail, and fail by half."""
    order = np.argsort(-chances)
    shares = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    fails = np.array([each.is_missed for each in verdicts])[order]
    hard = fails & np.array([max(v.facts.scores.values()) < v.facts.twin / 2 for v in verdicts])[order]
    for precision in PRECISIONS:
        enough = np.flatnonzero(shares >= precision)
        count = int(enough[-1]) + 1 if len(enough) else 0
        yield (
            f"{100 * precision:.0f} %",
            str(count),
            share((int(fails[:count].sum()), int(fails.sum()))),
            share((int(hard[:count].sum()), int(hard.sum()))),
        )


def verdicts_of(draw: int) -> list[Verdict]:
    labels = Labels(RESULTS / f"draw{draw}.json")
    families = [(number, drawn_family(number)) for number in range(1000 * draw, 1000 * draw + len(labels.twins))]
    learning = [(number, family) for number, family in families if learns(labels, family)]
    return list(judge([cell for number, family in learning for cell in cells_of(family, number, 16)], labels))


def report(draws: Sequence[int]) -> Iterator[str]:
    every = [verdict for draw in draws for verdict in verdicts_of(draw)]
    missed = [each for each in every if each.said == "warning"]
    failing = [each for each in every if each.facts.better == "fails"]
    right = np.array([any(map(each.is_right, each.at(Severity.WARNING))) for each in missed])
    nets = [each.cell.family.name for each in missed]
    yield from ("# How many more failing models could be told?", "")
    yield from ("Written by `benchmarks/recall_ceiling.py`; its docstring explains the words.", "")
    told = share((sum(each.said == "error" for each in failing), len(failing)))
    yield f"Draws {', '.join(map(str, draws))}: {len(every)} cells. Of those that fail, {told} have an error."
    should = share((int(right.sum()), len(right)))
    yield f"{len(missed)} cells have warnings and no error; {should} of them should have one."
    findings, training = matrix([of_findings(each) for each in missed]), matrix([of_training(each) for each in missed])
    for title, features in (
        ("findings", findings),
        ("training", training),
        ("findings and training", np.hstack([findings, training])),
    ):
        chances = probabilities(features, right, nets)
        yield from ("", f"## From {title}", "")
        yield from table(
            ("right", "more errors", "of the failing", "of those by half"), promoted(chances, right, missed)
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("draws", type=int, nargs="+")
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    text = "\n".join(report(options.draws)).rstrip() + "\n"
    print(text)
    if options.write:
        options.write.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
