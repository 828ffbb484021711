"""Markdown for a comment on a pull request, or a step's summary: counts, a table per target, details folded away.

Names come from models: they stand in ``<code>``, where GitHub and GitLab make no mentions and no links of them.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from ..plugin import Finding, Severity
from ..report import Report, Run
from .coverage import gaps, suppressed
from .grouping import Grouped, grouped
from .layout import Detail, Layout
from .sentences import WHOLE_MODEL, explained, short_name, tried
from .summary import summary
from .wording import evidence, plural, printable

LONGEST_COMMENT = 65_000
"""Bytes. A comment on GitHub holds 65,536 characters."""

_ROWS = 50
"""Rows of a table where not everything has room."""
_NAMED = 3
_BADGES = {Severity.ERROR: "❌ error", Severity.WARNING: "⚠️ warning", Severity.NOTE: "ℹ️ note"}  # noqa: RUF001


def render(run: Run, layout: Layout) -> str:
    return comment(run, LONGEST_COMMENT, layout.detail)


def comment(run: Run, most: int, detail: Detail) -> str:
    """``run`` in at most ``most`` bytes: where there is no room, details go first, then rows, then targets.

    Verbosely, notes of one rule at many places have a row each.
    """
    for detailed, kept, rows in ((True, detail, None), (False, detail, None), (False, Detail.NORMAL, _ROWS)):
        text = "\n".join(_lines(run, detailed, kept, rows)) + "\n"
        if _size(text) <= most:
            return text
    return _cut(text, most)


def _lines(run: Run, detailed: bool, detail: Detail, rows: int | None) -> Iterator[str]:
    yield f"**initlint**: {'; '.join(summary(run).splitlines()) or 'nothing was checked'}"
    for report in sorted(run.reports, key=_gravity):
        part = list(_target(report, detailed, detail, rows))
        if part:
            yield ""
            yield f"### {_code(report.target)}"
            yield ""
            yield from part


def _gravity(report: Report) -> tuple[bool, int]:
    worst = max((finding.severity for finding in report.headlines), default=0)
    return report.failure is None, -worst


def _target(report: Report, detailed: bool, detail: Detail, rows: int | None) -> Iterator[str]:
    """Nothing where nothing was found and everything was checked."""
    groups = grouped(report, detail)
    entries = _entries(groups)
    if report.failure is not None:
        yield f"❌ **{report.status}** ({report.failure.kind}): {_prose(report.failure.message)}"
        yield ""
    if entries:
        yield from _table(entries[:rows])
        if len(entries) > len(entries[:rows]):
            yield f"\n… and {plural(sum(map(len, entries[rows:])), 'more finding')}."
        yield ""
        if detailed:
            yield from _details(entries, groups)
    told = [f"- {gap.kind}: {_prose(gap.reason)}{_subjects(gap.subjects)}" for gap in gaps(report)]
    yield from (*told, *(f"- {label}: {count}" for label, count in suppressed(report)))


def _entries(groups: Grouped) -> list[tuple[Finding, ...]]:
    """What gets a row: a finding, or all notes of a rule at many places; the gravest first."""
    alone: list[tuple[Finding, ...]] = [(finding,) for _, findings in groups.layers for finding in findings]
    return sorted([*alone, *groups.collapsed], key=lambda entry: -entry[0].severity)


def _table(entries: Sequence[tuple[Finding, ...]]) -> Iterator[str]:
    yield "| | rule | where | what |"
    yield "|---|---|---|---|"
    for entry in entries:
        first = entry[0]
        places = [_where(finding) for finding in entry[:_NAMED]]
        more = f" and {len(entry) - _NAMED:,} more" if len(entry) > _NAMED else ""
        yield (
            f"| {_BADGES[first.severity]} | {_code(first.rule)} | {', '.join(places)}{more} | {_prose(first.message)} |"
        )


def _details(entries: Sequence[tuple[Finding, ...]], groups: Grouped) -> Iterator[str]:
    told = [line for entry in entries for line in _detail(entry[0], groups)]
    if told:
        yield from ("<details><summary>Evidence and fixes</summary>", "", *told, "</details>", "")


def _detail(finding: Finding, groups: Grouped) -> list[str]:
    """Paragraphs, each with the empty line behind it; nothing for a finding whose message says it all."""
    told: list[str] = []
    facts = [f"{_prose(name)} {_prose(evidence(value))}" for name, value in finding.data.items()]
    if facts:
        told += [f"Evidence: {' · '.join(facts)}", ""]
    if folded := groups.consequences(finding):
        told += [f"It {_prose(explained(folded))}.", ""]
    if finding.fix is not None:
        told += [f"Fix ({_prose(tried(finding))}):", "", *_fenced(finding.fix.code), ""]
    return [f"**{_code(finding.rule)}** at {_where(finding)}", "", *told] if told else []


def _where(finding: Finding) -> str:
    return _code(finding.address) if finding.address else WHOLE_MODEL


def _subjects(subjects: Sequence[str]) -> str:
    if not subjects:
        return ""
    more = f" and {len(subjects) - _NAMED:,} more" if len(subjects) > _NAMED else ""
    return f" ({', '.join(_code(subject) for subject in subjects[:_NAMED])}{more})"


def _code(name: str) -> str:
    """A name, shown as it is: no Markdown, no HTML, no mention, no link."""
    return f"<code>{_escaped(short_name(name))}</code>"


def _prose(text: str) -> str:
    """A sentence that may quote names; it is one line, and neither mentions nor refers to anything."""
    shown = _escaped(printable(text))
    return re.sub(r"(@|&#35;|:(?=//)|\bwww)", r"\1&#8203;", shown)  # a zero-width space, as dependency bots do


def _escaped(text: str) -> str:
    escaped = html.escape(text, quote=False).replace("#", "&#35;")
    return re.sub(r"([\\`*_{}\[\]|~$])", r"\\\1", escaped)


def _fenced(code: str) -> Iterator[str]:
    lines = [printable(line) for line in code.splitlines()]
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    yield f"{fence}python"
    yield from lines
    yield fence


_CUT = "\n\n… cut here: the rest has no room.\n"


def _cut(text: str, most: int) -> str:
    """Whole lines of ``text``, as many as fit, and a line that says so."""
    kept: list[str] = []
    room = most - _size(_CUT)
    for line in text.splitlines():
        room -= _size(line) + 1
        if room < 0:
            break
        kept.append(line)
    return "\n".join(kept) + _CUT


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
