"""initlint from Python: reports, errors, public names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sample_reports import CLEAN, MISSING

import initlint
from initlint.errors import InitlintError
from initlint.probe.signals import Forward
from initlint.report import ProbeSummary

pytestmark = pytest.mark.usefixtures("fakes")


def test_check_gives_a_report_that_is_the_gate() -> None:
    report = initlint.check("error.onnx", select=["names"])
    assert not report.ok
    assert [finding.address for finding in report.findings] == ["error.0.weight", "error.1.weight", "note.2.weight"]
    with pytest.raises(AssertionError, match="named-so"):
        report.raise_for_findings()
    assert initlint.check("error.onnx", fail_on="never").ok
    assert initlint.check(Path("clean.onnx")).ok


@pytest.mark.parametrize(
    ("target", "settings"),
    [
        ("missing.onnx", {}),
        ("clean.onnx", {"sede": 3}),
        ("clean.onnx", {"select": ["name-so"]}),
        ("clean.onnx", {"layers": ["nothing"]}),
        ("clean.onnx", {"loss": object()}),
    ],
)
def test_what_exits_with_2_raises(target: str, settings: dict[str, Any]) -> None:
    with pytest.raises(InitlintError):
        initlint.check(target, **settings)


@pytest.mark.parametrize(
    ("target", "status"), [("text.onnx", "unsupported"), ("empty.onnx", "unsupported"), ("crash.onnx", "failed")]
)
def test_what_exits_with_3_or_4_is_a_report(target: str, status: str) -> None:
    report = initlint.check(target)
    assert (report.status, report.ok) == (status, False)


@pytest.mark.parametrize("target", [None, 3, ["a.onnx"]])
def test_a_target_of_an_unknown_kind_is_refused(target: object) -> None:
    with pytest.raises(InitlintError, match=r"a target is a torch.nn.Module, the path of a file"):
        initlint.check(target)


def test_public_names_are_there() -> None:
    for name in (*initlint.__all__, "__version__"):
        assert getattr(initlint, name) is not None
        assert name in dir(initlint)
    with pytest.raises(AttributeError):
        initlint.nothing_of_that_name  # noqa: B018


def test_a_report_says_why_there_are_no_signals() -> None:
    unprobed = replace(CLEAN, probe=ProbeSummary(reason="the inputs do not fit"))
    assert unprobed.not_probed == "the inputs do not fit"
    assert replace(unprobed, failure=MISSING.failure).not_probed == "", "the failure says it"
    assert replace(CLEAN, probe=ProbeSummary(Forward.MEASURED, reason="no gradients")).not_probed == ""
    assert replace(CLEAN, probe=ProbeSummary()).not_probed == ""
