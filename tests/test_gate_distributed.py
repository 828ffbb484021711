"""Two processes train together: a gate lets both pass or stops both, with the same words, and nobody waits."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("gated_rank.py")
PATIENCE = 120
"""Seconds; a run takes about ten."""


def run(case: str, folder: Path) -> list[tuple[int, str, str]]:
    """(exit status, stdout, stderr) of both ranks. They meet in a file: no port has to be free."""
    ranks = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(folder / "store"), case],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        for rank in range(2)
    ]
    try:
        answers = [rank.communicate(timeout=PATIENCE) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    return [(rank.returncode, *answer) for rank, answer in zip(ranks, answers, strict=True)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def said(stderr: str) -> list[str]:
    """The uncaught error with its report, without the prefix that PyTorch puts before the lines of a rank."""
    lines = [line for line in re.sub(r"^\[rank\d\]: ?", "", stderr, flags=re.MULTILINE).splitlines() if line]
    return lines[next(number for number, line in enumerate(lines) if line.startswith("initlint.errors.")) :]


pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="gloo is told to use the interface lo")


def test_a_healthy_model_trains_as_if_there_were_no_gate(tmp_path: Path) -> None:
    for status, out, err in run("healthy", tmp_path):
        assert status == 0, err
        ungated, gated = out.splitlines()
        assert len(gated.split()) == 3
        assert gated == ungated


def test_all_ranks_stop_with_the_same_error(tmp_path: Path) -> None:
    """Several faults one after the other: the ranks are still in step after each. The last one is not caught."""
    (first, first_out, first_err), (second, second_out, second_err) = run("broken", tmp_path)
    assert (first, second) == (1, 1)
    assert first_out == second_out
    sharded, empty, usage, loss = first_out.splitlines()
    assert sharded.startswith("FindingsError: ")
    assert "call initlint.gate(model, batch) before the model is sharded" in sharded
    assert empty.startswith("UsageError: a gate needs one batch")
    assert usage.startswith("UsageError: ")
    assert "no-such-rule" in usage
    assert loss.startswith("TargetError: the loss could not be computed: ZeroDivisionError: by the user's loss")
    assert "initlint did not check FSDPSequential: its parameters are sharded" in first_err
    assert "did not check" not in second_err
    report = said(first_err)
    assert report[0].startswith("initlint.errors.FindingsError")
    assert any("zero-weights" in line for line in report)
    assert report == said(second_err)


def test_an_interrupt_on_the_first_rank_stops_the_other(tmp_path: Path) -> None:
    (first, _, _), (second, _, stderr) = run("interrupted", tmp_path)
    assert first != 0
    assert second in (1, -signal.SIGABRT), stderr  # gloo may abort at the end, where its peer is gone by then
    assert "the check on rank 0 raised KeyboardInterrupt" in stderr


@pytest.mark.slow
@pytest.mark.parametrize(("library", "rule"), [("lightning", "zero-weights"), ("transformers", "non-finite-weights")])
def test_a_trainer_of_two_processes_stops(library: str, rule: str, tmp_path: Path) -> None:
    """torchrun picks the port itself."""
    pytest.importorskip(library)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--tee", "3"]
    done = subprocess.run(
        [*launcher, "--log-dir", str(tmp_path), str(SCRIPT.with_name("gated_trainer.py")), library, str(tmp_path)],
        capture_output=True, text=True, timeout=PATIENCE, check=False, env=environment(),
    )  # fmt: skip
    assert done.returncode == 1
    errors = [path.read_text(encoding="utf-8") for path in sorted(tmp_path.glob("**/stderr.log"))]
    assert len(errors) == 2
    assert all("FindingsError" in error and rule in error for error in errors), errors
    assert [path.read_text(encoding="utf-8").strip() for path in tmp_path.glob("**/stdout.log")] == ["", ""]
