"""The documentation says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import generate
import pytest

import initlint

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")]


def test_generated_pages_are_current() -> None:
    assert generate.out_of_date() == [], "run python docs/generate.py"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_files_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    local = [target for target in targets if not target.startswith(("http://", "https://", "mailto:"))]
    assert [target for target in local if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
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


def readme_block(language: str) -> str:
    [block] = re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.S | re.M)
    return str(block)


def test_the_configuration_in_the_readme_is_valid(tmp_path: Path) -> None:
    config = tmp_path / "pyproject.toml"
    config.write_text(readme_block("toml"), encoding="utf-8")
    assert initlint.check(ROOT / "examples" / "healthy_mlp.onnx", config=config).ok
