"""The report for people: a header, the signal by depth, findings grouped by layer, what was not checked, a summary."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from io import StringIO

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from ..plugin import Finding, Severity
from ..report import Report, Run
from .coverage import coverage
from .grouping import Grouped, grouped
from .layer_table import layer_table, shape
from .layout import Detail, Layout
from .profile import profile
from .sentences import WHOLE_MODEL, explained, tried
from .summary import statistics, summary
from .wording import evidence, listing, plural, printable, quantity

PLAIN_WIDTH = 100
"""Columns of ``print(report)``."""

STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.NOTE: "bold cyan"}

_INDENT = 2


def render(run: Run, layout: Layout) -> str:
    """Every report, then the summary."""
    return "".join(render_report(report, layout) for report in run.reports) + render_summary(run, layout)


def render_report(report: Report, layout: Layout) -> str:
    """One target's part, ending with an empty line unless it is empty."""
    console = _console(layout)
    for part in _report(report, layout):
        console.print(part, soft_wrap=isinstance(part, Text) and part.no_wrap is True)
    return _text(console)


def render_summary(run: Run, layout: Layout) -> str:
    """The closing lines."""
    console = _console(layout)
    worst = max((finding.severity for report in run.reports for finding in report.headlines), default=None)
    failed = any(report.failure is not None for report in run.reports)
    style = "bold red" if failed else ("bold green" if worst is None else STYLES[worst])
    console.print(Text(summary(run), style))
    return _text(console)


def render_statistics(run: Run, layout: Layout) -> str:
    """Counts per rule instead of findings."""
    console = _console(layout)
    for count, severity, rule in statistics(run):
        console.print(Text.assemble(f"{count:>5,}  ", (f"{severity!s:<7}", STYLES[severity]), f"  {printable(rule)}"))
    return _text(console)


def render_markdown(page: str, layout: Layout) -> str:
    """A rule's page for a terminal."""
    from rich.markdown import Markdown

    console = _console(layout)
    console.print(Markdown(page, hyperlinks=False))
    return _text(console)


def render_plain(report: Report) -> str:
    """A report without colour, as ``print(report)`` shows it."""
    return render(Run((report,)), Layout(width=PLAIN_WIDTH)).rstrip("\n")


def _console(layout: Layout) -> Console:
    return Console(
        file=StringIO(),
        width=layout.width,
        force_terminal=layout.color,
        color_system="standard" if layout.color else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )


def _text(console: Console) -> str:
    written = console.file
    assert isinstance(written, StringIO)
    return "".join(f"{line.rstrip()}\n" for line in written.getvalue().splitlines())


Part = Text | Padding


def _report(report: Report, layout: Layout) -> Iterator[Part]:
    quiet = layout.detail is Detail.QUIET
    groups = grouped(report, layout.detail)
    if quiet and not groups.layers and not groups.collapsed and report.failure is None:
        return
    yield _header(report, layout)
    if report.failure is not None:
        yield _failure(report)
    if not quiet:
        yield from _overview(report, layout)
    for layer, findings in groups.layers:
        yield Text()
        yield _layer_heading(report, layer, layout)
        for finding in findings:
            yield from _finding(finding, groups, layout)
    yield from _collapsed(groups)
    if not quiet:
        yield from _coverage(report, groups, layout)
    yield Text()


def _header(report: Report, layout: Layout) -> Text:
    header = Text(printable(report.target), "bold")
    if report.layers:
        facts = (report.format, plural(len(report.layers), "layer"), f"{quantity(report.parameters)} parameters")
        header.append(f"  {', '.join(facts)}", "not bold dim")
    return _unbroken(header)


def _failure(report: Report) -> Text:
    message = printable(report.failure.message if report.failure else "")
    return _unbroken(Text.assemble(" " * _INDENT, (str(report.status), "bold red"), "  ", message))


def _overview(report: Report, layout: Layout) -> Iterator[Part]:
    label = "signal by depth  "
    line = profile(report.layers, layout.width - len(label), layout.signs)
    if line is not None:
        yield Text.assemble((label, "dim"), line)
    if layout.detail is Detail.VERBOSE and report.layers:
        yield Text()
        heading, *rows = layer_table(report.layers, layout)
        yield _unbroken(Text(heading, "dim"))
        yield from (_unbroken(Text(row)) for row in rows)


