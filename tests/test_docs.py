"""The documentation says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import generate
import pytest

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def test_generated_pages_are_current() -> None:
    assert generate.out_of_date() == [], "run python docs/generate.py"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_between_files_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    local = [target for target in targets if not target.startswith(("http://", "https://", "mailto:"))]
    assert [target for target in local if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_files_of_the_repository_that_are_mentioned_exist(path: Path) -> None:
    mentioned = re.findall(
        r"`((?:benchmarks|docs|examples|initlint|rules|tests)/[\w./-]+\.\w+)`", path.read_text(encoding="utf-8")
    )
    tutorial = {
        "rules/one_sided_weights.py",
        "tests/rules/test_one_sided_weights.py",
        "docs/rules/one-sided-weights.md",
    }
    assert [name for name in mentioned if name not in tutorial and not (ROOT / name).exists()] == []
