"""The command line: what it takes, where it writes, and the status it exits with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pytest
from click.testing import CliRunner, Result
from sample_reports import row, stats
from sample_reports import signal as measured

import initlint
from initlint import catalog, session
from initlint.cli import main
from initlint.errors import FailureKind, InitlintError, TargetError
from initlint.model import Kind, Model
from initlint.probe.signals import Forward, Signals
from initlint.settings import ProbeSettings
from initlint.stats import WeightStats

PACK = '''
"""Says what the layer's name tells it to.

## Why it matters

Names decide.
"""
from __future__ import annotations
from collections.abc import Iterator
from dataclasses import dataclass
from initlint.plugin import Context, Fill, Needs, Severity, Suspicion, rule

@dataclass(frozen=True)
class Options:
    prefix: str = ""  # chosen for this test
    limit: float = 2.5
    """Above which nothing happens."""

@rule(category="names", needs=Needs.WEIGHTS, message="its name says {said}", options=Options)
def named_so(context: Context, options: Options) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        said = layer.name.removeprefix(options.prefix).partition(".")[0].upper()
        if said in Severity.__members__:
            yield Suspicion(layer.weight, Severity[said], {"said": said}, fix=Fill(layer.weight.address, 1.0))

@rule(category="signal", needs=Needs.FORWARD, message="the signal is {rms}")
def loud_signal(context: Context, options: object) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        signal = context.signal(layer)
        if signal is not None and signal.rms > 10:
            yield Suspicion(layer, Severity.ERROR, {"rms": signal.rms})
'''

LAYERS = {
    "clean.onnx": ["quiet.0", "quiet.1"],
    "note.onnx": ["note.0", "quiet.1"],
    "warning.onnx": ["warning.0", "quiet.1"],
    "error.onnx": ["error.0", "error.1", "note.2"],
    "empty.onnx": [],
}
FAULTS = {
    "missing.onnx": FailureKind.MISSING,
    "text.onnx": FailureKind.UNREADABLE,
    "strange.onnx": FailureKind.UNSUPPORTED,
    "crash.onnx": FailureKind.CRASHED,
    "endless.onnx": FailureKind.LIMIT,
}


class FakeSession:
    """A model whose layers' names come from LAYERS; it remembers what was asked of it."""

    asked: list[str]

    def __init__(self, target: str, settings: ProbeSettings) -> None:
        self.target, self.settings, self.asked = target, settings, []
        rows = [row(name, Kind.LINEAR, (3, 3), "relu", 1.0, 3) for name in LAYERS.get(target, ["error.0"])]
        layers = tuple(entry.layer for entry in rows)
        self.model = Model("onnx", layers, tuple(layer.weight for layer in layers), parameters=9 * len(layers))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()

    def stats(self) -> Mapping[str, WeightStats]:
        self.asked.append("stats")
        if self.target == "unread.onnx":
            raise TargetError(FailureKind.CRASHED, "the weights crashed the reader")
        return {layer.weight.address: stats() for layer in self.model.layers}

    def probe(self, settings: ProbeSettings, edits: object = ()) -> Signals:
        self.asked.append("probe")
        if self.target == "late.onnx":
            raise TargetError(FailureKind.LIMIT, "the probe took too long")
        loud = 100.0 if self.target == "loud.onnx" else 1.0
        layers = {layer.name: measured(loud) for layer in self.model.layers}
        return Signals(Forward.MEASURED, batch=settings.batch or 16, seed=settings.seed, layers=layers)

    def close(self) -> None:
        self.asked.append("close")


SESSIONS: list[FakeSession] = []


@pytest.fixture(autouse=True)
def fakes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two rules, and models that need no files; the current folder is empty."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "fake_rules_of_test_cli.py").write_text(PACK)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(tmp_path_factory.mktemp("current"))
    monkeypatch.setattr(catalog, "installed_packs", lambda: {"fake": "fake_rules_of_test_cli"})

    def open_session(target: Any, settings: ProbeSettings) -> FakeSession:
        if target in FAULTS:
            raise TargetError(FAULTS[target], f"{target} has a fault")
        SESSIONS.append(FakeSession(str(target), settings))
        return SESSIONS[-1]

    monkeypatch.setattr(session, "open_session", open_session)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    yield
    SESSIONS.clear()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


# Commands and targets ------------------------------------------------------------------------------------------------


def test_check_is_the_default_command() -> None:
    assert run("error.onnx").output.splitlines()[:-1] == run("check", "error.onnx").output.splitlines()[:-1]
    assert run("--select", "names", "error.onnx").exit_code == 1


def test_nothing_to_check_is_wrong_usage_with_a_hint() -> None:
    for arguments in ([], ["check"], ["-v"]):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "name at least one model, as in `initlint model.onnx`" in result.stderr


def test_a_misspelt_command_is_recognised() -> None:
    result = run("explian", "named-so")
    assert result.exit_code == 2
    assert 'did you mean "explain"?' in result.stderr


def test_help_and_version_exit_with_0() -> None:
    for arguments in (["--help"], ["-h"], ["check", "--help"], ["--version"]):
        assert run(*arguments).exit_code == 0
    assert run("--version").output == f"initlint {initlint.__version__}\n"


@pytest.mark.parametrize("option", ["--baseline", "--write-baseline"])
def test_options_of_later_do_not_exist_yet(option: str) -> None:
    assert run("clean.onnx", option, "x").exit_code == 2


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


# Output --------------------------------------------------------------------------------------------------------------


def test_reports_go_to_stdout_and_nothing_else_does() -> None:
    result = run("clean.onnx", "missing.onnx", "--output-format", "json")
    assert len(json.loads(result.stdout)["reports"]) == 2
    assert result.stderr == "initlint: missing.onnx: missing.onnx has a fault\n"


