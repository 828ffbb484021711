"""The pytest plug-in, run by pytest itself in projects made for it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

pytest_plugins = ["pytester"]

INSTALLED = bool(entry_points(group="pytest11", name="initlint"))
LOADED = [] if INSTALLED else ["-p", "initlint.integrations.pytest_plugin"]
"""From a source tree that is not installed, no entry point names the plug-in."""

MODELS = """
import pytest
from torch import nn

def net():
    module = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
    return module
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return pytester


def run(project: pytest.Pytester, tests: str, *arguments: str) -> pytest.RunResult:
    """A pytest of its own, as a user starts it."""
    project.makepyfile(test_models=MODELS + tests)
    return project.runpytest_subprocess(*LOADED, "-p", "no:cacheprovider", "--strict-markers", *arguments, timeout=120)


BROKEN = """
def test_broken(initlint):
    module = net()
    nn.init.constant_(module[0].weight, float("nan"))
    initlint.check(module).raise_for_findings()

def test_healthy(initlint):
    report = initlint.check(net())
    report.raise_for_findings()
    assert report.ok
"""


def test_the_report_is_the_assertion(project: pytest.Pytester) -> None:
    result = run(project, BROKEN)
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(
        [
            ">       initlint.check(module).raise_for_findings()",
            "E       initlint.errors.FindingsError: Sequential  torch, 2 layers*",
            "E         error    non-finite-weights  0.weight",
            "E             nn.init.*",
            "test_models.py:*: FindingsError",
        ]
    )
    shown = result.stdout.str()
    assert "report.py" not in shown, "no frame of ours"
    assert "raise FindingsError" not in shown


def test_what_cannot_be_checked_is_one_sentence(project: pytest.Pytester) -> None:
    tests = """
def test_setting(initlint):
    initlint.check(net(), sede=3)

def test_class(initlint):
    initlint.check(nn.Linear)
"""
    result = run(project, tests)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(['E*UsageError: initlint.check: unknown key "sede"*', "E*Linear is a class; check an*"])
    assert "configuration.py" not in result.stdout.str()


def test_settings_are_those_of_the_project(project: pytest.Pytester) -> None:
    project.makepyprojecttoml(
        """
        [tool.initlint]
        fail-on = "never"
        [[tool.initlint.allow]]
        rule = "non-finite-weights"
        at = "0.*"
        reason = "known"
        """
    )
    project.makefile(".toml", other="fail-on = 'error'")
    tests = """
def broken():
    module = net()
    nn.init.constant_(module[0].weight, float("nan"))
    return module

def test_project(initlint):
    report = initlint.check(broken())
    report.raise_for_findings()
    assert {entry.reason for entry in report.suppressed} == {"known"}

def test_overridden(initlint):
    report = initlint.check(broken(), fail_on="error", isolated=True)
    assert not report.ok and not report.suppressed

def test_named(initlint):
    assert not initlint.check(broken(), config="other.toml").ok
"""
    run(project, tests).assert_outcomes(passed=3)
    result = run(project, tests, "-o", "initlint_config=other.toml")
    result.assert_outcomes(passed=2, failed=1)


def test_a_marker_allows_findings(project: pytest.Pytester) -> None:
    tests = """
def broken():
    module = net()
    nn.init.constant_(module[2].weight, float("nan"))
    return module

@pytest.mark.initlint_allow("non-finite-weights", at="2.*", reason="filled from a file later")
@pytest.mark.initlint_allow("non-finite-activations", reason="they follow")
def test_allowed(initlint):
    report = initlint.check(broken())
    report.raise_for_findings()
    assert "filled from a file later" in {entry.reason for entry in report.suppressed}

@pytest.mark.initlint_allow("non-finite-weights", at="0.*", reason="another layer")
def test_elsewhere(initlint):
    initlint.check(broken()).raise_for_findings()

@pytest.mark.initlint_allow("non-finite-weights")
def test_no_reason():
    pass

@pytest.mark.initlint_allow("non-finite-weights", reason="x", layer="0.*")
def test_unknown_word(initlint):
    pass
"""
    result = run(project, tests)
    result.assert_outcomes(passed=1, failed=1, errors=2)
    result.stdout.fnmatch_lines(["*initlint_allow takes a rule, the pattern of an address, and the reason, as in @*"])
    result = project.runpytest_subprocess(*LOADED, "--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.initlint_allow(rule, at='*', reason=...): *"])


