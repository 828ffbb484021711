"""Gradients are autograd's own, and the module does not notice."""

from __future__ import annotations

from typing import Any

import models
import pytest
import torch
from judging import BOTH, fingerprint
from models import deadlocks
from torch import Tensor, nn
from torch.nn import functional

import initlint
from initlint.errors import TargetError
from initlint.plugin import Liveness, Signals
from initlint.probe.on_torch import TorchSession
from initlint.probe.signals import Backward, Loss
from initlint.settings import ProbeSettings

GRADIENTS = ProbeSettings(backward=True)


def measure(module: nn.Module, *inputs: Tensor, loss: object = None, settings: ProbeSettings = GRADIENTS) -> Signals:
    before = fingerprint(module)
    signals = TorchSession(module, inputs, {}, loss).probe(settings)  # type: ignore[arg-type]
    assert fingerprint(module) == before
    return signals


def rms(tensor: Tensor) -> float:
    return float(tensor.double().square().mean().sqrt())


def test_gradients_of_a_given_loss_are_those_of_autograd() -> None:
    module, (x,) = models.relu_mlp(0)

    def loss(output: Tensor, inputs: Tensor) -> Tensor:
        return (output.square().mean(1) * inputs[:, 0]).sum()

    signals = measure(module, x, loss=loss)
    assert (signals.backward, signals.loss) == (Backward.EXACT, Loss.GIVEN)
    loss(module(x), x).backward()
    wanted = {name: rms(parameter.grad) for name, parameter in module.named_parameters()}
    assert {name: signal.rms for name, signal in signals.gradients.items()} == pytest.approx(wanted, rel=1e-4)


def test_gradients_at_layer_outputs_survive_what_overwrites_them() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.ReLU(inplace=True), nn.Linear(16, 4))
    x = torch.randn(16, 8)
    signals = measure(module, x, loss=lambda output: output.square().sum())
    hidden = module[0](x)
    hidden.retain_grad()
    module[2](torch.relu(hidden)).square().sum().backward()
    assert hidden.grad is not None
    assert signals.activation_gradients["0"] == pytest.approx(rms(hidden.grad), rel=1e-4)


def test_without_a_loss_it_is_a_random_linear_one_that_the_seed_decides() -> None:
    module, (x,) = models.tanh_mlp(0)
    one, two = (measure(module, x, settings=ProbeSettings(backward=True, seed=seed)) for seed in (0, 0))
    other = measure(module, x, settings=ProbeSettings(backward=True, seed=1))
    assert one.loss is Loss.RANDOM_LINEAR
    assert one.gradients == two.gradients != other.gradients


def test_outputs_of_equal_shape_share_their_coefficients() -> None:
    module, (x,) = deadlocks.twin_critics(0)
    gradients = measure(module, x).gradients
    assert gradients["one.0.weight"] == gradients["two.0.weight"]


def test_logits_come_first_and_what_is_left_out_is_said() -> None:
    module, (x,) = deadlocks.auxiliary(0)
    signals = measure(module, x)
    assert "aside.weight" not in signals.gradients
    assert [entry.at for entry in signals.not_probed] == ["auxiliary outputs"]


def test_parts_of_packed_tensors_have_gradients_of_their_own() -> None:
    module, (ids,) = models.lstm(0)
    gradients = measure(module, ids).gradients
    gates = [gradients[f"cell.weight_hh_l0[{gate}]"].rms for gate in "ifgo"]
    assert rms(torch.tensor(gates)) == pytest.approx(gradients["cell.weight_hh_l0"].rms, rel=1e-3)


