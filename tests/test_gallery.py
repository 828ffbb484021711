"""The examples beside the two model files: code to lint, and a rule pack."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import mlp
import pytest
import torch

import initlint

EXAMPLES = Path(__file__).parent.parent / "examples"
PACK = EXAMPLES / "rule_pack"
MISTAKES = {
    ("dead-relu-bias", "layers.0.bias"),
    ("variance-mismatch", "layers.2.weight"),
    ("constant-weights", "layers.4.weight"),
    ("zero-weights", "layers.6.weight"),
}


@pytest.mark.parametrize("seed", range(3))
def test_the_broken_builder_has_the_mistakes_of_the_broken_file(seed: int) -> None:
    torch.manual_seed(seed)
    report = initlint.check(mlp.broken())
    assert {(finding.rule, finding.address) for finding in report.headlines} == MISTAKES
    assert not report.ok


@pytest.mark.parametrize("seed", range(3))
def test_the_repaired_builder_is_silent(seed: int) -> None:
    torch.manual_seed(seed)
    report = initlint.check(mlp.repaired())
    assert (report.findings, report.ok) == ((), True)


def test_builders_are_checked_by_their_names() -> None:
    assert not initlint.check(f"{EXAMPLES / 'mlp.py'}:broken").ok
    assert initlint.check(f"{EXAMPLES / 'mlp.py'}:repaired").findings == ()


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder that looks as pip leaves it: the package, and the metadata that its pyproject.toml asks for."""
    project = tomllib.loads((PACK / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    header = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (metadata / "METADATA").write_text(header, encoding="utf-8")
    lines = [
        line
        for group, entries in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "lint_pack").symlink_to(PACK / "lint_pack", target_is_directory=True)
    return tmp_path


def initlint_with(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); from initlint.cli import main; main({list(arguments)!r})"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=EXAMPLES.parent, capture_output=True, text=True, check=False
    )


def test_the_rule_pack_comes_through_the_entry_point(installed: Path) -> None:
    listed = initlint_with(installed, "rules").stdout
    assert re.search(r"house\s+odd-width", listed)
    assert "zero-weights" in listed
    explained = initlint_with(installed, "explain", "odd-width").stdout
    assert "multiple of eight" in explained


def test_the_rule_of_the_pack_speaks_of_odd_widths_only(installed: Path) -> None:
    healthy = initlint_with(installed, "examples/healthy_mlp.onnx", "--select", "house")
    assert (healthy.returncode, "odd-width" in healthy.stdout) == (0, False), (
        "64 is a multiple of 8; 10 are the classes"
    )
    narrow = initlint_with(
        installed, "examples/mlp.py:Mlp", "--kwargs", '{"width": 60}', "--select", "house", "--fail-on", "note"
    )
    assert narrow.returncode == 1
    assert "60 units are no multiple of 8; 64 would be" in narrow.stdout
    assert "4 notes in 5 layers" in narrow.stdout


def test_every_example_is_in_the_table() -> None:
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    named = {(EXAMPLES / link).resolve() for link in re.findall(r"\]\(([^)#]+)", table)}
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=EXAMPLES, capture_output=True, text=True, check=False)
    examples = [EXAMPLES / name for name in listing.stdout.split("\0") if name and not name.endswith("__init__.py")]
    unnamed = [path.name for path in examples if path.is_file() and path.resolve() not in named]
    assert unnamed in ([], ["README.md"])  # nothing is listed outside a git checkout
