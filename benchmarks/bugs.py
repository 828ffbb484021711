"""Real bugs with their repaired twins, and deliberate idioms: what training shows beside what initlint says.

    python benchmarks/bugs.py [--only GLOB] [--write benchmarks/results/bugs.md] [--cache FILE]   # 13 minutes

Every case of ``benchmarks/cases`` is checked on three seeds, with the first 32 samples of its task as inputs and no
loss, and trained for a short time; ``benchmarks/training.py`` has the protocol, ``--cache`` keeps what it showed. What
training proves is an error where the better optimiser fails or where some tensor never moves or never separates, and
the twin's does; a warning where the better optimiser is slow; otherwise the bug is harmless here.

Verdicts  ``found``: on every seed a finding of at least the proven severity at a tensor that is to blame.
          ``too mild``: found, but below that severity. ``missed``: no warning or error there. ``pending``: missed, by
          a rule that is not written yet. ``harmless``: training proves nothing, so nothing has to be said.
Unexpected are: ``missed`` and ``too mild``; a warning or an error about a repaired twin or an idiom; and a wrong
error, at a tensor that moves and separates in a model that trains. Exit status 1 if there is anything unexpected.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from cases import copies, garbage, gates, idioms, joined, more_idioms, scales, shut, zeros
from cases.case import Bug, Idiom
from torch import nn
from training import Facts, Task, memorise, observe, tasks, tune

import initlint
from initlint.plugin import Finding, Severity

BUGS = (*zeros.BUGS, *copies.BUGS, *garbage.BUGS, *scales.BUGS, *gates.BUGS, *shut.BUGS, *joined.BUGS)
IDIOMS = (*idioms.IDIOMS, *more_idioms.IDIOMS, *gates.IDIOMS, *shut.IDIOMS, *joined.IDIOMS)
SEEDS = 3
LEARNS = 0.5
"""A healthy model below this score says nothing about a bug in it."""


@dataclass(frozen=True)
class Said:
    """What initlint said on each seed."""

    reports: tuple[initlint.Report, ...]

    def headlines(self, least: Severity = Severity.WARNING) -> list[list[Finding]]:
        return [[f for f in r.findings if f.caused_by is None and f.severity >= least] for r in self.reports]

    @property
    def worst(self) -> list[str]:
        """Findings of any seed above note, each once."""
        return list(dict.fromkeys(spelled(f) for findings in self.headlines() for f in findings))

    def severity_at(self, patterns: tuple[str, ...]) -> Severity | None:
        """The gravest finding at one of ``patterns``, on the seed where it is mildest."""
        gravest = []
        for findings in self.headlines(Severity.NOTE):
            there = [f.severity for f in findings if any(is_at(f, pattern) for pattern in patterns)]
            if not there:
                return None
            gravest.append(max(there))
        return min(gravest)


@dataclass
class Row:
    name: str
    source: str
    training: str
    said: list[str]
    verdict: str
    expected: bool = True
    remarks: list[str] = field(default_factory=list)

    def cells(self) -> tuple[str, ...]:
        return (
            self.name,
            self.source,
            self.training,
            "; ".join(self.said) or "-",
            self.verdict,
            "; ".join(self.remarks),
        )


def spelled(finding: Finding) -> str:
    return f"{finding.severity} {finding.rule} {finding.address or 'model'}"


def is_at(finding: Finding, pattern: str) -> bool:
    """A layer's address stands for its weight and its bias."""
    address = finding.address.partition("[")[0]
    return any(fnmatchcase(each, pattern) for each in (address, f"{address}.weight", f"{address}.bias"))


def say(build: Callable[[], tuple[nn.Module, Task]]) -> Said:
    reports = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        module, task = build()
        reports.append(initlint.check(module, task.sample))
        if reports[-1].probe.reason or reports[-1].probe.backward != "exact":
            print(f"    not probed: {reports[-1].probe.reason}")
    return Said(tuple(reports))


# -- training --------------------------------------------------------------------------------------------------------


