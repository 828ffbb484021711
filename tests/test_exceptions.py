"""Exceptions of a configuration in a run: they end on their day, and those that meet nothing are told."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
from fake_sessions import run

from initlint import checking

pytestmark = pytest.mark.usefixtures("fakes")


def allow(**said: str) -> None:
    table = {"rule": '"named-so"', "at": '"error.*"', "reason": '"a test"', **said}
    Path("initlint.toml").write_text("[[allow]]\n" + "".join(f"{name} = {value}\n" for name, value in table.items()))


def test_an_exception_that_is_over_counts_no_more_and_the_report_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(until="2030-06-30")
    monkeypatch.setattr(checking, "today", lambda: date(2030, 6, 30))
    assert run("error.onnx").exit_code == 0
    monkeypatch.setattr(checking, "today", lambda: date(2030, 7, 1))
    said = "the exception for named-so at error.* (a test) ended on 2030-06-30, so its findings count again"
    result = run("error.onnx")
    assert result.exit_code == 1
    assert f"expired: {said}" in " ".join(result.stdout.split())
    result = run("error.onnx", "--output-format", "json")
    assert json.loads(result.stdout)["reports"][0]["expired_exceptions"] == [
        {"rule": "named-so", "at": "error.*", "target": "*", "reason": "a test", "until": "2030-06-30"}
    ]
    assert result.stderr == f"initlint: {said}\n"


def test_an_exception_that_meets_nothing_is_told() -> None:
    allow(at='"eror.*"')
    result = run("error.onnx", "clean.onnx", "--output-format", "json")
    assert result.exit_code == 1
    assert result.stderr == (
        "initlint: initlint.toml: allow, entry 1: no finding of named-so at eror.* is left to allow; remove or correct "
        "the exception\n"
    )
    assert [each["at"] for each in json.loads(result.stdout)["unused_exceptions"]] == ["eror.*"]


@pytest.mark.parametrize(
    ("said", "arguments"),
    [
        ({}, ["error.onnx", "clean.onnx"]),
        ({"target": '"other/*"'}, ["clean.onnx"]),
        ({}, ["clean.onnx", "--select", "signal"]),
        ({}, ["unread.onnx"]),
        ({}, ["crash.onnx"]),
        ({}, ["late.onnx"]),
        ({}, ["error.onnx", "--layers", "note.*"]),
        ({}, ["clean.onnx", "-q"]),
    ],
)
def test_an_exception_that_may_be_needed_is_not_called_unused(said: dict[str, str], arguments: list[str]) -> None:
    allow(**said)
    assert "left to allow" not in run(*arguments).stderr
