"""What a model says of itself, as it is or with some edits, before anything is folded."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .causes import Place, place
from .plugin import Context, Finding, Severity


@dataclass(frozen=True)
class Examined:
    """The model with some edits: what was measured, and what the rules say; nothing is folded."""

    context: Context
    findings: tuple[Finding, ...]

    @property
    def loud(self) -> dict[Place, Finding]:
        """Errors and warnings by place."""
        return {place(finding): finding for finding in self.findings if finding.severity >= Severity.WARNING}


def numbers(examined: Examined, finding: Finding, joint: bool) -> dict[str, float]:
    """What shows best whether the finding is cured: the signal at its layer or its own gradient, and the verdicts.

    ``joint`` says that others' fixes were applied with its own: the verdicts tell what all of them do.
    """
    context = examined.context
    found: dict[str, float] = {}
    gradient = context.signals.gradients.get(finding.tensor or "")
    signal = context.signals.layers.get(finding.layer or "")
    if finding.category == "symmetry" and "rows" in finding.data:
        rows = context.alike.get(finding.tensor or "")
        found["equal rows"] = float(rows.together if rows is not None else 0)
    elif gradient is not None and finding.category in ("symmetry", "gradient"):
        found["gradient rms"] = gradient.rms
    elif signal is not None:
        spreads = finding.category == "signal"
        found["spread" if spreads else "output rms"] = signal.std if spreads else signal.rms
    found["findings with all fixes" if joint else "errors and warnings"] = float(len(examined.loud))
    return {name: value for name, value in found.items() if not math.isnan(value)}
