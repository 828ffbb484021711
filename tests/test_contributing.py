"""The tutorial in CONTRIBUTING.md works as written."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import initlint.rules

ROOT = Path(__file__).parent.parent
RULE, TEST = re.findall(r"^```python\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.S | re.M)


@pytest.mark.skipif((ROOT / "rules" / "one_sided_weights.py").exists(), reason="the tutorial is being followed")
def test_the_rule_of_the_tutorial_passes_its_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one_sided_weights.py").write_text(RULE, encoding="utf-8")
    monkeypatch.setattr(initlint.rules, "__path__", [*initlint.rules.__path__, str(tmp_path)])
    namespace: dict[str, object] = {}
    exec(TEST, namespace)  # noqa: S102
    test = namespace["test_one_sided_weights"]
    try:
        for case in test.pytestmark[0].args[1]:  # type: ignore[attr-defined]
            test(case)  # type: ignore[operator]
    finally:
        sys.modules.pop("initlint.rules.one_sided_weights", None)
        vars(initlint.rules).pop("one_sided_weights", None)
