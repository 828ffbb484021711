"""A run with a baseline: what is known does not fail, what is new does, what is gone is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_sessions import LAYERS, interrupt_at, run

import initlint
from initlint import baseline


@pytest.fixture
def adopted(fakes: None) -> None:
    assert run("error.onnx", "warning.onnx", "--write-baseline", "base.json").exit_code == 0


def lines(name: str = "base.json") -> list[tuple[str, str, str]]:
    document = json.loads(Path(name).read_text())
    return [(each["target"], each["address"], each["severity"]) for each in document["findings"]]


KNOWN = [
    ("error.onnx", "error.0.weight", "error"),
    ("error.onnx", "error.1.weight", "error"),
    ("error.onnx", "note.2.weight", "note"),
    ("warning.onnx", "warning.0.weight", "warning"),
]


@pytest.mark.usefixtures("fakes")
def test_writing_a_baseline_says_so_and_passes() -> None:
    result = run("error.onnx", "warning.onnx", "--write-baseline", "base.json")
    assert (result.exit_code, result.stderr) == (0, "initlint: base.json now holds 4 known findings\n")
    assert "known: 3 findings in the baseline (-v lists them)" in result.stdout
    assert lines() == KNOWN


def unknown(reported: str) -> None:
    """A report in JSON that calls nothing known."""
    document = json.loads(reported)
    assert [len(report["findings"]) for report in document["reports"]] == [3]
    assert (document["reports"][0]["suppressed"], document["summary"]["exit_status"]) == ([], 1)


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize("output_format", ["text", "concise", "json-lines"])
def test_no_report_of_an_interrupted_run_calls_known_what_is_in_no_baseline(
    output_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at("warning.onnx", monkeypatch)
    arguments = ("--output-format", output_format, "--output-file", "json=o.json", "--write-baseline", "base.json")
    result = run("error.onnx", "warning.onnx", *arguments)
    assert (result.exit_code, Path("base.json").exists()) == (130, False)
    assert "error.0.weight" in result.stdout
    assert "in the baseline" not in result.stdout
    unknown(Path("o.json").read_text())


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize("output_format", ["text", "concise", "json"])
def test_no_report_calls_known_what_could_not_be_written_to_a_baseline(
    output_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(baseline.os, "replace", full)
    arguments = ("--output-format", output_format, "--output-file", "json=o.json", "--write-baseline", "base.json")
    result = run("error.onnx", *arguments)
    assert (result.exit_code, Path("base.json").exists()) == (2, False)
    assert "base.json cannot be written: No space left on device" in result.stderr
    assert "error.0.weight" in result.stdout
    assert "in the baseline" not in result.stdout
    unknown(Path("o.json").read_text())


@pytest.mark.usefixtures("fakes")
def test_reports_of_a_run_that_wrote_a_baseline_all_say_the_same() -> None:
    targets = ("error.onnx", "warning.onnx", "crash.onnx", "error.onnx")
    for output_format in ("concise", "json-lines"):
        arguments = ("--output-format", output_format, "--output-file", f"{output_format}=a.txt")
        assert run(*targets, *arguments, "--write-baseline", "base.json").stdout == Path("a.txt").read_text()


@pytest.mark.usefixtures("fakes")
def test_a_target_may_be_spelt_in_two_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    for spelling in ("./error.onnx", f"../{Path.cwd().name}/error.onnx"):
        monkeypatch.setitem(LAYERS, spelling, LAYERS["error.onnx"])
        run("error.onnx", spelling, "error.onnx", "--write-baseline", "base.json")
        assert lines() == KNOWN[:3]


@pytest.mark.usefixtures("adopted")
def test_known_findings_do_not_fail_and_new_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("error.onnx", "--baseline", "base.json", "--output-format", "json")
    result = run(*arguments)
    [report] = json.loads(result.stdout)["reports"]
    assert (result.exit_code, result.stderr, report["findings"]) == (0, "", [])
    assert [each["reason"] for each in report["suppressed"]] == ["in the baseline"] * 3

    monkeypatch.setitem(LAYERS, "error.onnx", ["error.7", "note.2", "error.1", "error.0"])
    result = run(*arguments)
    [report] = json.loads(result.stdout)["reports"]
    assert result.exit_code == 1
    assert [each["tensor"] for each in report["findings"]] == ["error.7.weight"]


@pytest.mark.usefixtures("adopted")
def test_what_got_louder_is_new_and_what_got_quieter_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("base.json").write_text(
        Path("base.json")
        .read_text()
        .replace('"error.0.weight", "severity": "error"', '"error.0.weight", "severity": "note"')
    )
    Path("base.json").write_text(Path("base.json").read_text().replace('"severity": "warning"', '"severity": "error"'))
    result = run(
        "error.onnx", "warning.onnx", "--baseline", "base.json", "--output-format", "concise", "--fail-on", "note"
    )
    assert result.stdout == "error.onnx: error.0.weight: error named-so its name says ERROR\n"
    assert (result.exit_code, result.stderr) == (1, "")


@pytest.mark.usefixtures("adopted")
def test_what_is_gone_is_told_and_dropped_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYERS, "error.onnx", ["error.0", "quiet.1"])
    arguments = ("error.onnx", "--baseline", "base.json")
    result = run(*arguments)
    assert result.stderr == (
        "initlint: base.json: 2 known findings no longer there: named-so at error.1.weight in error.onnx, named-so at "
        "note.2.weight in error.onnx; --prune-baseline drops what is gone\n"
    )
    assert lines() == KNOWN
    assert [each["address"] for each in json.loads(run(*arguments, "--output-format", "json").stdout)["vanished"]] == [
        "error.1.weight",
        "note.2.weight",
    ]
    assert run(*arguments, "-q").stderr == ""
    result = run(*arguments, "--prune-baseline")
    assert "base.json: dropped 2 findings no longer there" in result.stderr
    assert lines() == [KNOWN[0], KNOWN[3]]
    assert run(*arguments, "--prune-baseline").stderr == ""


@pytest.mark.usefixtures("adopted")
def test_pruning_takes_up_nothing_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYERS, "error.onnx", ["error.0", "error.9"])
    assert run("error.onnx", "--baseline", "base.json", "--prune-baseline").exit_code == 1
    assert lines() == [KNOWN[0], KNOWN[3]]


@pytest.mark.usefixtures("adopted")
def test_writing_again_takes_up_what_is_new_and_drops_what_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYERS, "error.onnx", ["error.0", "error.9"])
    result = run("error.onnx", "--write-baseline", "base.json")
    assert result.stderr == ("initlint: base.json now holds 3 known findings; dropped 2 findings no longer there\n")
    assert lines() == [KNOWN[0], ("error.onnx", "error.9.weight", "error"), KNOWN[3]]


@pytest.mark.usefixtures("adopted")
@pytest.mark.parametrize(
    "arguments",
    [["error.onnx", "--select", "signal"], ["error.onnx", "--layers", "error.0"], ["crash.onnx"], ["late.onnx"]],
)
def test_what_was_not_looked_at_is_not_gone(arguments: list[str]) -> None:
    for option in ("--baseline", "--write-baseline"):
        assert "no longer there" not in run(*arguments, option, "base.json").stderr
    assert lines() == KNOWN


@pytest.mark.usefixtures("fakes")
def test_a_target_that_failed_still_fails_and_leaves_the_others_known() -> None:
    result = run("error.onnx", "crash.onnx", "--write-baseline", "base.json")
    assert result.exit_code == 4
    assert lines() == KNOWN[:3]
    assert run("crash.onnx", "--write-baseline", "other.json").exit_code == 4
    assert not Path("other.json").exists()


@pytest.mark.usefixtures("fakes")
def test_what_an_exception_allows_is_not_written() -> None:
    Path("initlint.toml").write_text('[[allow]]\nrule = "named-so"\nat = "error.*"\nreason = "a test"\n')
    run("error.onnx", "--write-baseline", "base.json")
    assert lines() == [KNOWN[2]]


@pytest.mark.usefixtures("fakes")
def test_the_configuration_names_a_baseline_beside_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("initlint.toml").write_text('baseline = "base.json"\n')
    result = run("error.onnx")
    assert result.exit_code == 2
    assert "there is no baseline" in result.stderr and "write one with --write-baseline" in result.stderr
    run("error.onnx", "--write-baseline", "base.json")
    Path("inner").mkdir()
    monkeypatch.chdir("inner")
    assert run("error.onnx").exit_code == 0
    assert run("error.onnx", "--isolated").exit_code == 1


@pytest.mark.usefixtures("adopted")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prune-baseline"], "--prune-baseline: there is no baseline; name it with --baseline FILE"),
        (["--baseline", "gone.json"], "there is no baseline"),
        (["--write-baseline", "gone/base.json"], "there is no folder gone; create it first"),
        (["--write-baseline", "."], "cannot be read"),
        (["--baseline", "base.json", "--write-baseline", "b.json"], "name different files"),
    ],
)
def test_wrong_usage_stops_the_run(arguments: list[str], message: str) -> None:
    result = run("error.onnx", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


@pytest.mark.usefixtures("fakes")
@pytest.mark.parametrize(
    ("file", "arguments", "what"),
    [
        ("model.onnx", ["model.onnx"], "a target"),
        ("net.py", ["net.py:build"], "a target"),
        ("model.onnx.data", ["model.onnx"], "the external data of a target"),
        ("initlint.toml", ["clean.onnx"], "the configuration"),
        ("x.npz", ["clean.onnx", "--inputs", "x.npz"], "the inputs"),
    ],
)
def test_a_baseline_never_overwrites_what_the_run_reads(file: str, arguments: list[str], what: str) -> None:
    for name in ("model.onnx", "net.py", "model.onnx.data", "x.npz"):
        Path(name).write_bytes(b"precious")
    Path("initlint.toml").write_text("seed = 1\n")
    before = Path(file).read_bytes()
    result = run(*arguments, "--write-baseline", f"../{Path.cwd().name}/{file}")
    assert (result.exit_code, result.stdout, Path(file).read_bytes()) == (2, "", before)
    assert f"would overwrite {what}; name another file" in result.stderr


@pytest.mark.usefixtures("adopted")
def test_the_baseline_that_is_read_may_be_written_by_another_spelling() -> None:
    result = run("error.onnx", "--baseline", "base.json", "--write-baseline", f"../{Path.cwd().name}/base.json")
    assert (result.exit_code, lines()) == (0, KNOWN)


def test_python_callers_have_the_baseline_of_the_configuration(adopted: None) -> None:
    Path("initlint.toml").write_text('baseline = "base.json"\n')
    assert not initlint.check("error.onnx").ok
    assert initlint.check("error.onnx", config="initlint.toml").ok
    assert initlint.check("error.onnx", baseline="base.json").ok
