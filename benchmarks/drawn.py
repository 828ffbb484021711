"""Nets and faults drawn by chance, trained, beside what initlint says: a part of the truth that nobody can know.

    python benchmarks/drawn.py N [N ...] [--nets 90] [--faults 16]    # trains what is new of a draw; shows totals only
    python benchmarks/drawn.py N [N ...] --open                      # lists disagreements: for calibration ever since

``truth/drawn_nets.py`` draws architectures and healthy initialisations, ``truth/drawn_faults.py`` faults; protocol,
labels and figures are those of ``trainability.py``, with a single seed for each cell. Another draw is another
benchmark of the same kind, for which no rule has been changed; results/drawn.md says which draws have been opened.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatchcase
from functools import partial
from itertools import count
from pathlib import Path

import torch
from truth.drawn_faults import drawn_fault
from truth.drawn_nets import drawn_family
from truth.families import Family
from truth.initialisations import INITIALISATIONS
from truth.labels import Cell, Labels
from truth.tables import by_rule, disagreements, totals
from truth.verdicts import Part, Verdict, judge

RESULTS = Path(__file__).parent / "results" / "drawn"
LEARNS = 0.8
"""Twins that stay below are left out."""
WORKERS = 2


def cells_of(family: Family, number: int, faults: int) -> Iterator[Cell]:
    twin = next(each for each in INITIALISATIONS if each.name == "twin")
    yield Cell(family, twin, 0)
    torch.manual_seed(0)
    module, found = family.build(), 0
    for step in count():
        fault = drawn_fault(1000 * number + step, module)
        if fault is not None:
            yield Cell(family, fault, 0)
            found += 1
        if found == faults:
            return


def trained(number: int, faults: int, path: Path) -> Labels:
    """Labels of one net's cells, those that are known already among them; of the twin alone where it does not learn."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    labels, family = Labels(path), drawn_family(number)
    for cell in cells_of(family, number, faults):
        if cell.key not in labels.cells:  # whether they are this very model's is seen when it is judged
            labels.train(cell)
        if not learns(labels, family):
            break
    labels.keep(family)
    return labels


def learns(labels: Labels, family: Family) -> bool:
    twin = labels.tuned(family)
    return twin is not None and twin.best >= LEARNS


def complete(draw: int, nets: int, faults: int) -> tuple[Labels, list[Cell]]:
    """Labels of a draw, trained as far as they are not known, and its cells."""
    path = RESULTS / f"draw{draw}.json"
    labels, numbers = Labels(path), range(1000 * draw, 1000 * draw + nets)
    with ProcessPoolExecutor(WORKERS) as pool:
        for more in pool.map(partial(trained, faults=faults, path=path), numbers):
            labels.add(more)
            labels.save()
            print(f"draw {draw}: {len(labels.twins)} of {nets} nets", file=sys.stderr, flush=True)
    families = ((number, drawn_family(number)) for number in numbers)
    return labels, [c for n, family in families if learns(labels, family) for c in cells_of(family, n, faults)]


def told(title: str, verdicts: Sequence[Verdict], opened: bool) -> Iterator[str]:
    part = Part(verdicts)
    yield from (f"## {title}: {len(verdicts)} cells", "", *totals(part))
    if opened:
        yield from by_rule(part)
        yield from disagreements(part)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("draws", type=int, nargs="+")
    parser.add_argument("--nets", type=int, default=90)
    parser.add_argument("--faults", type=int, default=16)
    parser.add_argument("--only", default="*", metavar="GLOB", help="judge these alone")
    parser.add_argument("--open", action="store_true", help="list the disagreements: for calibration from then on")
    parser.add_argument("--loss", action="store_true", help="tell initlint which loss the cells are trained with")
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    RESULTS.mkdir(exist_ok=True)
    verdicts: list[Verdict] = []
    for draw in options.draws:
        labels, cells = complete(draw, options.nets, options.faults)
        verdicts += judge([each for each in cells if fnmatchcase(each.key, options.only)], labels, options.loss)
    title = f"Draws {', '.join(map(str, options.draws))}"
    text = "\n".join(told(title, verdicts, options.open)).rstrip() + "\n"
    print(text)
    if options.write:
        options.write.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
