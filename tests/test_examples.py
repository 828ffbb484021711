"""The shipped example models: they are what their script writes, and initlint says of them what the README says."""

from __future__ import annotations

from pathlib import Path

import make_examples
import pytest

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
