"""Write the rule pages, their index and the generated parts of the README from the rules and the examples.

python docs/generate.py            write
python docs/generate.py --check    say what is out of date and exit with status 1 if anything is
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from initlint import listings
from initlint.catalog import load_rules
from initlint.plugin import Rule

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "rules"
README = ROOT / "README.md"
GENERATED = "<!-- written by docs/generate.py from the rule's file: edit that -->"
COMMAND = ["examples/broken_mlp.onnx"]
WIDTH = 100
CATEGORIES = {
    "numerics": "Values that no arithmetic survives.",
    "symmetry": "Units that start alike, or as nothing.",
    "scale": "Weights too large or too small for their fan-in and activation.",
    "bias": "Biases that switch units off.",
    "norm": "Normalisation layers that start in a state they cannot leave.",
    "signal": "What the probe batch looks like on its way through.",
    "gradient": "What comes back, and what never learns.",
    "provenance": "What the file is, rather than what is wrong with it.",
}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def table(rules: list[Rule], link: str) -> str:
    """One row a rule, by category; ``link`` is put before the file name of a rule's page."""
    order = list(CATEGORIES)
    rows = [
        f"| {rule.category} | [{rule.name}]({link}{rule.name}.md) | {_cell(rule.summary)} |"
        for rule in sorted(rules, key=lambda rule: (order.index(rule.category), rule.name))
    ]
    return "\n".join(["| category | rule | what it finds |", "|---|---|---|", *rows])


def index(rules: list[Rule]) -> str:
    """The page that lists all rules."""
    present = {rule.category for rule in rules}
    categories = "\n".join(f"- `{name}`: {text}" for name, text in CATEGORIES.items() if name in present)
    intro = "Select a rule by its name or a whole category: `--select symmetry,dead-relu-bias`."
    return "\n\n".join([GENERATED, "# Rules", intro, categories, table(rules, "")]) + "\n"


def example_output() -> str:
    """What initlint prints about the broken example."""
    run = subprocess.run(
        [sys.executable, "-m", "initlint", *COMMAND, "--color", "never"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": str(WIDTH)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode != 1:
        raise SystemExit(f"initlint {' '.join(COMMAND)} ended with {run.returncode}, not 1: {run.stderr}")
    text = re.sub(r", [\d.]+ m?s$", "", run.stdout.rstrip())  # how long it took differs from run to run
    text = "\n".join(line.rstrip() for line in text.splitlines())
    return f"```console\n$ initlint {' '.join(COMMAND)}\n{text}\n```"


def readme(rules: list[Rule]) -> str:
    """The README with its generated parts, which stand between HTML comments, replaced."""
    text = README.read_text(encoding="utf-8")
    for name, content in {"output": example_output(), "rules": table(rules, "docs/rules/")}.items():
        begin, end = f"<!-- {name}: written by docs/generate.py -->", f"<!-- end of {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise SystemExit(f"README.md: the marks of the generated part {name!r} are missing")
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"
    return text


def contents() -> dict[Path, str]:
    """Every generated file with what it ought to hold."""
    rules = [rule for rule in load_rules() if rule.generate.__module__.startswith("initlint.rules.")]
    pages = {PAGES / f"{rule.name}.md": f"{GENERATED}\n\n{listings.page(rule)}" for rule in rules}
    return pages | {PAGES / "index.md": index(rules), README: readme(rules)}


def out_of_date() -> list[str]:
    """One line for each file that is missing, stale or nobody's."""
    wanted = contents()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    orphans = [path for path in PAGES.glob("*.md") if path not in wanted]
    return [f"{path.relative_to(ROOT).as_posix()} is out of date" for path in stale] + [
        f"{path.relative_to(ROOT).as_posix()} belongs to no rule" for path in orphans
    ]


def main() -> int:
    if "--check" in sys.argv[1:]:
        complaints = out_of_date()
        for complaint in complaints:
            print(complaint)
        if complaints:
            print("Run: python docs/generate.py")
        return bool(complaints)
    PAGES.mkdir(exist_ok=True)
    wanted = contents()
    for path in PAGES.glob("*.md"):
        if path not in wanted:
            path.unlink()
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
