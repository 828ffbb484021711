"""Weights without a network, and modules that are not run: nothing is blamed whose consequence cannot be seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import models
import pytest
import torch
from models import Built, relu_mlp
from safetensors.torch import save_file
from torch import nn

import initlint
from initlint.plugin import Finding, Severity

IDIOMS = (
    models.adaln_zero,
    models.fixup,
    models.focal_prior,
    models.lora,
    models.pixel_shuffle,
    models.re_zero,
    models.zero_head,
    models.layer_scale,
    models.identity_rnn,
    models.squeeze_excite,
)


def as_file(module: nn.Module, folder: Path) -> str:
    path = folder / "weights.safetensors"
    save_file({name: value.clone().contiguous() for name, value in module.state_dict().items()}, path)
    return str(path)


def both_ways(module: nn.Module, folder: Path) -> list[list[Finding]]:
    """Headlines about the module's state dict, and about the module when it is not run."""
    reports = initlint.check(as_file(module, folder)), initlint.check(module, no_probe=True)
    assert [report.failure for report in reports] == [None, None]
    return [list(report.headlines) for report in reports]


def loud(findings: list[Finding]) -> list[tuple[str, str, Severity]]:
    return [(f.rule, f.address, f.severity) for f in findings if f.severity >= Severity.WARNING]


@pytest.mark.parametrize("build", IDIOMS, ids=lambda build: build.__name__)
def test_idioms_are_notes_at_most(build: Callable[..., Built], tmp_path: Path) -> None:
    for findings in both_ways(build(seed=0)[0], tmp_path):
        assert loud(findings) == []


def test_a_zero_gamma_is_a_note(tmp_path: Path) -> None:
    module = models.batchnorm_resnet(seed=0)[0]
    for block in module.blocks:
        nn.init.zeros_(block.bn2.weight)
    for findings in both_ways(module, tmp_path):
        assert {f.rule for f in findings} == {"zero-norm-gain"}
        assert loud(findings) == []


def test_a_module_whose_forward_raises_is_judged_alike() -> None:
    class Broken(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("not today")

    module = Broken(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    nn.init.zeros_(module[2].weight)
    nn.init.zeros_(module[2].bias)
    report = initlint.check(module, torch.randn(4, 8))
    assert report.probe.reason
    assert [(f.rule, f.severity) for f in report.headlines] == [("zero-weights", Severity.NOTE)]


def test_all_zero_is_proof_enough(tmp_path: Path) -> None:
    module = relu_mlp(seed=0)[0]
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    for findings in both_ways(module, tmp_path):
        proven = {address for rule, address, severity in loud(findings) if (rule, severity) == ("zero-weights", 3)}
        assert {"0.weight", "2.weight"} <= proven  # 64 to 10 behind 64 to 64 may be another head


def test_two_zero_heads_of_one_input_are_no_chain(tmp_path: Path) -> None:
    module = nn.ModuleDict({"policy": nn.Linear(12, 4), "value": nn.Linear(12, 1)})
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    for findings in both_ways(module, tmp_path):
        assert loud(findings) == []


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("non-finite-weights", lambda w: w.fill_(float("nan"))),
        ("constant-weights", lambda w: w.fill_(0.1)),
        ("duplicate-units", lambda w: w[32:].copy_(w[:32])),
    ],
)
def test_faults_that_need_no_network_are_still_found(
    rule: str, change: Callable[[torch.Tensor], object], tmp_path: Path
) -> None:
    module = relu_mlp(seed=0)[0]
    with torch.no_grad():
        change(module[2].weight)
    for findings in both_ways(module, tmp_path):
        assert [(name, at) for name, at, _ in loud(findings)] == [(rule, "2.weight")]


def test_known_dataflow_keeps_its_verdict() -> None:
    module, inputs = relu_mlp(seed=0)
    nn.init.zeros_(module[2].weight)
    nn.init.zeros_(module[2].bias)
    (finding,) = (f for f in initlint.check(module, inputs).headlines if f.rule == "zero-weights")
    assert (finding.address, finding.severity) == ("2.weight", Severity.ERROR)