class Cache:
    """What training showed, by name of the case; a file of JSON, or nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.known = json.loads(path.read_text()) if path is not None and path.exists() else {}

    def facts(self, name: str, measure: Callable[[], Facts]) -> Facts:
        if name not in self.known:
            facts = measure()
            sets = {"never_moved": sorted(facts.never_moved), "together": sorted(facts.together)}
            self.known[name] = {**asdict(facts), **sets}
            if self.path is not None:
                self.path.write_text(json.dumps(self.known, indent=1))
        raw = self.known[name]
        sets = {"never_moved": frozenset(raw["never_moved"]), "together": frozenset(raw["together"])}
        return Facts(**{**raw, **sets})


def train_bug(bug: Bug) -> Facts:
    task = tasks()[bug.task]
    return observe(lambda: bug.build(True), task, tune(lambda: bug.build(False), task))


def train_idiom(idiom: Idiom) -> Facts:
    """An idiom is its own twin."""
    torch.manual_seed(0)
    tuned = tune(lambda: prepared(idiom)[0], prepared(idiom)[1])
    return Facts({}, {}, tuned.best, tuned.never_moved, tuned.together)


# -- bugs ------------------------------------------------------------------------------------------------------------


def judge_bug(bug: Bug, cache: Cache) -> Row:
    task = tasks()[bug.task]
    said, twin = (say(lambda broken=broken: (bug.build(broken), task)) for broken in (True, False))
    facts = cache.facts(bug.name, lambda: train_bug(bug))
    row = Row(bug.name, bug.source, described(facts), said.worst, verdict(proven(facts), said.severity_at(bug.at), bug))
    row.remarks = [f"twin: {each}" for each in twin.worst] + [f"wrong: {each}" for each in wrong_errors(said, facts)]
    if facts.twin < LEARNS:
        row.remarks.append(f"the twin does not learn ({facts.twin:.2f})")
    row.expected = row.verdict not in ("missed", "too mild") and not row.remarks
    return row


def proven(facts: Facts) -> Severity | None:
    if facts.better == "fails" or facts.never_moved or facts.together:
        return Severity.ERROR
    return Severity.WARNING if facts.better == "slow" else None


def verdict(proof: Severity | None, found: Severity | None, bug: Bug) -> str:
    if proof is None:
        return "harmless"
    if found is not None and found >= proof:
        return "found"
    if bug.pending:
        return f"pending ({', '.join(bug.pending)})"
    return "missed" if found in (None, Severity.NOTE) else "too mild"


def wrong_errors(said: Said, facts: Facts) -> Iterator[str]:
    """Errors at tensors that move and separate, in a model that trains."""
    if facts.better != "trains":
        return
    for each in dict.fromkeys(f for findings in said.headlines(Severity.ERROR) for f in map(_key, findings)):
        if not facts.is_inert(each[1]):
            yield " ".join(each)


def _key(finding: Finding) -> tuple[str, str]:
    return finding.rule, finding.address


def described(facts: Facts) -> str:
    parts = [f"{name} {label} ({facts.scores[name]:.2f})" for name, label in facts.labels.items()]
    parts.append(f"twin {facts.twin:.2f}")
    for what, addresses in (("never moved", facts.never_moved), ("never separated", facts.together)):
        if addresses:
            shown = sorted(addresses)[:4]
            more = f" and {len(addresses) - 4} more" if len(addresses) > 4 else ""
            parts.append(f"{what}: {', '.join(shown)}{more}")
    return "; ".join(parts)


# -- idioms ----------------------------------------------------------------------------------------------------------


def judge_idiom(idiom: Idiom, cache: Cache) -> Row:
    said = say(lambda: prepared(idiom))
    facts = cache.facts(idiom.name, lambda: train_idiom(idiom))
    never = f"; never moved: {', '.join(sorted(facts.never_moved))}" if facts.never_moved else ""
    never += f"; never separated: {', '.join(sorted(facts.together))}" if facts.together else ""
    training = f"{'trains' if facts.twin >= LEARNS else 'weak'} ({facts.twin:.2f}){never}"
    return Row(idiom.name, "", training, said.worst, "false alarm" if said.worst else "silent", not said.worst)


def prepared(idiom: Idiom) -> tuple[nn.Module, Task]:
    made = idiom.build()
    if isinstance(made, nn.Module):
        return made, tasks()[idiom.task]
    module, inputs = made
    return module, memorise(module, inputs)


# -- the table -------------------------------------------------------------------------------------------------------


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "/") for cell in row) + " |"


def report(bugs: list[Row], idiom_rows: list[Row]) -> str:
    assert __doc__ is not None
    tally = {each: sum(row.verdict.partition(" (")[0] == each for row in bugs) for each in (
        "found", "too mild", "missed", "pending", "harmless"
    )}  # fmt: skip
    twins = sum(any(remark.startswith("twin: ") for remark in row.remarks) for row in bugs)
    wrong = sum(remark.startswith("wrong: ") for row in bugs for remark in row.remarks)
    lines = [
        "# Bugs and idioms",
        "",
        "Written by `python benchmarks/bugs.py --write benchmarks/results/bugs.md`; its docstring explains the words.",
        "",
        f"{len(bugs)} bugs: " + ", ".join(f"{count} {name}" for name, count in tally.items()) + ".",
        f"{len(bugs) - twins} of {len(bugs)} repaired twins are silent; {wrong} wrong errors.",
        f"{sum(row.expected for row in idiom_rows)} of {len(idiom_rows)} idioms get nothing above a note.",
        "",
        *table(("bug", "source", "training", "initlint says", "verdict", "unexpected"), (row.cells() for row in bugs)),
        "",
        *table(
            ("idiom", "training", "initlint says", "verdict"),
            ((r.name, r.training, "; ".join(r.said) or "-", r.verdict) for r in idiom_rows),
        ),
    ]
    return "\n".join(lines) + "\n"


def show(row: Row) -> None:
    print(f"{'ok ' if row.expected else 'BAD'} {row.verdict:12} {row.name}")
    print(f"      training: {row.training}")
    for each in row.said:
        print(f"      {each}")
    for each in row.remarks:
        print(f"      ! {each}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", metavar="GLOB", help="names of cases")
    parser.add_argument("--cache", type=Path, metavar="FILE", help="keep what training showed")
    parser.add_argument("--write", type=Path, metavar="FILE")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    started, cache = time.perf_counter(), Cache(options.cache)
    bugs, idiom_rows = [], []
    for bug in (each for each in BUGS if fnmatchcase(each.name, options.only)):
        bugs.append(judge_bug(bug, cache))
        show(bugs[-1])
    for idiom in (each for each in IDIOMS if fnmatchcase(each.name, options.only)):
        idiom_rows.append(judge_idiom(idiom, cache))
        show(idiom_rows[-1])
    text = report(bugs, idiom_rows)
    print("\n".join(text.splitlines()[4:7]))
    print(f"{time.perf_counter() - started:.0f} s")
    if options.write:
        options.write.write_text(text)
    return int(not all(row.expected for row in (*bugs, *idiom_rows)))


if __name__ == "__main__":
    sys.exit(main())
