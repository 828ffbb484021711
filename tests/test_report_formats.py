"""Report formats for other people's programs: valid for every run, and none hides what went wrong."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import jsonschema
import pytest
from expected_text import as_expected
from lxml import etree
from rendered import FOUND, NOWHERE, each_run, strict
from sample_reports import CLEAN, CRASHED, MISSING, SICK, TOO_SMALL

from initlint.report import ProbeSummary, Run
from initlint.reporters import FORMATS, render
from initlint.reporters.layout import Detail, Layout

SCHEMAS = Path(__file__).parent / "schemas"
SARIF, GITLAB = (
    jsonschema.Draft202012Validator(json.loads((SCHEMAS / name).read_text(encoding="utf-8")))
    for name in ("sarif-2.1.0.json", "gitlab-code-quality.json")
)
JUNIT = etree.XMLSchema(etree.parse(SCHEMAS / "junit-10.xsd"))


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
