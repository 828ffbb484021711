"""The shipped example models: they are what their script writes, and initlint says of them what the README says."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import make_examples
import pytest
import torch
from torch import nn

import initlint

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("name", ["broken_mlp.onnx", "healthy_mlp.onnx"])
def test_example_is_current(name: str, tmp_path: Path) -> None:
    make_examples.write(tmp_path)
    assert (EXAMPLES / name).read_bytes() == (tmp_path / name).read_bytes(), "run python examples/make_examples.py"


def test_every_mistake_in_the_broken_example_is_named() -> None:
    report = initlint.check(EXAMPLES / "broken_mlp.onnx")
    assert {(finding.rule, finding.address) for finding in report.headlines} == {
        ("dead-relu-bias", "layers.0.bias"),
        ("variance-mismatch", "layers.2.weight"),
        ("constant-weights", "layers.4.weight"),
        ("zero-weights", "layers.6.weight"),
    }
    assert not report.ok


def test_the_healthy_example_is_silent() -> None:
    report = initlint.check(EXAMPLES / "healthy_mlp.onnx")
    assert report.findings == ()
    assert report.ok


def test_examples_are_small() -> None:
    assert sum(path.stat().st_size for path in EXAMPLES.iterdir() if path.is_file()) < 200_000


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Python in the repository's root, as a reader starts it."""
    environment = {**os.environ, "PYTEST_ADDOPTS": ""}
    arguments = [sys.executable, *command]
    return subprocess.run(
        arguments, cwd=EXAMPLES.parent, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_the_training_script_learns_and_is_stopped_when_broken() -> None:
    trained = run("examples/train_with_gate.py")
    losses = [float(line.split()[-1]) for line in trained.stdout.splitlines()]
    assert (trained.returncode, len(losses)) == (0, 5), trained.stderr
    assert losses[-1] < losses[0] / 2
    stopped = run("examples/train_with_gate.py", "--broken")
    assert (stopped.returncode, stopped.stdout) == (1, "")
    assert "zero-weights  2.weight" in stopped.stderr
    assert "Traceback" not in stopped.stderr


def test_the_pytest_example_passes() -> None:
    installed = entry_points(group="pytest11", name="initlint")
    loaded = [] if installed else ["-p", "initlint.integrations.pytest_plugin"]
    done = run("-m", "pytest", "examples/test_with_pytest.py", *loaded, "-p", "no:cacheprovider", "-n", "0")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_the_local_rule_speaks_where_its_configuration_is_named() -> None:
    class Normed(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(16, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 4))

    report = initlint.check(
        Normed(), torch.randn(8, 16), config=EXAMPLES / "local_rules" / "initlint.toml", select=["house"]
    )
    assert [(finding.rule, finding.address) for finding in report.findings] == [("bias-free-maps", "0.bias")]
