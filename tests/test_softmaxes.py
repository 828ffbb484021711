"""Rows of logits: where a graph has softmaxes, and what the probe says of them, in modules and in files."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from models import mixture_of_experts, torch_encoder
from probing import graph
from torch import Tensor, nn
from torch.nn import functional

import initlint
from initlint.probe.on_torch import TorchSession
from initlint.probe.signals import LossStart, SoftmaxSignal
from initlint.probe.softmax_rows import signal_of
from initlint.probe.taps import SoftmaxTap
from initlint.session import open_session
from initlint.settings import ProbeSettings

pytestmark = pytest.mark.usefixtures("opened_here")

TAP = SoftmaxTap("here", "x", "y", -1, False, ("head",), True, False)


def rows(logits: object) -> SoftmaxSignal:
    signal = signal_of(TAP, np.asarray(logits, np.float32))
    assert signal is not None
    return signal


def of_module(module: nn.Module, *inputs: Tensor) -> dict[str, SoftmaxSignal]:
    with TorchSession(module, inputs, {}) as session:
        return dict(session.probe(ProbeSettings()).softmaxes)


def of_graph(text: str, opset: int = 18, **inputs: np.ndarray) -> dict[str, SoftmaxSignal]:
    model = graph(text, opset).SerializeToString()
    with open_session(model, ProbeSettings()) as session:
        return dict(session.probe(ProbeSettings(inputs=inputs)).softmaxes)


def test_even_rows_have_all_the_entropy_and_no_excess() -> None:
    signal = rows(np.zeros((4, 8)))
    assert (signal.entropy, signal.certain, signal.rows, signal.length) == (pytest.approx(1.0), 0.0, 4, 8.0)
    assert signal.excess == pytest.approx(0.0, abs=1e-12)


def test_one_entry_that_has_it_all() -> None:
    signal = rows([[100.0, 0.0, 0.0, 0.0]])
    assert (signal.entropy, signal.certain) == (pytest.approx(0.0, abs=1e-9), 1.0)
    assert signal.excess == pytest.approx(75.0 - math.log(4))


@pytest.mark.parametrize("mask", [-math.inf, -1e4, -1e9, float(np.finfo(np.float32).min)])
def test_masked_entries_do_not_count(mask: float) -> None:
    assert rows([[1.0, 2.0, mask, mask]]).entropy == pytest.approx(rows([[1.0, 2.0]]).entropy)
    assert rows([[1.0, 2.0, mask, mask]]).length == 2.0


def test_rows_with_one_entry_or_none_have_no_choice() -> None:
    assert signal_of(TAP, np.array([[1.0, -np.inf], [-np.inf, -np.inf], [np.nan, 1.0]])) is None


def test_loud_logits_are_no_masks() -> None:
    assert rows(np.random.default_rng(0).normal(0, 1e5, (64, 32))).length == 32.0


class Attend(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.q, self.k, self.v, self.fused = nn.Linear(16, 32), nn.Linear(16, 32), nn.Linear(16, 32), fused

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (2, 16)).transpose(1, 2) for f in (self.q, self.k, self.v))
        if self.fused:
            return functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        logits = (q @ k.transpose(-1, -2) / 4).masked_fill(torch.ones(6, 6).triu(1).bool(), -math.inf)
        return logits.softmax(-1) @ v


def test_a_fused_attention_shows_the_rows_of_an_explicit_one() -> None:
    torch.manual_seed(0)
    modules = Attend(True), Attend(False)
    modules[1].load_state_dict(modules[0].state_dict())
    x = torch.randn(3, 6, 16) * 5
    (fused,), (explicit,) = (of_module(module, x).values() for module in modules)
    assert fused.layers == explicit.layers == ("q", "k")
    assert fused.attention
    assert explicit.attention
    for name in ("length", "entropy", "excess", "certain"):
        assert getattr(fused, name) == pytest.approx(getattr(explicit, name), rel=1e-4)


def test_torchs_own_layers_and_routers() -> None:
    found = of_module(*_call(torch_encoder(0)))
    assert [each.layers for each in found.values()] == [("0.self_attn",), ("1.self_attn",)]
    found = of_module(*_call(mixture_of_experts(0)))
    assert {name: (each.attention, each.layers) for name, each in found.items() if name.startswith("0.")} == {
        "0.attention": (True, ("0.attention.qkv",)),
        "0.mlp": (False, ("0.mlp.router",)),
    }


def _call(built: tuple[nn.Module, tuple[Tensor, ...]]) -> tuple[nn.Module, *tuple[Tensor, ...]]:
    return built[0], *built[1]


X = np.random.default_rng(0).normal(0, 3, (6, 4, 5)).astype(np.float32)


@pytest.mark.parametrize(("axis", "moved"), [(-1, X), (2, X), (1, X.transpose(0, 2, 1))])
def test_the_axis_of_a_file(axis: int, moved: np.ndarray) -> None:
    text = f"g (float[6,4,5] x) => (float[6,4,5] y) {{ a = Relu (x) y = Softmax <axis = {axis}> (a) }}"
    (signal,) = of_graph(text, x=X).values()
    everything = rows(np.maximum(moved, 0).reshape(-1, moved.shape[-1]))
    assert signal.at_output
    assert signal.length == moved.shape[-1]
    assert signal.entropy == pytest.approx(everything.entropy, rel=0.1), "a sample of rows"


def test_before_opset_13_a_softmax_runs_over_all_axes_behind() -> None:
    text = "g (float[6,4,5] x) => (float[6,4,5] y) { a = Relu (x) y = Softmax (a) }"
    (signal,) = of_graph(text, opset=11, x=X).values()
    assert signal.length == 20
    assert signal.entropy == pytest.approx(rows(np.maximum(X, 0).reshape(6, 20)).entropy, rel=0.05)


# -- the loss at the start -------------------------------------------------------------------------------------------


def start(loss: object) -> LossStart:
    torch.manual_seed(0)
    module, inputs = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 10)), (torch.randn(8, 4),)
    with TorchSession(module, inputs, {}, loss) as session:  # type: ignore[arg-type]
        found = session.probe(ProbeSettings(backward=True)).loss_start
    assert found is not None
    return found


def test_a_cross_entropy_is_known_by_what_zeros_cost() -> None:
    target = torch.arange(8) % 10
    mean = start(lambda y: functional.cross_entropy(y, target))
    total = start(lambda y: functional.cross_entropy(y, target, reduction="sum"))
    smooth = start(lambda y: functional.cross_entropy(y, target, label_smoothing=0.1))
    assert (mean.classes, mean.terms, total.classes, total.terms) == (10, 1, 10, 8)
    assert total.value == pytest.approx(8 * mean.value)
    assert smooth.classes == 10


def test_other_losses_are_not_taken_for_one() -> None:
    assert start(lambda y: (y - 2).square().mean()).classes == 0
    assert math.isnan(start(_refusing_zeros).at_zero)


def _refusing_zeros(y: Tensor) -> Tensor:
    if not y.any():
        raise ValueError("nothing there")
    return y.mean()


def test_the_loss_leaves_no_trace() -> None:
    module = nn.Linear(4, 10)
    state = torch.get_rng_state()
    initlint.check(module, torch.randn(8, 4, generator=torch.Generator()), loss=lambda y: y.mean() * torch.rand(()))
    assert torch.equal(state, torch.get_rng_state())
    assert module.weight.grad is None
