"""Promises about the repository itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from initlint import listings
from initlint.catalog import load_rules
from initlint.plugin import Rule

ROOT = Path(__file__).parent.parent
RULE_FILES = sorted(path for path in (ROOT / "rules").glob("*.py") if path.name != "__init__.py")
RULES = [rule for rule in load_rules() if rule.generate.__module__.startswith("initlint.rules.")]
HEADINGS = ["## Why it matters", "## Example", "## Fix", "## References"]
HEAVY = {"numpy", "onnx", "onnxruntime", "torch"}

each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
each_file = pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.stem)


def test_every_rule_file_holds_the_rule_it_is_named_after() -> None:
    assert sorted(rule.name.replace("-", "_") for rule in RULES) == [path.stem for path in RULE_FILES]


def test_rule_names_are_unique() -> None:
    assert [name for name, count in Counter(rule.name for rule in load_rules()).items() if count > 1] == []


@each_rule
def test_rule_page_has_a_summary_and_the_four_headings(rule: Rule) -> None:
    assert re.fullmatch(r"\S.*\.", rule.summary), "the first line is one sentence"
    assert re.findall(r"^## .*$", rule.doc, flags=re.MULTILINE) == HEADINGS
    sections = re.split(r"^## .*$", rule.doc, flags=re.MULTILINE)
    assert all(section.strip() for section in sections)


@each_rule
def test_rule_is_tested_with_a_good_case_a_near_miss_and_a_bad_case(rule: Rule) -> None:
    path = ROOT / "tests" / "rules" / f"test_{rule.name.replace('-', '_')}.py"
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    cases = [
        (call.func.id, call.args[0].value)
        for call in calls
        if isinstance(call.func, ast.Name)
        and call.func.id in {"Good", "Bad"}
        and call.args
        and isinstance(call.args[0], ast.Constant)
    ]
    good = [title for kind, title in cases if kind == "Good"]
    near_misses = [title for title in good if str(title).startswith("near miss")]
    assert len(good) > len(near_misses) > 0, "one plain Good case and one that starts with 'near miss'"
    assert any(kind == "Bad" for kind, _ in cases)


@each_rule
def test_rule_has_a_page_and_a_row_in_the_readme(rule: Rule) -> None:
    assert (ROOT / "docs" / "rules" / f"{rule.name}.md").is_file()
    assert f"[{rule.name}](docs/rules/{rule.name}.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


@each_rule
def test_every_option_says_where_its_number_comes_from(rule: Rule) -> None:
    assert [option.name for option in listings.options(rule) if len(option.source.split()) < 3] == []


@each_rule
def test_every_message_is_used_and_every_cause_exists(rule: Rule) -> None:
    source = Path(rule.generate.__code__.co_filename).read_text(encoding="utf-8")
    unused = [name for name in rule.messages if name != "default" and source.count(f'"{name}"') < 2]
    assert unused == []
    assert {*rule.explains, *rule.overrides} <= {known.name for known in RULES}


PLAIN = {0, 1, 2, 0.5}
"""Numbers that need no source: nothing, the whole, the half, a pair."""


def unexplained_numbers(source: str) -> list[str]:
    """Numbers of a rule file that neither a comment nor a docstring explains; options have a test of their own.

    Of the module: constants without a comment beside or a string below. In functions: numbers that are compared with,
    and all floats, but for those of a fix, without a comment beside.
    """
    lines = source.splitlines()
    module = ast.parse(source)
    found = []
    for node, below in zip(module.body, [*module.body[1:], None], strict=True):
        if isinstance(node, ast.Assign | ast.AnnAssign) and any(_numbers(node)):
            explained = isinstance(below, ast.Expr) or "#" in lines[node.lineno - 1]
            found += [] if explained else [lines[node.lineno - 1]]
    for function in (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)):
        fixes = {number for call in ast.walk(function) if _is_fix(call) for number in _numbers(call)}
        compared = {number for node in ast.walk(function) if isinstance(node, ast.Compare) for number in _numbers(node)}
        for number in _numbers(function):
            magic = (isinstance(number.value, float) or number in compared) and number.value not in PLAIN
            if magic and number not in fixes and "#" not in lines[number.lineno - 1]:
                found.append(f"{number.lineno}: {lines[number.lineno - 1].strip()}")
    return found


def _numbers(node: ast.AST) -> list[ast.Constant]:
    return [each for each in ast.walk(node) if isinstance(each, ast.Constant) and type(each.value) in (int, float)]


def _is_fix(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Reinit", "Fill")


@each_file
def test_every_number_says_where_it_comes_from(path: Path) -> None:
    assert unexplained_numbers(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("LIMIT = 3.0\n", 1),
        ("LIMIT = 3.0  # Tukey 1977\n", 0),
        ('LIMIT = 3.0\n"""Tukey 1977."""\n', 0),
        ("def f(x):\n    return x > 3\n", 1),
        ("def f(x):\n    return x > -1 or x == 0.5\n", 0),
        ("def f(x):\n    return 0.3 * x\n", 1),
        ("def f(x):\n    return x[3]\n", 0),
        ("def f(x):\n    return Reinit(x, 'normal', 0.02)\n", 0),
    ],
)
def test_unexplained_numbers_are_noticed(source: str, count: int) -> None:
    assert len(unexplained_numbers(source)) == count


@each_file
def test_rule_file_is_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 120


@each_file
def test_rule_file_imports_no_framework_at_top_level(path: Path) -> None:
    imported = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            imported.add(str(node.module).split(".")[0])
    assert imported & HEAVY == set()


@pytest.mark.parametrize("arguments", [["--help"], ["check", "--help"], ["rules"], ["explain", "zero-weights"]])
def test_what_only_talks_imports_no_framework(arguments: list[str]) -> None:
    script = (
        "import sys; from initlint.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        f"print('imported:', *sorted({HEAVY!r} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1].split() == ["imported:"]


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.skipif(not tracked_files(), reason="not a git checkout")
def test_no_tracked_file_holds_a_path_of_somebodys_machine() -> None:
    machine_path = re.compile(
        rb"(?<![\w.:/<>{}-])/(?:home|root|work|Users)/\w|[A-Z]:\\Users\\|/lib/python3[\d.]*/site-packages"
    )
    found = [path.relative_to(ROOT).as_posix() for path in tracked_files() if machine_path.search(path.read_bytes())]
    assert found == []


@pytest.mark.skipif(not tracked_files(), reason="not a git checkout")
def test_the_repository_stays_small() -> None:
    """pre-commit.ci allows 250 MiB for an environment, of which the core dependencies take 219."""
    assert sum(path.stat().st_size for path in tracked_files()) < 15 * 2**20
