"""Modules that change while they run, hide what they run or run it again: seen whole, and left as they were."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

import initlint
from initlint.plugin import Severity


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))


class Observed(nn.Module):
    """Keeps the range of what it saw in a buffer that has its size from the first batch on."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(0))
        self.register_buffer("seen", torch.zeros(1))
        self.layer = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        self.low.resize_(x.shape[1]).copy_(x.detach().amin(0))
        self.seen += 1
        return self.layer(x)


class Noisy(nn.Module):
    """Draws its noise into a buffer, past autograd, as some Bayesian layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.spread = nn.Linear(16, 32), nn.Parameter(torch.full((32, 16), 0.01))
        self.register_buffer("noise", torch.empty(32, 16))

    def forward(self, x: Tensor) -> Tensor:
        noise = self.noise.data.normal_()
        return nn.functional.linear(x, self.layer.weight + self.spread * noise, self.layer.bias)


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.head, self.reentrant = nn.Linear(16, 32), nn.Linear(32, 4), reentrant
        self.block = nn.Sequential(nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32, bias=False), nn.BatchNorm1d(32))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.block, self.first(x), use_reentrant=self.reentrant))


class Rounded(nn.Module):
    """What fake quantisation makes of a tensor."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, 0.01, 0, -128, 127)


def scripted_and_warm(module: nn.Module, x: Tensor) -> nn.Module:
    made = torch.jit.script(module)
    for _ in range(3):
        made(x)
    return made


def traced_and_warm(module: nn.Module, x: Tensor) -> nn.Module:
    made = torch.jit.trace(module, x)
    for _ in range(3):
        made(x)
    return made


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_a_buffer_that_the_forward_resizes_is_put_back() -> None:
    module = Observed()
    report = initlint.check(module, torch.randn(8, 16))
    assert report.probe.backward.value == "exact"
    assert module.low.shape == (0,)
    assert module.seen.item() == 0


def test_the_backward_pass_reads_what_the_forward_wrote() -> None:
    module = Noisy()
    module.noise.fill_(torch.nan)  # as found in memory
    report = initlint.check(module, torch.randn(16, 16))
    assert report.probe.backward.value == "exact"
    assert not report.findings
    assert bool(module.noise.isnan().all())


@pytest.mark.parametrize("way", [scripted_and_warm, traced_and_warm])
def test_a_module_that_was_compiled_by_use_hides_nothing(way: Callable[[nn.Module, Tensor], nn.Module]) -> None:
    x = torch.randn(8, 16)
    module = way(net(), x)
    with torch.no_grad():
        dict(module.named_parameters())["2.weight"].zero_()
    report = initlint.check(module, x)
    assert [layer["name"] for layer in report.to_dict()["layers"]] == ["0", "2", "4"]
    assert [(each.rule, each.address) for each in report.headlines] == [("zero-weights", "2.weight")]


def test_a_frozen_script_has_no_mode_to_switch() -> None:
    module = torch.jit.freeze(torch.jit.script(net().eval()))
    assert len(initlint.check(module, torch.randn(8, 16)).to_dict()["layers"]) == 3


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_have_gradients_behind_batch_statistics(reentrant: bool) -> None:
    module, x = Checkpointed(reentrant), torch.randn(8, 16)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    report = initlint.check(module, x)
    assert report.probe.backward.value == "exact"
    assert not [each for each in report.findings if each.severity > Severity.NOTE]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    module(x).sum().backward()  # checkpoints as before
    assert module.first.weight.grad is not None


def test_statistics_that_a_trace_updates_do_not_end_the_gradients() -> None:
    x = torch.randn(8, 16)
    module = torch.jit.trace(nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4)), x)
    assert initlint.check(module, x).probe.backward.value == "exact"


def test_weights_behind_fake_quantisation_are_judged_as_they_are_stored() -> None:
    module = net()
    with torch.no_grad():
        module[2].weight.fill_(0.053)  # rounded, it would be 0.05
    for layer in (module[0], module[2], module[4]):
        parametrize.register_parametrization(layer, "weight", Rounded())
    report = initlint.check(module, torch.randn(8, 16))
    (finding,) = (each for each in report.findings if each.rule == "constant-weights")
    assert finding.data["value"] == pytest.approx(0.053)
    assert "parametrizations" in finding.address
