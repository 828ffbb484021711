"""The verdicts as markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from initlint import catalog
from initlint.plugin import Finding, Severity

from .verdicts import SAID, TRUTHS, Part, Verdict


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield "| " + " | ".join(map(str, head)) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "/") for cell in row) + " |"
    yield ""


def share(pair: tuple[int, int]) -> str:
    some, every = pair
    return f"{some} of {every} ({100 * some / every:.1f} %)" if every else "-"


def totals(part: Part) -> Iterator[str]:
    yield from table(("training", *SAID), ((truth, *(part.count(truth, said) for said in SAID)) for truth in TRUTHS))
    yield from (
        f"- Precision of errors: {share(part.errors)} are right; of cells with errors, in"
        f" {share(part.cells_with_errors)} all are.",
        f"- Recall: {share(part.recall)} of the failing cells have an error; {share(part.hard_recall)} of those below"
        f" half of the twin's score; {share(part.inert_recall)} of those that train but for inert tensors.",
        f"- Slow cells with a warning or an error: {share(part.slow_recall)}.",
        f"- Healthy and idiomatic cells with a wrong error: {part.wrong_on_healthy}.",
        f"- Silence: {share(part.silence)} of the healthy and idiomatic cells that train have no warning.",
        f"- Headlines: {share(part.one_headline)} of the planted faults that are spoken of have exactly one.",
        f"- {sum(bool(each.unprobed) for each in part.verdicts)} cells could not be probed.",
        "",
    )


def by_rule(part: Part) -> Iterator[str]:
    counts: dict[str, list[int]] = defaultdict(lambda: [0] * 5)
    for each in part.verdicts:
        for error in each.at(Severity.ERROR):
            counts[error.rule][not each.is_right(error)] += 1
        for warning in each.at(Severity.WARNING):
            counts[warning.rule][2 if each.facts.better != "trains" else 4 if each.should_be_silent else 3] += 1
    head = (
        "rule",
        "errors, right",
        "errors, wrong",
        "warnings, slow or failing",
        "warnings, training fault",
        "warnings, training healthy or idiom",
    )
    yield from table(head, ((name, *counts[name]) for name in sorted(counts)))


def by(key: Callable[[Verdict], str], title: str, part: Part) -> Iterator[str]:
    groups: dict[str, list[Verdict]] = defaultdict(list)
    for each in part.verdicts:
        groups[key(each)].append(each)
    head = (title, "cells", *TRUTHS, "errors right", "failing found", "silent where healthy")
    rows = []
    for name, verdicts in groups.items():
        mine = Part(verdicts)
        shares = (mine.errors, mine.recall, mine.silence)
        counts = (sum(each.truth == truth for each in verdicts) for truth in TRUTHS)
        rows.append((name, len(verdicts), *counts, *(f"{some}/{every}" for some, every in shares)))
    yield from table(head, rows)


def disagreements(part: Part) -> Iterator[str]:
    """Merged over the seeds."""
    kinds: tuple[tuple[str, Callable[[Verdict], list[str]]], ...] = (
        ("Wrong errors", lambda each: sorted({f"{error.rule} {error.address}" for error in each.wrong_errors})),
        ("Failing, without an error", lambda each: [_warnings(each)] if each.is_missed else []),
        (
            "Healthy or idiomatic, trains, and is warned of",
            lambda each: [_warnings(each)] if each.should_be_silent and each.at(Severity.WARNING) else [],
        ),
        (
            "Inert tensors, without an error at any of them",
            lambda each: [_inert(each)] if each.truth == TRUTHS[1] and not _hits(each) else [],
        ),
    )
    for title, complaint in kinds:
        rows = []
        for name, group in groupby(sorted(part.verdicts, key=_name), key=_name):
            wrong = [(each, complaint(each)) for each in group if complaint(each)]
            if wrong:
                seeds = " ".join(str(each.cell.seed) for each, _ in wrong)
                rows.append((name, seeds, _scores(wrong[0][0]), "; ".join(wrong[0][1])))
        yield f"### {title}: {len(rows)}"
        yield ""
        if rows:
            yield from table(("cell", "seeds", "scores", "what is said or inert on the first of them"), rows)


def _name(verdict: Verdict) -> str:
    return f"{verdict.cell.family.name} / {verdict.cell.initialisation.name}"


def _hits(verdict: Verdict) -> list[Finding]:
    return [error for error in verdict.at(Severity.ERROR) if verdict.is_right(error)]


def _warnings(verdict: Verdict) -> str:
    return "; ".join(f"{each.rule} {each.address or 'model'}" for each in verdict.at(Severity.WARNING)) or "-"


def _inert(verdict: Verdict) -> str:
    names = verdict.inert
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return f"{', '.join(names[:4])}{more}; said: {_warnings(verdict)}"


def _scores(verdict: Verdict) -> str:
    scores = ", ".join(f"{name} {score:.2f}" for name, score in verdict.facts.scores.items())
    return f"{scores}, twin {verdict.facts.twin:.2f}"


def report(verdicts: Sequence[Verdict], open_all: bool) -> str:
    """``open_all``: the part that is only reported on in detail too."""
    parts = (
        ("Calibration", Part([each for each in verdicts if each.cell.calibrates]), True),
        ("Reported only", Part([each for each in verdicts if not each.cell.calibrates]), open_all),
    )
    lines = [
        "# Does initlint tell the truth?",
        "",
        "Written by `python benchmarks/trainability.py judge --write benchmarks/results/trainability.md`; its docstring"
        f" explains the words. initlint has {len(catalog.load_rules())} rules.",
        "",
    ]
    for title, part, detailed in parts:
        seconds = sum(each.seconds for each in part.verdicts)
        lines += [f"## {title}: {len(part.verdicts)} cells, checked in {seconds:.0f} s", "", *totals(part)]
        if detailed:
            lines += by_rule(part)
            lines += by(lambda each: each.cell.family.name, "family", part)
            lines += by(lambda each: each.cell.initialisation.name, "initialisation", part)
            lines += disagreements(part)
    return "\n".join(lines).rstrip() + "\n"