def test_text_ends_with_a_summary_over_all_targets() -> None:
    assert run("error.onnx", "warning.onnx").output.splitlines()[-1].startswith(
        "2 errors, 1 warning, 1 note in 2 targets, 5 layers, 45 parameters, "
    )  # fmt: skip


def test_concise_is_one_line_per_finding() -> None:
    assert run("warning.onnx", "--output-format", "concise").stdout == (
        "warning.onnx: warning.0.weight: warning named-so its name says WARNING\n"
    )


def test_statistics_count_by_rule() -> None:
    assert run("error.onnx", "--statistics").output.splitlines()[:2] == [
        "    2  error    named-so",
        "    1  note     named-so",
    ]


def test_output_files_are_written_beside_stdout() -> None:
    result = run("error.onnx", "--output-file", "json=a.json", "--output-file", "concise=b.txt")
    assert "2 errors" in result.stdout
    assert json.loads(Path("a.json").read_text())["summary"]["errors"] == 2
    assert len(Path("b.txt").read_text().splitlines()) == 3


def test_an_output_file_never_overwrites_a_target() -> None:
    Path("model.onnx").write_bytes(b"precious")
    result = run("model.onnx", "--output-file", "json=./model.onnx")
    assert result.exit_code == 2
    assert Path("model.onnx").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("arguments", "environment", "colourful"),
    [
        ([], {}, False),
        (["--color", "always"], {}, True),
        ([], {"FORCE_COLOR": "1"}, True),
        ([], {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (["--color", "never"], {"FORCE_COLOR": "1"}, False),
        (["--color", "always"], {"NO_COLOR": "1"}, True),
    ],
)
def test_colour_follows_the_option_then_the_environment_then_the_terminal(
    arguments: list[str], environment: dict[str, str], colourful: bool
) -> None:
    result = CliRunner().invoke(main, ["error.onnx", *arguments], env=environment, color=True)
    assert ("\x1b[" in result.stdout) is colourful


def test_an_encoding_without_blocks_gets_plain_signs() -> None:
    result = CliRunner(charset="latin-1").invoke(main, ["error.onnx"])
    assert "signal by depth" in result.output
    assert result.stdout_bytes.isascii()


# The other commands --------------------------------------------------------------------------------------------------


def test_rules_lists_every_rule_with_its_summary() -> None:
    lines = run("rules").output.splitlines()
    assert "names" in lines
    assert "  named-so     Says what the layer's name tells it to." in lines


def test_rules_for_programs() -> None:
    listed = json.loads(run("rules", "--output-format", "json").stdout)
    assert listed[0] == {
        "name": "named-so",
        "category": "names",
        "summary": "Says what the layer's name tells it to.",
        "needs": ["weights"],
        "uses": [],
        "options": {"prefix": "", "limit": 2.5},
    }


def test_explain_prints_the_page_and_where_its_numbers_come_from() -> None:
    page = run("explain", "named-so").output
    assert page.startswith("# named-so\n\nSays what the layer's name tells it to.\n")
    assert "## Why it matters" in page
    assert '- `prefix = ""` chosen for this test' in page
    assert "- `limit = 2.5` Above which nothing happens." in page


def test_explain_knows_no_unknown_rule() -> None:
    result = run("explain", "name-so")
    assert (result.exit_code, result.stdout) == (2, "")
    assert 'did you mean "named-so"?' in result.stderr


def test_config_shows_each_setting_and_its_origin() -> None:
    Path("initlint.toml").write_text('fail-on = "warning"\nignore = ["signal"]\n[rules.named-so]\nprefix = "x"\n')
    shown = run("config", "--seed", "3", "--dim", "n=8").output
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert 'fail-on = "warning" # initlint.toml' in lines
    assert "seed = 3 # command line" in lines
    assert "dims = { n = 8 } # command line" in lines
    assert "batch is not set # default" in [line.removeprefix("# ") for line in lines]
    assert "[rules.named-so] # initlint.toml" in lines


def test_what_config_shows_can_be_read_again() -> None:
    Path("initlint.toml").write_text(
        'select = ["names"]\ndims = { "a b" = 1 }\n[[allow]]\nrule = "named-so"\nat = "*"\nreason = "r"\n'
    )
    Path("shown.toml").write_text(run("config", "--input-shape", "x:0:1x3").output)
    again = run("config", "--config", "shown.toml")
    assert again.exit_code == 0
    assert 'input-shape = { "x:0" = [1, 3] }' in again.output


# Python --------------------------------------------------------------------------------------------------------------


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


# Real processes ------------------------------------------------------------------------------------------------------


def test_importing_initlint_is_light() -> None:
    script = (
        "import sys, initlint; sys.exit(bool({'numpy', 'onnx', 'rich', 'click', 'initlint.plugin'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_help_imports_neither_numpy_nor_onnx_nor_rich() -> None:
    script = (
        "import sys; from initlint.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: sys.exit(bool({'numpy', 'onnx', 'rich', 'initlint.plugin'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_a_reader_that_leaves_early_is_no_fault() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "initlint", "gone.onnx", "--isolated"]
    finished = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (finished.returncode, finished.stderr) == (2, "")


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
def test_control_c_ends_a_real_process_with_130(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from initlint import checking, cli\n"
        "def wait(*a, **k):\n"
        "    print('ready', flush=True, file=sys.__stdout__)\n"
        "    time.sleep(60)\n"
        "checking.check_target = wait\n"
        "cli.main(['model.onnx', '--isolated'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in complaint
