"""Report formats for other people's programs: valid for every run, and none hides what went wrong."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from expected_text import as_expected
from lxml import etree
from markdown_it import MarkdownIt
from sample_reports import CLEAN, CRASHED, DEAD, HOSTILE_NAMES, MISSING, SICK, TOO_SMALL, bias_note, hostile

from initlint.plugin import Severity
from initlint.report import FAIL_NEVER, ProbeSummary, Report, RulePage, Run
from initlint.reporters import FORMATS, as_sarif, render
from initlint.reporters.as_markdown import LONGEST_COMMENT, comment
from initlint.reporters.layout import Detail, Layout

SCHEMAS = Path(__file__).parent / "schemas"
SARIF, GITLAB = (
    jsonschema.Draft202012Validator(json.loads((SCHEMAS / name).read_text(encoding="utf-8")))
    for name in ("sarif-2.1.0.json", "gitlab-code-quality.json")
)
JUNIT = etree.XMLSchema(etree.parse(SCHEMAS / "junit-10.xsd"))

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


@pytest.mark.parametrize("schema", [SARIF, GITLAB], ids=["sarif", "gitlab"])
def test_the_schemas_are_schemas(schema: jsonschema.Draft202012Validator) -> None:
    schema.check_schema(schema.schema)
    assert not schema.is_valid({"version": "2.1.0"})


# Valid for every run -------------------------------------------------------------------------------------------------


@each_run
def test_sarif_follows_the_schema(run: Run) -> None:
    SARIF.validate(strict(render(run, "sarif", NOWHERE)))


@each_run
def test_gitlab_follows_the_schema(run: Run) -> None:
    GITLAB.validate(strict(render(run, "gitlab", NOWHERE)))


@each_run
def test_junit_follows_the_schema(run: Run) -> None:
    JUNIT.assertValid(etree.fromstring(render(run, "junit", NOWHERE).encode()))


@each_run
def test_json_lines_are_objects_with_a_type_and_a_target(run: Run) -> None:
    text = render(run, "json-lines", NOWHERE)
    for line in text.split("\n")[:-1]:
        assert strict(line).keys() >= {"schema_version", "type", "target"}


@each_run
@pytest.mark.parametrize("output_format", [name for name in FORMATS if name not in ("json", "json-lines")])
def test_what_is_written_can_be_encoded_and_moves_no_cursor(run: Run, output_format: str) -> None:
    shown = render(run, output_format, NOWHERE)
    shown.encode("utf-8")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]", shown)


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_format_has_not_changed_unnoticed(output_format: str) -> None:
    if output_format in ("text", "json"):
        pytest.skip("the report for people is held in report.txt, JSON in schema.json")
    shown = render(Run((FOUND, CLEAN, MISSING)), output_format, NOWHERE)
    ending = {"json-lines": "jsonl", "junit": "xml", "gitlab": "json", "sarif": "json"}.get(output_format, "txt")
    version = f'"{metadata.version("initlint")}"'
    as_expected(f"{output_format}.{ending}", shown.replace(version, '"VERSION"'))


# Nothing is hidden ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("detail", [Detail.NORMAL, Detail.VERBOSE])
def test_no_format_hides_what_failed_or_was_not_checked(output_format: str, detail: Detail) -> None:
    unprobed = replace(CLEAN, probe=ProbeSummary(reason="the inputs do not fit"))
    shown = render(Run((SICK, CRASHED, MISSING, unprobed)), output_format, Layout(width=200, detail=detail))
    for told in (
        "SIGSEGV",
        "missing.onnx does not exist",
        "recurrent-radius",
        "needs liveness, which was not measured",
        "branches of If are not followed",
        "what operator Mystery does is not known",
        "the inputs do not fit",
    ):
        assert told in shown


@pytest.mark.parametrize("output_format", FORMATS)
def test_every_format_names_rule_address_and_target_of_a_finding(output_format: str) -> None:
    shown = render(Run((replace(CLEAN, findings=(TOO_SMALL,)),)), output_format, Layout(width=200))
    shown = shown.replace("\\_", "_")
    for told in ("mlp.onnx", TOO_SMALL.rule, TOO_SMALL.address, "weights are 7.1 times too small", "kaiming_normal_"):
        assert told in shown or (told == "kaiming_normal_" and output_format == "concise")


# SARIF ---------------------------------------------------------------------------------------------------------------


def test_sarif_describes_all_rules_that_ran() -> None:
    rules = sarif(FOUND)["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == sorted(rule["id"] for rule in rules)
    told = next(rule for rule in rules if rule["id"] == "dead-relu-bias")
    assert told == {
        "id": "dead-relu-bias",
        "name": "DeadReluBias",
        "shortDescription": {"text": "Biases are too low."},
        "fullDescription": {"text": "No unit fires."},
        "help": {"text": PAGE.doc, "markdown": f"# dead-relu-bias\n\n{PAGE.doc}\n"},
        "defaultConfiguration": {"level": "warning"},
        "properties": {"tags": ["initialisation", "bias"]},
    }
    quiet = next(rule for rule in rules if rule["id"] == "quiet-rule")
    assert quiet["helpUri"] == "https://example.invalid/quiet-rule"


def test_sarif_results_point_to_their_rule_and_have_its_level() -> None:
    told = sarif(FOUND)
    rules = told["tool"]["driver"]["rules"]
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in told["results"])
    levels = {result["ruleId"]: result["level"] for result in told["results"]}
    assert (levels["variance-mismatch"], levels["dead-relu-bias"], levels["folded-norm"]) == (
        "error",
        "warning",
        "note",
    )


def test_a_sarif_message_names_target_address_and_fix() -> None:
    [result] = sarif(replace(CLEAN, findings=(TOO_SMALL,)))["results"]
    first, label, code = result["message"]["text"].splitlines()
    assert first.startswith(f"mlp.onnx: {TOO_SMALL.address}: weights are 7.1 times too small")
    assert (label, code.strip()) == ("fix (suggested, not tried):", TOO_SMALL.fix.code)  # type: ignore[union-attr]
    assert result["properties"]["fix"]["code"] == TOO_SMALL.fix.code  # type: ignore[union-attr]
    assert result["properties"]["data"]["std"] == 0.00832


def test_a_sarif_location_is_the_file_and_in_it_the_tensor() -> None:
    [result] = sarif(replace(CLEAN, findings=(TOO_SMALL,)))["results"]
    assert result["locations"] == [
        {
            "logicalLocations": [{"fullyQualifiedName": TOO_SMALL.address, "kind": "member"}],
            "physicalLocation": {
                "artifactLocation": {"uri": "mlp.onnx", "uriBaseId": "%SRCROOT%"},
                "region": {"startLine": 1},
            },
        }
    ]


@pytest.mark.parametrize(
    ("target", "artifact"),
    [
        ("models/net.onnx", {"uri": "models/net.onnx", "uriBaseId": "%SRCROOT%"}),
        ("./a//net.onnx", {"uri": "a/net.onnx", "uriBaseId": "%SRCROOT%"}),
        ("/checkout/a/net.onnx", {"uri": "a/net.onnx", "uriBaseId": "%SRCROOT%"}),
        ("a b/schön#1?%:.onnx", {"uri": "a%20b/sch%C3%B6n%231%3F%25%3A.onnx", "uriBaseId": "%SRCROOT%"}),
        ("../net.onnx", {"uri": "file:///net.onnx"}),
        ("/else where/net.onnx", {"uri": "file:///else%20where/net.onnx"}),
        ("\udcff.onnx", {"uri": "%FF.onnx", "uriBaseId": "%SRCROOT%"}),
        ("nets/net.py:build", {"uri": "nets/net.py", "uriBaseId": "%SRCROOT%"}),
        ("pkg.mod:build", {"uri": "src/pkg/mod.py", "uriBaseId": "%SRCROOT%"}),
        ("lib.mod:build", {"uri": "file:///lib/mod.py"}),
        ("unknown.mod:build", None),
        ("<bytes>", None),
    ],
)
def test_sarif_uris_are_relative_and_encoded(target: str, artifact: dict[str, str] | None) -> None:
    layout = Layout(
        start="/checkout", folder="/checkout", modules={"pkg.mod": "/checkout/src/pkg/mod.py", "lib.mod": "/lib/mod.py"}
    )
    [result] = sarif(replace(CLEAN, target=target, findings=(DEAD,)), layout=layout)["results"]
    physical = result["locations"][0].get("physicalLocation")
    assert (None if physical is None else physical["artifactLocation"]) == artifact


def test_a_module_at_hand_has_no_file() -> None:
    [result] = sarif(replace(CLEAN, target="Net", format="torch", findings=(DEAD,)))["results"]
    assert "physicalLocation" not in result["locations"][0]


def test_folded_findings_are_related_locations_of_their_cause() -> None:
    results = sarif(SICK)["results"]
    [cause] = [result for result in results if result["ruleId"] == "variance-mismatch"]
    related = cause["relatedLocations"]
    names = [each["logicalLocations"][0]["fullyQualifiedName"] for each in related]
    assert names == ["encoder.stages.0.blocks.1.conv1", "encoder.norm", "head"]
    assert related[0]["message"]["text"].startswith("warning vanishing-signal at encoder.stages.0.blocks.1.conv1: ")
    assert cause["properties"]["folded"] == 3
    assert not any(result["ruleId"] == "vanishing-signal" for result in results)


def test_allowed_findings_are_suppressed_results_with_the_reason() -> None:
    suppressed = [result for result in sarif(SICK)["results"] if "suppressions" in result]
    assert [result["suppressions"] for result in suppressed] == [
        [{"kind": "external", "status": "accepted", "justification": "zero head, warm-up schedule"}]
    ]


def test_a_sarif_invocation_tells_what_failed_and_was_skipped() -> None:
    [invocation] = sarif(SICK, MISSING)["invocations"]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (False, 2)
    told = [(each["level"], each["descriptor"]["id"]) for each in invocation["toolExecutionNotifications"]]
    assert told == [
        ("warning", "skipped-rule"),
        ("warning", "not-checked"),
        ("warning", "not-checked"),
        ("error", "missing"),
    ]
    skipped, unchecked, *_ = invocation["toolExecutionNotifications"]
    assert skipped["associatedRule"]["id"] == "recurrent-radius"
    assert [each["logicalLocations"][0]["fullyQualifiedName"] for each in unchecked["locations"]] == [
        "/branch/If_0",
        "/branch/If_1",
    ]
    [fine] = sarif(FOUND)["invocations"]
    assert (fine["executionSuccessful"], fine["exitCode"]) == (True, 1)


def test_more_results_than_github_takes_are_cut_by_severity_and_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(as_sarif, "_MOST_RESULTS", 25)
    report = replace(CLEAN, findings=(*many(30, Severity.NOTE).findings, TOO_SMALL))
    told = sarif(report)
    assert len(told["results"]) == 25
    assert told["results"][0]["ruleId"] == "variance-mismatch"
    [notification] = told["invocations"][0]["toolExecutionNotifications"]
    assert notification["message"]["text"] == "6 results of the least severity left out: GitHub takes 25"


def test_a_name_plays_no_link_in_a_sarif_message() -> None:
    [result, *_] = sarif(hostile("[click](https://example.invalid)"))["results"]
    assert "](" not in result["message"]["text"]


# Fingerprints --------------------------------------------------------------------------------------------------------


def prints(report: Report, layout: Layout = NOWHERE) -> list[str]:
    results = sarif(report, layout=layout)["results"]
    in_sarif = [result["partialFingerprints"]["initlint/v1"] for result in results]
    assert [result["partialFingerprints"]["primaryLocationLineHash"] for result in results] == [
        f"{each}:1" for each in in_sarif
    ]
    in_gitlab = [issue["fingerprint"] for issue in issues(report, layout=layout)]
    in_lines = [line["fingerprint"] for line in lines(report) if "fingerprint" in line]
    assert layout is not NOWHERE or set(in_sarif) <= set(in_lines)
    told = {each for each, result in zip(in_sarif, results, strict=True) if "suppressions" not in result}
    assert set(in_sarif) & set(in_gitlab) == told
    return in_sarif


def test_formats_agree_on_fingerprints() -> None:
    assert len(prints(SICK)) == len(SICK.headlines) + len(SICK.suppressed)


def test_fingerprints_forget_what_is_measured() -> None:
    before = replace(CLEAN, findings=(TOO_SMALL, DEAD))
    louder = replace(TOO_SMALL, severity=Severity.WARNING, message="8.3 times", data={"std": 1.0}, verified=True)
    assert prints(before) == prints(replace(before, findings=(louder, DEAD), seconds=9.0))
    assert prints(before)[::-1] == prints(replace(before, findings=(DEAD, TOO_SMALL)))


def test_fingerprints_are_those_of_the_relative_path() -> None:
    report = replace(CLEAN, target="/here/models/net.onnx", findings=(DEAD,))
    there = replace(report, target="models/net.onnx")
    assert prints(report, Layout(start="/", folder="/here")) == prints(there, Layout(start="/a", folder="/a"))
    assert prints(report, Layout(folder="/here")) != prints(report, Layout(folder="/here/models"))
    below = replace(report, target="net.onnx")
    assert prints(below, Layout(start="/here/models", folder="/here")) == prints(there)


def test_fingerprints_are_unique_in_a_run() -> None:
    whole = replace(DEAD, layer=None, tensor=None)
    twice = replace(SICK, findings=(*SICK.findings, whole, replace(whole, message="another")))
    found = [issue["fingerprint"] for issue in issues(twice, CRASHED, MISSING, twice)]
    assert len(set(found)) == len(found)
    results = sarif(twice, twice)["results"]
    assert len({result["partialFingerprints"]["initlint/v1"] for result in results}) == len(results)


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


# Markdown ------------------------------------------------------------------------------------------------------------


def played(text: str) -> str:
    return str(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


def test_markdown_of_a_clean_run_is_one_line() -> None:
    assert render(Run((CLEAN,)), "markdown", NOWHERE) == (
        "**initlint**: all clean: 2 layers, 12.3 k parameters, 0.04 s\n"
    )
    assert render(Run(()), "markdown", NOWHERE) == "**initlint**: nothing was checked\n"


def test_markdown_shows_the_gravest_target_and_finding_first() -> None:
    shown = render(Run((CLEAN, SICK, MISSING)), "markdown", NOWHERE)
    assert re.findall(r"^### .*$", shown, flags=re.M) == [
        "### <code>missing.onnx</code>",
        "### <code>resnet.onnx</code>",
    ]
    rows = re.findall(r"^\| (\S+ \w+) \| <code>([\w-]+)</code>", shown, flags=re.M)
    assert [rule for _, rule in rows] == ["variance-mismatch", "dead-relu-bias", "folded-norm", "bias-before-norm"]


@each_name
def test_a_name_in_markdown_is_text(name: str) -> None:
    page = played(render(Run((hostile(name),)), "markdown", NOWHERE))
    tags = {tag.lower() for tag in re.findall(r"<\s*/?\s*([A-Za-z!]\w*)", page)}
    ours = "p strong h3 code table thead tbody tr th td details summary pre ul li"
    assert tags <= set(ours.split())
    body = page.partition("<tbody>")[2].partition("</tbody>")[0]
    assert body.count("<tr>") == 2
    assert body.count("<td>") == 8


def test_markdown_mentions_nobody_and_refers_to_nothing() -> None:
    finding = replace(DEAD, message="ask @octocat about #1 at https://example.invalid")
    shown = render(Run((replace(CLEAN, findings=(finding,)),)), "markdown", NOWHERE)
    assert not re.search(r"@octocat|#1\b|://", shown)


@pytest.mark.parametrize("count", [100, 1_000, 3_000])
def test_a_comment_stays_within_what_github_takes(count: int) -> None:
    found = tuple(bias_note(f"layer.{i}") for i in range(count)) + many(count, Severity.ERROR).findings
    shown = comment(Run((MISSING, replace(CLEAN, findings=found))), LONGEST_COMMENT, Detail.VERBOSE)
    assert len(shown.encode()) <= LONGEST_COMMENT < 65_536
    assert "missing.onnx does not exist" in shown
    assert f"{count:,} errors" in shown.splitlines()[0]
    if count > 100:
        assert "more finding" in shown


def test_a_comment_on_too_many_targets_says_that_it_was_cut() -> None:
    run = Run(tuple(replace(MISSING, target=f"{i}.onnx") for i in range(5_000)))
    shown = comment(run, LONGEST_COMMENT, Detail.NORMAL)
    assert len(shown.encode()) <= LONGEST_COMMENT
    assert shown.endswith("… cut here: the rest has no room.\n")
