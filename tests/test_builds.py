"""Building a model again: what happens to the process, and what is said when it does not work."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import Built
from models.builders import Gated, forget, gated
from torch import nn

import initlint
from initlint.errors import InitlintError, TargetError

MEMORY: Any = torch.utils.deterministic
BOTH = ["uninitialized-memory", "seed-independent-weights"]


def state() -> list[object]:
    """What a second build must put back."""
    return [
        torch.get_rng_state().tolist(),
        random.getstate(),
        str(np.random.get_state()),
        torch.get_deterministic_debug_mode(),
        torch.are_deterministic_algorithms_enabled(),
        MEMORY.fill_uninitialized_memory,
        torch.is_grad_enabled(),
    ]


def fails_when_repeated() -> Callable[[], Built]:
    """A builder that works once."""
    calls: list[int] = []

    def built() -> Built:
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("the port is taken")
        return gated()()

    return built


def afraid_of_nan() -> Built:
    """Looks at fresh memory before writing it, as an initialiser does that decomposes what it finds."""
    module, inputs = gated(forget("gate"))()
    with torch.no_grad():
        if module.gate.isnan().all():
            raise ValueError("the matrix is singular")
        nn.init.orthogonal_(module.gate)
    return module, inputs


def strict() -> Built:
    """Changes the very setting that a second build uses."""
    torch.set_deterministic_debug_mode(min(torch.get_deterministic_debug_mode(), 1))
    MEMORY.fill_uninitialized_memory = False
    return gated(forget("gate"))()


@pytest.mark.parametrize("build", [gated, fails_when_repeated, lambda: afraid_of_nan, lambda: strict])
@pytest.mark.parametrize("mode", ["default", "warn"])
def test_a_second_build_leaves_no_trace(build: Callable[[], Callable[[], Built]], mode: str) -> None:
    torch.set_deterministic_debug_mode(mode)
    MEMORY.fill_uninitialized_memory = False
    try:
        before = state()
        assert initlint.check(build()).failure is None
        assert state() == before
    finally:
        torch.set_deterministic_debug_mode("default")
        MEMORY.fill_uninitialized_memory = True


def test_a_second_build_is_silent(recwarn: pytest.WarningsRecorder) -> None:
    initlint.check(gated(forget("gate")), select=BOTH)
    assert [str(warning.message) for warning in recwarn] == []


def test_a_second_build_that_raises_is_said() -> None:
    report = initlint.check(fails_when_repeated(), select=BOTH)
    assert [(skipped.rule, "the port is taken" in skipped.reason) for skipped in report.skipped_rules] == [
        ("seed-independent-weights", True)
    ]
    (note,) = report.not_checked
    assert "the port is taken" in note.reason
    assert report.ok


def test_a_build_that_cannot_bear_nan_is_repeated_without() -> None:
    report = initlint.check(afraid_of_nan, select=BOTH)
    assert report.findings == report.skipped_rules == ()
    (note,) = report.not_checked
    assert "the matrix is singular" in note.reason


def test_a_builder_whose_model_changes_its_shape_is_compared_where_it_can_be() -> None:
    widths = iter((16, 24))

    def build() -> Built:
        return nn.Sequential(nn.Linear(8, next(widths)), nn.ReLU()), (torch.randn(4, 8),)

    assert initlint.check(build, select=BOTH).findings == ()


def test_the_model_that_a_builder_keeps_is_as_its_first_call_left_it() -> None:
    kept = Gated()

    def build() -> nn.Module:
        for module in kept.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
        return kept

    torch.manual_seed(0)
    initlint.check(build, torch.randn(4, 16), select=["scale"])
    first = kept.first.weight.detach().clone()
    report = initlint.check(build, torch.randn(4, 16), select=BOTH)
    assert torch.equal(kept.first.weight, first)
    assert [(f.rule, f.severity) for f in report.findings] == [("seed-independent-weights", 1)]


def test_a_session_in_deterministic_mode_finds_the_same() -> None:
    torch.set_deterministic_debug_mode("warn")
    try:
        report = initlint.check(gated(forget("gate")))
    finally:
        torch.set_deterministic_debug_mode("default")
    assert [(f.rule, f.address) for f in report.headlines if f.severity > 1] == [("uninitialized-memory", "gate")]


def test_a_named_builder_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("forgetful.py").write_text(
        "import torch\nfrom torch import nn\nclass Net(nn.Module):\n"
        "    def __init__(self, width=4):\n        super().__init__()\n"
        "        self.w = nn.Parameter(torch.empty(width, width))\n"
        "    def forward(self, x):\n        return x @ self.w\n"
        "net = Net()\n"
    )
    for target, settings in (("forgetful.py:Net", {}), ("forgetful.py:Net", {"kwargs": {"width": 6}})):
        report = initlint.check(target, **settings)
        assert [(f.rule, f.address) for f in report.headlines if f.severity > 1] == [("uninitialized-memory", "w")]
    skipped = {entry.rule for entry in initlint.check("forgetful.py:net", select=BOTH).skipped_rules}
    assert skipped == {"seed-independent-weights"}


def test_a_function_takes_arguments_and_has_a_name() -> None:
    def build(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(width, 4))

    report = initlint.check(build, kwargs={"width": 3})
    assert report.layers[0].layer.fan_in == 3
    assert report.target.endswith("build")
    with pytest.raises(TargetError, match=r"cannot be called: .*; give arguments"):
        initlint.check(build)
    with pytest.raises(TargetError, match="it takes width; give arguments"):
        initlint.check(build, kwargs={"widht": 3})
    with pytest.raises(InitlintError, match=r"gives no torch\.nn\.Module"):
        initlint.check(lambda: 3)


def test_nan_in_both_builds_is_settled_by_a_third_or_said() -> None:
    """Memory may hold NaN by chance; whether somebody wrote it is seen where it holds zeros."""
    calls: list[int] = []

    def build(last: int) -> Callable[[], nn.Module]:
        def built() -> nn.Module:
            calls.append(1)
            if len(calls) > last:
                raise RuntimeError("the port is taken")
            module = Gated()
            with torch.no_grad():
                module.gate.fill_(float("nan") if len(calls) < 3 else 0.0)
            return module

        return built

    inputs = torch.randn(8, 16)
    report = initlint.check(build(3), inputs, select=["uninitialized-memory"])
    assert [finding.address for finding in report.headlines] == ["gate"]
    calls.clear()
    report = initlint.check(build(2), inputs, select=["uninitialized-memory"])
    said = {entry.at: entry.reason for entry in report.not_checked}
    assert "the port is taken" in said["gate"]


def test_a_builder_that_keeps_its_model_and_fails_at_last_is_said() -> None:
    kept = Gated()
    calls: list[int] = []

    def build() -> nn.Module:
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("the port is taken")
        return kept

    report = initlint.check(build, torch.randn(8, 16), select=BOTH)
    said = {entry.at: entry.reason for entry in report.not_checked}
    assert "the port is taken" in said["the builder"]
