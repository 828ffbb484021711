"""initlint as a process among others: stdout, stderr and terminals that are not what they should be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BROKEN = Path(__file__).parent.parent / "examples" / "broken_mlp.onnx"
FULL = Path("/dev/full")

posix = pytest.mark.skipif(os.name == "nt", reason="bash and /dev are not there")
needs_full_disk = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")


def lint(
    *arguments: object, environment: dict[str, str] | None = None, stdout: object = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("INITLINT_", "NO_COLOR"))}
    command = [sys.executable, "-m", "initlint", *map(str, arguments)]
    return subprocess.run(
        command,
        env={**kept, "INITLINT_ISOLATED": "1", "INITLINT_NO_PROBE": "1", **(environment or {})},
        stdout=stdout,  # type: ignore[call-overload]
        stderr=subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )


def piped(script: str) -> tuple[str, str, int]:
    """Output, complaints and initlint's own status of a pipeline in bash that begins with "LINT"."""
    command = f"{sys.executable} -m initlint --isolated --no-probe"
    text = script.replace("LINT", command) + '; exit "${PIPESTATUS[0]}"'
    finished = subprocess.run(["bash", "-c", text], capture_output=True, encoding="utf-8", check=False)
    return finished.stdout, finished.stderr, finished.returncode


def test_reports_go_to_stdout_and_complaints_to_stderr() -> None:
    result = lint(BROKEN, "gone.onnx", "--output-format", "json")
    assert result.stdout.startswith("{")
    assert result.stderr == "initlint: gone.onnx: gone.onnx does not exist\n"


def test_what_a_python_target_prints_does_not_end_in_the_report(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import torch\nprint('hello')\nnet = torch.nn.Linear(2, 2)\n")
    result = lint(f"{tmp_path}/net.py:net", "--output-format", "concise")
    assert "hello" not in result.stdout
    assert "hello" in result.stderr


@posix
@pytest.mark.parametrize(
    ("pipeline", "status"),
    [
        (f"LINT {BROKEN} -v | head -1", 1),
        (f"LINT {BROKEN} --fail-on never --output-format json | head -1", 0),
        ("LINT --help | true", 0),
        ("LINT gone.onnx --no-such-option 2>&1 | true", 2),
    ],
)
def test_a_reader_that_leaves_early_is_no_fault(pipeline: str, status: int) -> None:
    _, complaints, ended = piped(pipeline)
    assert (complaints, ended) == ("", status)


@posix
@pytest.mark.parametrize(("redirection", "status"), [(">&-", 1), ("2>&-", 1), (">&- 2>&-", 1)])
def test_closed_streams_are_as_good_as_unread_ones(redirection: str, status: int) -> None:
    _, complaints, ended = piped(f"LINT {BROKEN} {redirection}")
    assert (complaints, ended) == ("", status)


@posix
@pytest.mark.parametrize("already", [None, 1024**2])
def test_a_complaint_that_nobody_reads_leaves_the_status(already: int | None, tmp_path: Path) -> None:
    summary = tmp_path / "summary"
    if already is None:
        summary.mkdir()  # cannot be written
    else:
        summary.write_bytes(b"x" * already)  # is full
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "initlint", BROKEN, "--isolated", "--no-probe", "--output-format", "github"]
    environment = {**os.environ, "GITHUB_STEP_SUMMARY": str(summary)}
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=theirs, check=False)
    os.close(theirs)
    assert ended.returncode == 1
    assert b"::error " in ended.stdout


@needs_full_disk
def test_a_full_disk_is_one_sentence() -> None:
    with FULL.open("w") as stdout:
        result = lint(BROKEN, stdout=stdout)
    assert result.returncode == 2
    assert result.stderr == "initlint: the report cannot be written to stdout: No space left on device\n"
    result = lint(BROKEN, "--output-file", f"json={FULL}")
    assert result.returncode == 2
    assert result.stderr == f"initlint: {FULL} cannot be written: No space left on device\n"


@pytest.mark.parametrize("encoding", ["ascii:strict", "cp1252:strict"])
@pytest.mark.parametrize("arguments", [(BROKEN, "-v"), ("explain", "variance-mismatch")])
def test_no_encoding_is_too_small(encoding: str, arguments: tuple[object, ...], tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as stdout:
        result = lint(*arguments, environment={"PYTHONIOENCODING": encoding}, stdout=stdout)
    assert result.stderr == ""
    assert (tmp_path / "out").stat().st_size


@pytest.mark.parametrize(
    ("arguments", "environment", "colourful"),
    [
        ([], {}, False),
        ([], {"FORCE_COLOR": "1"}, True),
        ([], {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ([], {"FORCE_COLOR": "", "TERM": "dumb"}, False),
        (["--color", "always"], {"TERM": "dumb", "NO_COLOR": "1"}, True),
        (["--color", "never"], {"INITLINT_COLOR": "always", "FORCE_COLOR": "1"}, False),
    ],
)
def test_a_pipe_gets_colour_only_where_somebody_asks_for_it(
    arguments: list[str], environment: dict[str, str], colourful: bool
) -> None:
    assert ("\x1b[" in lint(BROKEN, *arguments, environment=environment).stdout) is colourful


@posix
@pytest.mark.parametrize(("terminal", "escapes"), [("xterm", True), ("dumb", False)])
def test_a_terminal_gets_colour_unless_it_is_dumb(terminal: str, escapes: bool) -> None:
    import pty

    ours, theirs = pty.openpty()
    result = lint(BROKEN, environment={"TERM": terminal, "FORCE_COLOR": ""}, stdout=theirs)
    shown = os.read(ours, 65536)
    os.close(ours), os.close(theirs)
    assert result.stderr == ""
    assert (b"\x1b[" in shown) is escapes


@pytest.mark.parametrize("columns", [80, 60])
def test_lines_fit_the_terminal_but_for_code_and_names(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BROKEN.parent)
    lines = lint(BROKEN.name, "-v", environment={"COLUMNS": str(columns)}).stdout.splitlines()
    assert [line for line in lines if len(line) > columns and "model.get_parameter" not in line] == []
