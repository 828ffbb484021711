"""SARIF: rules, results, where they are, and what went wrong, as code scanning wants them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rendered import FOUND, PAGE, many, sarif
from sample_reports import CLEAN, DEAD, MISSING, SICK, TOO_SMALL, hostile

from initlint.plugin import Severity
from initlint.report import Report
from initlint.reporters import as_sarif
from initlint.reporters.layout import Layout


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


CHECKOUT = Layout(
    start="/checkout", folder="/checkout", modules={"pkg.mod": "/checkout/src/pkg/mod.py", "lib.mod": "/lib/mod.py"}
)


def artifact_of(report: Report) -> dict[str, str] | None:
    [result] = sarif(replace(report, findings=(DEAD,)), layout=CHECKOUT)["results"]
    physical = result["locations"][0].get("physicalLocation")
    return None if physical is None else physical["artifactLocation"]


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
        ("<bytes>", None),
    ],
)
def test_sarif_uris_are_relative_and_encoded(target: str, artifact: dict[str, str] | None) -> None:
    assert artifact_of(replace(CLEAN, target=target)) == artifact


@pytest.mark.parametrize(
    ("target", "artifact"),
    [
        ("nets/net.py:build", {"uri": "nets/net.py", "uriBaseId": "%SRCROOT%"}),
        ("pkg.mod:build", {"uri": "src/pkg/mod.py", "uriBaseId": "%SRCROOT%"}),
        ("lib.mod:build", {"uri": "file:///lib/mod.py"}),
        ("unknown.mod:build", None),
        ("Net", None),
    ],
)
def test_the_sarif_uri_of_a_python_target_is_that_of_its_source(target: str, artifact: dict[str, str] | None) -> None:
    assert artifact_of(replace(CLEAN, target=target, format="torch")) == artifact


def test_a_file_that_is_called_like_a_python_target_is_a_file() -> None:
    assert artifact_of(replace(CLEAN, target="pkg.mod:build")) == {"uri": "pkg.mod%3Abuild", "uriBaseId": "%SRCROOT%"}


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
