"""Formats of pipelines: what GitHub, GitLab, readers of JUnit and readers of JSON lines get."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

from rendered import FOUND, NOWHERE, each_run, issues, lines, many, suites
from sample_reports import CLEAN, CRASHED, DEAD, MISSING, SICK, TOO_SMALL

from initlint.plugin import Severity
from initlint.report import FAIL_NEVER, Run
from initlint.reporters import render
from initlint.reporters.layout import Layout

# GitHub --------------------------------------------------------------------------------------------------------------

ANNOTATION = re.compile(r"::(error|warning|notice) (?:file=([^,:]+),line=1,)?title=([^,:]+)::([^\n\r]*)")


def annotations(run: Run, layout: Layout = NOWHERE) -> list[tuple[str, ...]]:
    shown = render(run, "github", layout).splitlines()
    found = [ANNOTATION.fullmatch(line) for line in shown if line.startswith("::")]
    return [each.groups("") for each in found if each is not None]


@each_run
def test_every_line_for_github_is_an_annotation_or_the_closing_one(run: Run) -> None:
    shown = render(run, "github", NOWHERE)
    assert shown.endswith("\n") or not shown
    told = [line for line in shown.split("\n")[:-1] if not ANNOTATION.fullmatch(line)]
    assert all(line.startswith("initlint: ") for line in told)
    assert len(told) <= 1


def test_an_annotation_escapes_what_would_end_it() -> None:
    finding = replace(DEAD, message="50 % of a, b: c", fix=None)
    report = replace(CLEAN, target="a,b:c%.onnx", findings=(finding,))
    assert render(Run((report,)), "github", NOWHERE) == (
        "::warning file=a%2Cb%3Ac%25.onnx,line=1,title=initlint%3A dead-relu-bias::"
        "a,b:c%25.onnx: stem.conv.bias: 50 %25 of a, b: c\n"
    )


def test_annotations_come_by_severity_failures_first() -> None:
    levels = [level for level, *_ in annotations(Run((CLEAN, SICK, MISSING)))]
    assert levels == sorted(levels, key=["error", "warning", "notice"].index)
    assert annotations(Run((SICK, MISSING)))[0][2] == "initlint%3A missing"


def test_github_gets_ten_annotations_of_a_level_and_a_word_on_the_rest() -> None:
    run = Run((replace(many(12, Severity.ERROR), findings=(*many(12, Severity.ERROR).findings, TOO_SMALL)),))
    assert len(annotations(run)) == 10
    assert render(run, "github", NOWHERE).splitlines()[-1] == (
        "initlint: 3 errors without an annotation (GitHub shows 10 a level): see the step's summary"
    )
    exactly = Run((many(10, Severity.WARNING),))
    assert len(render(exactly, "github", NOWHERE).splitlines()) == 10


def test_without_a_summary_every_finding_is_written() -> None:
    run = Run((many(30, Severity.WARNING),))
    assert (
        len(annotations(run, Layout(step_summary=False)))
        == len(render(run, "github", Layout(step_summary=False)).splitlines())
        == 30
    )


# GitLab --------------------------------------------------------------------------------------------------------------


def test_gitlab_gets_severities_of_its_own() -> None:
    told = {issue["check_name"]: issue["severity"] for issue in issues(SICK, MISSING)}
    assert told == {
        "initlint/dead-relu-bias": "major",
        "initlint/variance-mismatch": "critical",
        "initlint/folded-norm": "info",
        "initlint/bias-before-norm": "info",
        "initlint/skipped-rules": "info",
        "initlint/not-checked": "info",
        "initlint/failed": "blocker",
    }


def test_gitlab_gets_paths_of_the_repository() -> None:
    report = replace(CLEAN, target="/checkout/a/net.onnx", findings=(DEAD,))
    assert issues(report, layout=Layout(folder="/checkout"))[0]["location"] == {
        "path": "a/net.onnx",
        "lines": {"begin": 1},
    }


# JUnit ---------------------------------------------------------------------------------------------------------------


def outcome(case: ElementTree.Element) -> str:
    return next((part.tag for part in case if part.tag != "system-out"), "passed")


def test_junit_has_a_case_for_every_rule_passes_too() -> None:
    [suite] = suites(FOUND)
    outcomes = {case.get("name"): outcome(case) for case in suite}
    assert outcomes == {
        "initlint.dead-relu-bias": "passed",
        "initlint.quiet-rule": "passed",
        "initlint.variance-mismatch": "failure",
        "initlint.folded-norm": "passed",
        "initlint.bias-before-norm": "passed",
        "initlint.recurrent-radius": "skipped",
        "initlint.not checked": "skipped",
    }


def test_a_junit_case_fails_where_the_run_does() -> None:
    for fail_on in (*Severity, FAIL_NEVER):
        [suite] = suites(replace(SICK, fail_on=fail_on))
        failed = int(suite.get("failures", ""))
        assert (failed > 0) is (replace(SICK, fail_on=fail_on).exit_status == 1)
        assert failed == {Severity.ERROR: 1, Severity.WARNING: 2, Severity.NOTE: 4, FAIL_NEVER: 0}[fail_on]


def test_milder_findings_are_output_of_a_junit_case_that_passes() -> None:
    [suite] = suites(SICK)
    [case] = [case for case in suite if case.get("name") == "initlint.dead-relu-bias"]
    shown = case.findtext("system-out", "")
    assert shown.startswith("warning at stem.conv.bias: 48 of 64 units cannot fire")
    assert "allowed warning at head.bias: zero head, warm-up schedule" in shown


def test_a_failed_target_is_a_junit_error() -> None:
    [suite] = suites(MISSING)
    assert (suite.get("name"), suite.get("errors"), suite.get("tests")) == ("missing.onnx", "1", "1")
    [error] = suite.iter("error")
    assert error.attrib == {"type": "missing", "message": "missing.onnx does not exist"}


def test_junit_counts_add_up() -> None:
    root = ElementTree.fromstring(render(Run((SICK, CRASHED, MISSING)), "junit", NOWHERE))
    for count, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
        assert int(root.get(count, "")) == len(list(root.iter(tag)))


# JSON lines ----------------------------------------------------------------------------------------------------------


def test_json_lines_hold_a_finding_each_and_what_went_wrong() -> None:
    found = lines(SICK, CLEAN, MISSING)
    kinds = [line["type"] for line in found]
    assert kinds == ["finding"] * 11 + ["suppressed"] + ["skipped-rule"] + ["not-checked"] * 3 + ["failure"]
    finding = next(line for line in found if line["rule"] == "variance-mismatch")
    [told] = [each for each in SICK.to_dict()["findings"] if each["rule"] == "variance-mismatch"]
    assert finding == {
        "schema_version": 1,
        "type": "finding",
        "target": "resnet.onnx",
        "fingerprint": finding["fingerprint"],
        **told,
    }
    assert found[-1] == {
        "schema_version": 1,
        "type": "failure",
        "target": "missing.onnx",
        "status": "failed",
        "kind": "missing",
        "message": "missing.onnx does not exist",
    }


def test_json_lines_of_a_clean_run_are_none() -> None:
    assert render(Run((CLEAN,)), "json-lines", NOWHERE) == ""