def _layer_heading(report: Report, layer: str, layout: Layout) -> Text:
    heading = Text(printable(layer) or WHOLE_MODEL, "bold underline")
    row = next((row for row in report.layers if row.layer.name == layer), None)
    if row is not None:
        facts = [f"{row.layer.kind} {shape(row, layout.signs)}"]
        if row.layer.fan_in is not None:
            facts.append(f"fan_in {row.layer.fan_in:,}")
        if row.layer.activation != "identity":
            facts.append(f"then {printable(row.layer.activation)}")
        heading.append(f"  {', '.join(facts)}", "not bold not underline dim")
    return _unbroken(heading)


def _finding(finding: Finding, groups: Grouped, layout: Layout) -> Iterator[Part]:
    head = Text.assemble(
        " " * _INDENT, (f"{finding.severity!s:<7}", STYLES[finding.severity]), "  ", (printable(finding.rule), "bold")
    )
    if finding.tensor or not finding.layer:
        head.append(f"  {printable(finding.address)}")
    yield _unbroken(head)
    yield _indented(Text(printable(finding.message)), 2)
    facts = _evidence(finding, layout)
    if facts:
        yield _indented(Text(facts, "dim"), 2)
    yield from _fix(finding, layout.width)
    yield from _consequences(groups.consequences(finding), layout)


def _evidence(finding: Finding, layout: Layout) -> str:
    """The finding's data, as far as the message does not say it already."""
    message = finding.message.replace(",", "")
    facts = []
    for name, value in finding.data.items():
        shown = evidence(value)
        if layout.detail is Detail.VERBOSE or not any(_says(message, text) for text in (shown, str(value))):
            facts.append(f"{printable(name)} {shown}")
    return f" {layout.signs.dot} ".join(facts)


def _says(message: str, text: str) -> bool:
    """Whether ``message`` holds ``text`` as words or a number of its own."""
    return re.search(rf"(?<![\w.-]){re.escape(text.replace(',', ''))}(?!\w|\.\d)", message) is not None


def _fix(finding: Finding, width: int) -> Iterator[Part]:
    """The code, with what is known of it as a comment where there is room, else in front of it."""
    if finding.fix is None:
        return
    lines = finding.fix.code.splitlines()
    known = tried(finding)
    margin = " " * 2 * _INDENT
    if len(lines) == 1:
        line = Text.assemble(margin, ("fix: ", "green"), printable(lines[0]))
        comment = Text(f"  # {known}", "dim")
        if line.cell_len + comment.cell_len <= width:
            yield _unbroken(line.append_text(comment))
            return
    yield _indented(Text(f"fix ({known}):", "green"), 2)
    yield from (_unbroken(Text(f"{margin}{' ' * _INDENT}{printable(line)}")) for line in lines)


def _consequences(folded: Sequence[Finding], layout: Layout) -> Iterator[Part]:
    if not folded:
        return
    if layout.detail is Detail.VERBOSE:
        yield _indented(Text(f"explains {plural(len(folded), 'more finding')}:", "dim"), 2)
        for finding in folded:
            place = f"{finding.severity} {printable(finding.rule)} {printable(finding.address)}"
            yield _indented(Text(f"{place}: {printable(finding.message)}", "dim"), 3)
        return
    yield _indented(Text(explained(folded), "dim"), 2)


def _collapsed(groups: Grouped) -> Iterator[Part]:
    """Many notes of one rule as one entry."""
    for findings in groups.collapsed:
        first = findings[0]
        yield Text()
        places = listing([finding.address for finding in findings])
        yield Text.assemble(
            ("note", STYLES[Severity.NOTE]),
            "  ",
            (printable(first.rule), "bold"),
            f"  at {len(findings)} places: {places}",
        )
        same = all(finding.message == first.message for finding in findings)
        yield _indented(Text(f"{'' if same else 'for example: '}{printable(first.message)}"), 2)


def _coverage(report: Report, groups: Grouped, layout: Layout) -> Iterator[Part]:
    lines = list(coverage(report, layout, len(groups.orphans)))
    if lines:
        yield Text()
    for label, text in lines:
        yield Padding(Text.assemble((f"{label}: ", "yellow"), text), (0, 0, 0, 0))


def _indented(text: Text, steps: int) -> Padding:
    return Padding(text, (0, 0, 0, _INDENT * steps), expand=False)


def _unbroken(text: Text) -> Text:
    """``text`` that no console wraps: names and code should survive being searched for and copied."""
    text.no_wrap = True
    return text
