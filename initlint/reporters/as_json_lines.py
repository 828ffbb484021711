"""One JSON object per line, each with its target: findings, then a failure, then what was not checked.

``type`` says what a line is: finding, suppressed, failure, not-probed, skipped-rule, not-checked. The other keys are
those of the JSON contract; ``fingerprint`` is the finding's identity.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..report import Report, Run
from .as_json import SCHEMA_VERSION, finding_to_dict, report_to_dict
from .identities import Identified, identified, identified_last
from .layout import Layout


def render(run: Run, layout: Layout) -> str:
    return "".join(_text(report, found) for report, found in identified(run, layout))


def render_last(run: Run, layout: Layout) -> str:
    return _text(*identified_last(run, layout))


def _text(report: Report, found: tuple[Identified, ...]) -> str:
    lines = (
        {"schema_version": SCHEMA_VERSION, "type": kind, "target": report.target, **rest}
        for kind, rest in _lines(report, found)
    )
    return "".join(f"{json.dumps(line, allow_nan=False)}\n" for line in lines)


def _lines(report: Report, found: tuple[Identified, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in found:
        finding = {"fingerprint": each.fingerprint, **finding_to_dict(each.finding)}
        if each.reason is None:
            yield "finding", finding
        else:
            yield "suppressed", {**finding, "reason": each.reason}
    told = report_to_dict(report)
    if report.failure is not None:
        yield "failure", {"status": told["status"], **told["failure"]}
    if report.not_probed:
        yield "not-probed", {"reason": report.not_probed}
    for entry in told["skipped_rules"]:
        yield "skipped-rule", entry
    for entry in told["not_checked"]:
        yield "not-checked", entry