class Unusual(nn.Module):
    """A sparse table, a complex weight, half precision and an integer buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8, sparse=True)
        self.phase = nn.Parameter(torch.randn(8, 8, dtype=torch.complex64))
        self.low = nn.Linear(8, 4).to(torch.bfloat16)
        self.register_buffer("steps", torch.tensor(3))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids).mean(1)
        x = torch.view_as_real(x.to(torch.complex64) @ self.phase).sum(-1)
        return self.low(x.to(torch.bfloat16))


def test_sparse_complex_and_half_precision_gradients() -> None:
    torch.manual_seed(0)
    ids = torch.randint(40, (16, 4))
    signals = measure(Unusual(), ids, settings=BOTH)
    assert set(signals.gradients) == {"table.weight", "phase", "low.weight", "low.bias"}
    assert all(signal.rms > 0 for signal in signals.gradients.values())
    assert signals.gradients["table.weight"].zero_share >= 0.2
    assert set(signals.liveness.values()) == {Liveness.LIVE}


def test_steps_move_sparse_complex_and_half_precision_weights_and_put_them_back() -> None:
    torch.manual_seed(0)
    module = Unusual()
    nn.init.zeros_(module.low.weight)
    signals = measure(module, torch.randint(40, (16, 4)), settings=BOTH)
    assert signals.steps >= 1
    assert set(signals.liveness.values()) == {Liveness.LIVE}


class WithoutGradients(nn.Linear):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (WithoutGradients(8, 4), "does not depend on a parameter"),
        (nn.Linear(8, 4).requires_grad_(False), "none of the model's parameters is trainable"),
    ],
)
def test_no_gradients_have_a_reason(module: nn.Module, reason: str) -> None:
    signals = measure(module, torch.randn(4, 8), settings=BOTH)
    assert signals.backward is Backward.NONE
    assert reason in signals.backward_reason
    assert signals.liveness == {}


def test_the_callers_gradient_mode_does_not_matter() -> None:
    module, (x,) = models.relu_mlp(0)
    with torch.no_grad():
        signals = measure(module, x)
    assert signals.gradients == measure(module, x).gradients


def test_a_loss_that_is_no_scalar_is_told_so() -> None:
    module, (x,) = models.relu_mlp(0)
    with pytest.raises(TargetError, match="one value"):
        measure(module, x, loss=lambda output: output)


class Caching(nn.Module):
    """Keeps something of every forward as a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)
        self.calls = 0
        self.register_buffer("last", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = x.mean(0)
        self.effective = self.layer.weight * 2
        return functional.linear(x, self.effective)


def test_attributes_that_the_forward_sets_are_put_back() -> None:
    module = Caching()
    last = module.last
    session = TorchSession(module, (torch.randn(4, 8),), {})
    session.probe(BOTH)
    assert module.calls == 0
    assert module.last is last
    assert not hasattr(module, "effective")


def test_a_loss_may_read_what_the_forward_left_in_the_module() -> None:
    module = Caching()
    signals = measure(
        module, torch.randn(4, 8), loss=lambda output: output.sum() + module.effective.sum(), settings=BOTH
    )
    assert signals.loss is Loss.GIVEN
    assert not hasattr(module, "effective")


def test_hooks_of_the_user_stay() -> None:
    module, (x,) = models.relu_mlp(0)
    seen: list[str] = []
    module[0].register_forward_hook(lambda *_: seen.append("forward"))
    module[0].register_full_backward_hook(lambda *_: seen.append("backward"))
    measure(module, x, settings=BOTH)
    assert len(module[0]._forward_hooks) == len(module[0]._backward_hooks) == 1


class _Reversible(torch.autograd.Function):
    """A backward that runs its layer again and calls autograd itself, as those of reversible nets do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Module) -> Tensor:
        ctx.x, ctx.layer = x.detach(), layer
        out: Tensor = layer(x.detach())
        return out.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:  # type: ignore[override]
        with torch.enable_grad():
            x = ctx.x.requires_grad_()
            torch.autograd.backward(ctx.layer(x), gradient)
        return x.grad, None


class _RunsBackwardItself(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.inner, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.relu(_Reversible.apply(self.before(x), self.inner)))
        return out


def test_what_a_backward_accumulates_is_taken_for_a_gradient_and_taken_back() -> None:
    torch.manual_seed(0)
    module = _RunsBackwardItself()
    kept = module.inner.bias.grad = torch.ones(16)
    report = initlint.check(module, torch.randn(16, 8))
    assert report.findings == ()
    assert module.inner.bias.grad is kept and bool((kept == 1).all())
    assert module.inner.weight.grad is None and module.before.weight.grad is None


def test_a_graph_that_was_there_before_is_left_to_its_owner() -> None:
    torch.manual_seed(0)
    module = nn.Linear(8, 3)
    scale = nn.Parameter(torch.randn(8))
    made = scale.exp()
    module.register_forward_pre_hook(lambda _, args: (args[0] * made,))
    report = initlint.check(module, torch.randn(16, 8))
    assert report.probe.backward == "exact"
    module(torch.randn(16, 8)).sum().backward()
    assert scale.grad is not None
