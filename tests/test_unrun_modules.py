"""What is said of a module that no inputs fit, that cannot be run, or that gives nothing."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn

import initlint
from initlint.errors import InitlintError


def reason(module: nn.Module, inputs: Any = None, **settings: Any) -> str:
    report = initlint.check(module, inputs, **settings)
    assert report.failure is None
    assert report.probe.forward == "none"
    return report.probe.reason


class Raises(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("work in progress")


class Ends(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sys.exit(0)


def test_a_forward_or_a_loss_that_ends_the_program_does_not_end_the_check() -> None:
    assert "its forward raised RuntimeError: SystemExit(0)" in reason(Ends(6, 2), torch.ones(5, 6))
    with pytest.raises(InitlintError, match="the loss could not be computed"):
        initlint.check(nn.Linear(6, 2), torch.randn(5, 6), loss=lambda out: sys.exit(4))


def test_a_forward_that_raises_leaves_a_static_report() -> None:
    for inputs in (None, torch.ones(5, 6)):
        said = reason(Raises(6, 2), inputs)
        assert "its forward raised NotImplementedError: work in progress (" in said
        assert "test_unrun_modules.py:" in said


NO_MEMORY = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"


@pytest.mark.parametrize(
    "text", [NO_MEMORY, "CUDA out of memory.", "Storage size calculation overflowed with sizes=[9]"]
)
def test_a_lack_of_memory_is_told_with_what_to_do(text: str) -> None:
    class Hungry(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError(f"{text}\nException raised from alloc at alloc.cpp:1\nframe #0: c10::Error")

    for inputs, settings in ((None, {"batch": 3}), (None, {"input_shape": "5x6"}), (torch.ones(5, 6), {})):
        said = reason(Hungry(6, 2), inputs, **settings)
        assert said == "it needs more memory than there is; give a smaller --batch, or smaller inputs"


def test_the_stack_of_an_operator_is_left_out() -> None:
    class Broken(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no kernel\nException raised from call at dispatch.cpp:1\nframe #0: c10::Error")

    assert "its forward raised RuntimeError: no kernel (" in reason(Broken(6, 2))


def test_where_no_guess_fits_the_report_says_how_to_give_inputs() -> None:
    class Odd(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[1:] == (3, 5, 7, 6), "expected another shape"
            return super().forward(x)

    assert "give inputs with --inputs or --input-shape" in reason(Odd(6, 2))
    assert initlint.check(Odd(6, 2), torch.ones(2, 3, 5, 7, 6)).probe.forward == "measured"


@pytest.mark.parametrize("value", [None, "text", {"loss": 1.0}])
def test_a_forward_without_a_tensor_is_said(value: Any) -> None:
    class Silent(nn.Linear):
        def forward(self, x: torch.Tensor) -> Any:
            super().forward(x)
            return value

    for inputs in (None, torch.ones(5, 6)):
        assert "wrap it in a module that returns the tensors" in reason(Silent(6, 2), inputs)


def test_parameters_without_values_are_reported_as_what_they_are() -> None:
    module = nn.Sequential(nn.Linear(4, 4, device="meta"), nn.Linear(4, 2))
    report = initlint.check(module)
    assert "meta device; move it with to_empty" in report.probe.reason
    assert "0.weight" in [entry.at for entry in report.not_checked]
    assert report.layers[0].stats is None and report.layers[1].stats is not None


def test_lazy_modules_are_not_run() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(2))
    assert "run one batch through it" in reason(module)
    assert isinstance(module[1], nn.LazyLinear)
    report = initlint.check(nn.LazyLinear(2))
    assert report.failure is not None and "run one batch through it" in report.failure.message


def test_a_static_report_knows_the_layers_of_the_module_tree() -> None:
    module = nn.ModuleDict(
        {
            "embed": nn.Embedding(20, 8),
            "conv": nn.Conv2d(4, 8, 3, groups=2),
            "up": nn.ConvTranspose2d(4, 8, 4, stride=2),
            "norm": nn.BatchNorm2d(8),
            "lstm": nn.LSTM(8, 4, num_layers=2),
            "attention": nn.MultiheadAttention(8, 2),
            "slope": nn.PReLU(),
            "normed": nn.utils.parametrizations.weight_norm(nn.Linear(8, 2)),
        }
    )
    before = {name: value.clone() for name, value in module.state_dict().items()}
    report = initlint.check(module, no_probe=True)
    facts = {row.layer.name: (str(row.layer.kind), row.layer.fan_in) for row in report.layers}
    assert facts == {
        "embed": ("embedding", None),
        "conv": ("conv", 18),
        "up": ("conv-transpose", 16),
        "norm": ("batch-norm", None),
        "lstm": ("lstm", 8),
        "lstm.l1": ("lstm", 4),
        "attention": ("linear", 8),
        "attention.out_proj": ("linear", 8),
        "slope": ("prelu", None),
        "normed": ("linear", 8),
    }
    assert report.parameters == sum(p.numel() for p in module.parameters()) - 2  # not the norms of ``normed``
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_static_and_traced_layers_are_the_same() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, groups=1), nn.ReLU(), nn.ConvTranspose2d(4, 6, 4, stride=2))
    static, traced = initlint.check(module, no_probe=True), initlint.check(module)
    for one, other in zip(static.layers, traced.layers, strict=True):
        for name in ("name", "kind", "weight", "bias", "fan_in", "fan_out"):
            assert getattr(one.layer, name) == getattr(other.layer, name)
        assert one.stats == other.stats
