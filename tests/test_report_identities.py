"""Fingerprints: the same in every format, the same tomorrow and elsewhere, and never twice in a run."""

from __future__ import annotations

from dataclasses import replace

from rendered import NOWHERE, issues, lines, sarif
from sample_reports import CLEAN, CRASHED, DEAD, MISSING, SICK, TOO_SMALL

from initlint.plugin import Severity
from initlint.report import Report
from initlint.reporters.layout import Layout


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
    tagged, as_seen = replace(report, target="net:v2"), replace(report, target="models/net:v2")
    assert prints(tagged, Layout(start="/here/models", folder="/here")) == prints(as_seen)


def test_fingerprints_are_unique_in_a_run() -> None:
    whole = replace(DEAD, layer=None, tensor=None)
    twice = replace(SICK, findings=(*SICK.findings, whole, replace(whole, message="another")))
    found = [issue["fingerprint"] for issue in issues(twice, CRASHED, MISSING, twice)]
    assert len(set(found)) == len(found)
    results = sarif(twice, twice)["results"]
    assert len({result["partialFingerprints"]["initlint/v1"] for result in results}) == len(results)
