"""The command line: what it takes, and the status it exits with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_sessions import SESSIONS, FakeSession, run

import initlint

pytestmark = pytest.mark.usefixtures("fakes")


# Commands and targets ------------------------------------------------------------------------------------------------


def test_check_is_the_default_command() -> None:
    assert run("error.onnx").output.splitlines()[:-1] == run("check", "error.onnx").output.splitlines()[:-1]
    assert run("--select", "names", "error.onnx").exit_code == 1


def test_nothing_to_check_is_wrong_usage_with_a_hint() -> None:
    for arguments in ([], ["check"], ["-v"]):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "name at least one model, as in `initlint model.onnx`" in result.stderr
        assert "configuration `targets`" in result.stderr


def test_a_misspelt_command_is_recognised() -> None:
    result = run("explian", "named-so")
    assert result.exit_code == 2
    assert 'did you mean "explain"?' in result.stderr


def test_help_and_version_exit_with_0() -> None:
    for arguments in (["--help"], ["-h"], ["check", "--help"], ["--version"]):
        assert run(*arguments).exit_code == 0
    assert run("--version").output == f"initlint {initlint.__version__}\n"


def test_help_tells_of_inputs_that_do_not_fit_and_that_a_target_may_be_left_out() -> None:
    assert "inputs that do not fit" in " ".join(run("--help").output.split())
    assert "[OPTIONS] [TARGET]..." in run("check", "--help").output


def test_a_folder_is_refused_with_an_example(tmp_path: Path) -> None:
    (tmp_path / "inner.onnx").touch()
    result = run(str(tmp_path), "clean.onnx")
    assert result.exit_code == 2
    assert "is a folder" in result.output
    assert "2 layers" in result.output


# Exit status ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("clean.onnx", 0),
        ("note.onnx", 0),
        ("warning.onnx", 0),
        ("error.onnx", 1),
        ("missing.onnx", 2),
        ("text.onnx", 3),
        ("strange.onnx", 3),
        ("empty.onnx", 3),
        ("crash.onnx", 4),
        ("endless.onnx", 4),
        ("late.onnx", 4),
    ],
)
def test_the_exit_status_tells_what_happened(target: str, status: int) -> None:
    result = run(target)
    assert result.exit_code == status
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("threshold", "statuses"),
    [("note", [0, 1, 1, 1]), ("warning", [0, 0, 1, 1]), ("error", [0, 0, 0, 1]), ("never", [0, 0, 0, 0])],
)
def test_fail_on_moves_the_threshold(threshold: str, statuses: list[int]) -> None:
    targets = ("clean.onnx", "note.onnx", "warning.onnx", "error.onnx")
    assert [run(target, "--fail-on", threshold).exit_code for target in targets] == statuses


@pytest.mark.parametrize(
    ("targets", "status"),
    [
        (["clean.onnx", "error.onnx"], 1),
        (["text.onnx", "clean.onnx"], 3),
        (["text.onnx", "error.onnx"], 1),
        (["error.onnx", "crash.onnx", "text.onnx"], 4),
        (["crash.onnx", "error.onnx", "missing.onnx", "text.onnx"], 2),
    ],
)
def test_a_faulty_target_leaves_the_others_checked(targets: list[str], status: int) -> None:
    result = run(*targets, "--output-format", "json")
    assert result.exit_code == status
    assert [report["target"] for report in json.loads(result.stdout)["reports"]] == targets


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--select", "name-so"],
            'command line: select: there is no rule or category "name-so"; did you mean "named-so"?',
        ),
        (["--input-shape", "x:1xa"], "command line: input-shape has to be a shape"),
        (["--dim", "batch"], "as in batch=8"),
        (["--batch", "0"], "batch has to be"),
        (["--batch", "many"], "'many' is not a valid integer"),
        (["--fail-on", "fatal"], "'fatal' is not one of"),
        (["--inputs", "gone.npz"], "no such file: gone.npz"),
        (["--config", "gone.toml"], "no configuration file gone.toml"),
        (["--output-file", "json"], "has to be FORMAT=FILE"),
        (["--output-file", "yaml=a"], "has to be FORMAT=FILE"),
        (["--output-file", "json=gone/a.json"], "there is no folder gone"),
        (["-q", "-v"], "contradict"),
        (["--statistics", "--output-format", "json"], "--statistics"),
    ],
)
def test_a_fault_of_the_settings_stops_the_run_before_anything_is_checked(arguments: list[str], message: str) -> None:
    result = run("clean.onnx", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert SESSIONS == []


def test_a_broken_configuration_stops_the_run(tmp_path: Path) -> None:
    Path("initlint.toml").write_text("sede = 3\n")
    result = run("clean.onnx")
    assert result.exit_code == 2
    assert result.stderr == 'initlint: initlint.toml: unknown key "sede"; did you mean "seed"?\n'
    assert run("clean.onnx", "--isolated").exit_code == 0


def test_a_fault_of_initlint_itself_does_not_read_as_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSession, "stats", lambda self: 1 / 0)
    result = run("clean.onnx")
    assert result.exit_code == 4
    assert "please report it" in result.stderr


def test_an_interrupt_ends_with_130_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: FakeSession) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeSession, "stats", interrupted)
    result = run("clean.onnx")
    assert result.exit_code == 130
    assert "Traceback" not in result.output
    assert SESSIONS[0].asked == ["close"]


# What is measured ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ([], ["stats", "probe"]),
        (["--select", "names"], ["stats"]),
        (["--select", "signal"], ["probe"]),
        (["--select", "signal", "-v"], ["stats", "probe"]),
        (["--no-probe"], ["stats"]),
    ],
)
def test_only_what_the_selected_rules_read_is_measured(arguments: list[str], asked: list[str]) -> None:
    run("clean.onnx", *arguments)
    assert SESSIONS[0].asked == [*asked, "close"]


def test_findings_made_before_a_crash_are_kept() -> None:
    result = run("late.onnx", "--output-format", "json")
    [report] = json.loads(result.stdout)["reports"]
    assert (report["status"], report["failure"]["kind"]) == ("failed", "limit")
    assert [finding["rule"] for finding in report["findings"]] == ["named-so"]
    assert [skipped["rule"] for skipped in report["skipped_rules"]] == ["loud-signal"]


def test_weights_that_cannot_be_read_skip_the_rules_that_need_them() -> None:
    [report] = json.loads(run("unread.onnx", "--output-format", "json").stdout)["reports"]
    assert report["failure"]["kind"] == "crashed"
    assert {skipped["rule"] for skipped in report["skipped_rules"]} == {"named-so", "loud-signal"}


def test_nothing_that_could_run_is_not_all_clean() -> None:
    result = run("clean.onnx", "--select", "signal", "--no-probe")
    assert result.exit_code == 3
    assert "none of the selected rules could run" in result.output


def test_probe_options_reach_the_probe() -> None:
    run(
        "clean.onnx", "--input-shape", "a:0:1x3", "--input-shape", "2x2", "--dim", "n=8", "--batch", "4", "--seed", "7"
    )  # fmt: skip
    probe = SESSIONS[0].settings
    assert probe.shapes == {"a:0": (1, 3), "": (2, 2)}
    assert (probe.dims, probe.batch, probe.seed) == ({"n": 8}, 4, 7)


# Layers, allowances --------------------------------------------------------------------------------------------------


def addresses(*arguments: str) -> list[str]:
    [report] = json.loads(run(*arguments, "--output-format", "json").stdout)["reports"]
    return [finding["tensor"] or finding["layer"] for finding in report["findings"]]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], ["error.0.weight", "error.1.weight", "note.2.weight"]),
        (["--layers", "error.*"], ["error.0.weight", "error.1.weight"]),
        (["--layers", "error.0", "--layers", "note.2.weight"], ["error.0.weight", "note.2.weight"]),
        (["--exclude-layers", "error.*"], ["note.2.weight"]),
    ],
)
def test_layers_are_chosen_by_name_or_address(arguments: list[str], found: list[str]) -> None:
    assert addresses("error.onnx", *arguments) == found


def test_layers_that_match_nothing_are_not_all_clean() -> None:
    result = run("error.onnx", "--layers", "eror.0")
    assert result.exit_code == 2
    assert 'did you mean "error.0"?' in result.output


def test_an_allowed_finding_neither_shows_nor_counts() -> None:
    Path("initlint.toml").write_text('[[allow]]\nrule = "named-so"\nat = "error.*"\nreason = "a test of names"\n')
    result = run("error.onnx", "--output-format", "json")
    [report] = json.loads(result.stdout)["reports"]
    assert result.exit_code == 0
    assert [finding["tensor"] for finding in report["findings"]] == ["note.2.weight"]
    assert {entry["reason"] for entry in report["suppressed"]} == {"a test of names"}
    assert len(report["suppressed"]) == 2