REPORTED = (
    BROKEN
    + """
@pytest.mark.parametrize("width", [1, 2])
def test_several(initlint, width):
    initlint.check(net())
    initlint.check(net())

class TestGroup:
    def test_inside(self, initlint):
        initlint.check(net())

def test_none():
    pass
"""
)
TARGETS = [
    "test_models.py:TestGroup.test_inside",
    "test_models.py:test_broken",
    "test_models.py:test_healthy",
    "test_models.py:test_several[1]",
    "test_models.py:test_several[1]#2",
    "test_models.py:test_several[2]",
    "test_models.py:test_several[2]#2",
]


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["one-process", "workers"])
def test_reports_of_all_tests_become_one_run(project: pytest.Pytester, workers: list[str]) -> None:
    files = ["--initlint-report=json=all.json", "--initlint-report", "text=all.txt"]
    result = run(project, REPORTED, *files, *workers)
    result.assert_outcomes(failed=1, passed=5)
    result.stdout.fnmatch_lines(["initlint: 7 reports written to *all.json, *all.txt"])
    whole = json.loads((project.path / "all.json").read_text(encoding="utf-8"))
    assert [report["target"] for report in whole["reports"]] == TARGETS
    assert whole["summary"]["exit_status"] == 1
    assert "non-finite-weights" in (project.path / "all.txt").read_text(encoding="utf-8")


def test_an_option_that_cannot_work_stops_at_once(project: pytest.Pytester) -> None:
    result = run(project, BROKEN, "--initlint-report=yaml=all.yaml")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --initlint-report yaml=all.yaml: has to be FORMAT=FILE*"])
    result = run(project, BROKEN, "--initlint-report=json=missing/all.json")
    result.stderr.fnmatch_lines(["ERROR: --initlint-report *: there is no folder missing; create it first"])


def test_a_file_that_cannot_be_written_is_said(project: pytest.Pytester) -> None:
    tests = """
def test_in_the_way(initlint):
    from pathlib import Path
    Path("all.json").mkdir()
    initlint.check(net())
"""
    result = run(project, tests, "--initlint-report=json=all.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stdout.fnmatch_lines(["initlint: *all.json cannot be written: *"])


def test_no_report_overwrites_the_configuration(project: pytest.Pytester) -> None:
    configuration = project.makeini("[pytest]\n")
    result = run(project, BROKEN, "--initlint-report=json=tox.ini")
    result.stderr.fnmatch_lines(["ERROR: --initlint-report *overwrite the configuration*"])
    assert configuration.read_text().startswith("[pytest]")


def test_nothing_is_written_where_nothing_runs(project: pytest.Pytester) -> None:
    result = run(project, BROKEN, "--initlint-report=json=all.json", "--collect-only", "-q")
    assert result.ret == 0
    assert not (project.path / "all.json").exists()


@pytest.mark.skipif(not INSTALLED, reason="initlint is not installed, so nothing is loaded by itself")
def test_it_can_be_switched_off(project: pytest.Pytester) -> None:
    result = run(project, BROKEN, "-p", "no:initlint")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*fixture 'initlint' not found"])


def test_importing_it_is_cheap() -> None:
    script = (
        "import sys, initlint.integrations.pytest_plugin\n"
        "print(*sorted({'numpy', 'onnx', 'onnxruntime', 'torch', 'rich', 'click'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
