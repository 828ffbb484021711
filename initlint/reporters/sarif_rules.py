"""The rules of a run as SARIF describes them (section 3.49)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..report import Report, RulePage, Run
from .wording import printable

_LONGEST_TEXT = 1000
"""Characters of a description; GitHub shows 1024 (docs.github.com, "SARIF support for code scanning")."""


@dataclass(frozen=True)
class Rules:
    """The rules of a run, each once, by name."""

    pages: tuple[RulePage, ...]

    @classmethod
    def of(cls, run: Run) -> Rules:
        """All rules that were held against a target, and those that a report made by hand names."""
        pages: dict[str, RulePage] = {}
        for report in run.reports:
            for page in (*report.rules, *_named(report)):
                pages.setdefault(page.name, page)
        return cls(tuple(pages[name] for name in sorted(pages)))

    def index(self, name: str) -> int:
        return next(i for i, page in enumerate(self.pages) if page.name == name)

    def descriptors(self) -> list[dict[str, Any]]:
        return [_descriptor(page) for page in self.pages]


def _named(report: Report) -> list[RulePage]:
    findings = [*report.findings, *(entry.finding for entry in report.suppressed)]
    known = [RulePage(finding.rule, finding.category, url=finding.url) for finding in findings]
    return known + [RulePage(entry.rule, "") for entry in report.skipped_rules]


def _descriptor(page: RulePage) -> dict[str, Any]:
    name = printable(page.name)
    summary = page.summary or name
    told: dict[str, Any] = {
        "id": name,
        "name": "".join(word.capitalize() for word in name.split("-")),
        "shortDescription": {"text": summary},
        "fullDescription": {"text": _first_section(page.doc) or summary},
        "help": {"text": page.doc or summary, "markdown": f"# {name}\n\n{page.doc or summary}\n"},
        "defaultConfiguration": {"level": "warning"},  # a finding has the level that its evidence gives it
        "properties": {"tags": ["initialisation", *([printable(page.category)] if page.category else [])]},
    }
    if page.url.startswith(("https://", "http://")):  # section 3.49.12 wants an absolute one
        told["helpUri"] = page.url
    return told


def _first_section(doc: str) -> str:
    """The text under a rule page's first heading, "Why it matters"."""
    parts = re.split(r"^## .*$", doc, flags=re.MULTILINE)
    text = parts[1].strip() if len(parts) > 1 else ""
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 3]}..."
