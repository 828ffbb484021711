"""Runs made by hand, rendered in the formats for other people's programs and read again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest
from sample_reports import CLEAN, CRASHED, DEAD, HOSTILE_NAMES, MISSING, SICK, hostile

from initlint.plugin import Severity
from initlint.report import Report, RulePage, Run
from initlint.reporters import render
from initlint.reporters.layout import Layout

PAGE = RulePage("dead-relu-bias", "bias", "Biases are too low.\n\n## Why it matters\n\nNo unit fires.\n\n## Example\n")
QUIET_RULE = RulePage("quiet-rule", "signal", "Says nothing.", "https://example.invalid/quiet-rule")
FOUND = replace(SICK, rules=(PAGE, QUIET_RULE))

RUNS = {
    "findings": Run((FOUND,)),
    "none": Run((CLEAN,)),
    "crashed": Run((CRASHED, MISSING)),
    "no target": Run(()),
    "two of a name": Run((FOUND, FOUND)),
    **{f"hostile {i}": Run((hostile(name),)) for i, name in enumerate(HOSTILE_NAMES)},
    "all hostile": Run(tuple(map(hostile, HOSTILE_NAMES))),
}
each_run = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
each_name = pytest.mark.parametrize("name", HOSTILE_NAMES, ids=range(len(HOSTILE_NAMES)))
NOWHERE = Layout()


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not strict JSON")

    return json.loads(text, parse_constant=refuse)


def sarif(*reports: Report, layout: Layout = NOWHERE) -> Any:
    [run] = strict(render(Run(reports), "sarif", layout))["runs"]
    return run


def lines(*reports: Report) -> list[Any]:
    return [strict(line) for line in render(Run(reports), "json-lines", NOWHERE).splitlines()]


def issues(*reports: Report, layout: Layout = NOWHERE) -> Any:
    return strict(render(Run(reports), "gitlab", layout))


def suites(*reports: Report) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(render(Run(reports), "junit", NOWHERE)))


def many(count: int, severity: Severity) -> Report:
    found = (replace(DEAD, severity=severity, tensor=f"layer.{i}.bias", layer=f"layer.{i}") for i in range(count))
    return replace(CLEAN, findings=tuple(found))
