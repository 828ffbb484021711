"""What is said of a finding beside its message: how its fix fared, what it explains, where it is."""

from __future__ import annotations

from collections.abc import Sequence

from ..plugin import Finding
from .wording import listing, number, plural, printable, shortened

_LONGEST_NAME = 200
"""Characters of a target or address within a sentence, two and a half lines of a terminal: no length is forbidden to a
file, and 10,000 characters would bury the message."""

WHOLE_MODEL = "the whole model"
"""What stands for an address where there is none."""


def tried(finding: Finding) -> str:
    """What the trial of the fix measured, as in "tried: rms 2e4 -> 0.59"."""
    if not finding.verified:
        return "suggested, not tried"
    changes = [
        f"{name} {number(finding.before[name])} -> {number(value)}"
        for name, value in finding.after.items()
        if name in finding.before
    ]
    return f"tried: {', '.join(changes)}" if changes else "tried"


def account(target: str, finding: Finding, folded: Sequence[Finding]) -> str:
    """What is wrong, where in ``target``, and below it the details."""
    head = f"{short_name(target)}: {place(finding)}: {printable(finding.message)}"
    return "\n".join([head, *details(finding, folded)])


def details(finding: Finding, folded: Sequence[Finding]) -> list[str]:
    """Lines on the finding's fix and on what it explains; nothing where there is neither."""
    return [*_fix_lines(finding), *([explained(folded)] if folded else [])]


def _fix_lines(finding: Finding) -> list[str]:
    """The fix's code under a line that says what is known of it; nothing where there is no fix."""
    if finding.fix is None:
        return []
    return [f"fix ({tried(finding)}):", *(f"  {printable(line)}" for line in finding.fix.code.splitlines())]


def explained(folded: Sequence[Finding]) -> str:
    """The consequences of a finding, counted by rule."""
    rules = dict.fromkeys(finding.rule for finding in folded)
    counts = [f"{rule} ({sum(finding.rule == rule for finding in folded)})" for rule in rules]
    return f"explains {plural(len(folded), 'more finding')}: {listing(counts)}"


def place(finding: Finding) -> str:
    """The address for use within a sentence."""
    return short_name(finding.address) or WHOLE_MODEL


def whole_place(finding: Finding) -> str:
    """The address however long it is, for lines that people search for it."""
    return printable(finding.address) or WHOLE_MODEL


def short_name(name: str) -> str:
    """``name`` printable and, if it is absurdly long, cut in the middle."""
    return shortened(printable(name), _LONGEST_NAME, "...")
