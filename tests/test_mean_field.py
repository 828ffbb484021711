"""What theory predicts of random nets is what they do, means of weights and biases included."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import initlint
from initlint import activations, mean_field
from initlint.mean_field import Field, Weights
from initlint.model import Layer
from initlint.plugin import Context, outlook, plain_paths
from initlint.prediction import follow, predict
from initlint.probe.on_torch import TorchSession
from initlint.settings import ProbeSettings

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda z: z,
    "relu": functional.relu,
    "gelu": functional.gelu,
    "selu": functional.selu,
    "silu": functional.silu,
    "softplus": functional.softplus,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}

Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


def he(n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(n, n, generator=g) * math.sqrt(2 / n), torch.zeros(n)


def xavier(n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(n, n, generator=g) / math.sqrt(n), torch.zeros(n)


def default(n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """PyTorch's, biases included."""
    return tuple((2 * torch.rand(*shape, generator=g) - 1) / math.sqrt(n) for shape in ((n, n), (n,)))  # type: ignore[return-value]


def tiny(n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(n, n, generator=g) * 0.01, torch.zeros(n)


def biased(n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(n, n, generator=g) / math.sqrt(n), 0.3 + 0.5 * torch.randn(n, generator=g)


def shifted(n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    return (torch.randn(n, n, generator=g) + 0.5) / math.sqrt(n), torch.zeros(n)


def positive(n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.rand(n, n, generator=g), torch.zeros(n)


SYMMETRIC = (he, xavier, default, tiny, biased)
ONE_SIDED = (shifted, positive)
WIDTH = 128


def compared(name: str, draw: Draw, depth: int, seed: int = 0) -> tuple[float, float, float]:
    """Predicted over measured rms and spread at the last of ``depth`` layers; the measured spread."""
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(512, WIDTH, generator=generator).double()
    layers = []
    for index in range(depth):
        weight, bias = (tensor.double() for tensor in draw(WIDTH, generator))
        z = h @ weight.T + bias
        h = FUNCTIONS[name](z)
        moments = (float(t.var(correction=0)) if k else float(t.mean()) for t in (weight, bias) for k in (0, 1))
        function = activations.get(name if index else "identity")
        layers.append((function, Weights(WIDTH, *moments)))
    last = list(mean_field.predict(Field(own=1.0), layers))[-1]
    spread = float(z.var(0).mean().sqrt())
    return last.rms / float(z.square().mean().sqrt()), last.spread / spread, spread


@pytest.mark.parametrize("depth", [2, 8])
@pytest.mark.parametrize("draw", SYMMETRIC, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_rms_and_spread_are_within_a_factor_of_one_and_a_half(name: str, draw: Draw, depth: int) -> None:
    rms, spread, measured = compared(name, draw, depth)
    assert 1 / 1.5 < rms < 1.5
    assert 1 / 1.5 < spread < 1.5 or measured < 1e-12  # where float64 has lost it


@pytest.mark.parametrize("draw", ONE_SIDED, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("name", ["relu", "gelu", "selu", "silu", "softplus"])
def test_weights_with_a_mean_are_followed_too(name: str, draw: Draw) -> None:
    rms, spread, _ = compared(name, draw, 8)
    assert 1 / 1.5 < rms < 1.5
    assert 1 / 3 < spread < 3  # the part that units share is not quite Gaussian


def test_leaving_the_means_out_would_miss_the_explosion() -> None:
    """Uniform(0, 1), 64 wide: without means each layer is a factor of 2; with them it is 16 times as much."""
    weights = Weights(64, 0.5, 1 / 12)
    blind = Weights(64, 0.0, weights.power / 64)
    relu = activations.get("relu")
    (_, *_, seeing), (_, *_, unseeing) = (
        list(mean_field.predict(Field(own=1.0), [(relu, each)] * 10)) for each in (weights, blind)
    )
    assert seeing.rms > 1e12
    assert unseeing.rms < 1e6


def test_relu_keeps_a_half_and_the_default_a_sixth_of_the_power() -> None:
    relu, default = activations.get("relu"), Weights(256, 0.0, 1 / (3 * 256))
    fields = list(mean_field.predict(Field(own=1.0), [(relu, default)] * 20))
    assert fields[-1].rms ** 2 == pytest.approx((1 / 6) ** 20, rel=0.02)  # 3e-16
    he = list(mean_field.predict(Field(own=1.0), [(relu, Weights(256, 0.0, 2 / 256))] * 20))
    assert he[-1].rms == pytest.approx(1.0, rel=0.02)


def test_biases_keep_the_size_and_not_the_signal() -> None:
    relu = activations.get("relu")
    layers = [(relu, Weights(64, 0.0, 1 / (3 * 64), 1.0, 0.1))] * 20
    last = list(mean_field.predict(Field(own=1.0), layers))[-1]
    assert last.rms > 1.0
    assert last.spread < 1e-4


def test_small_spreads_keep_their_digits() -> None:
    """Beside a common part of 1, nested differences and the slope give the same spread over twelve decades."""
    gelu, weights = activations.get("gelu"), Weights(64, 0.0, 1 / 64)
    ratios = []
    for exponent in range(2, 14):
        before = Field(own=10.0 ** (-2 * exponent), common=1.0)
        ratios.append(mean_field.forwards(mean_field.response(before, gelu, False), weights).own / before.own)
    assert max(ratios) / min(ratios) < 1.02


def test_chi_is_the_growth_of_small_differences() -> None:
    """At Xavier's scale tanh forgets and at three times it is chaotic (Poole et al. 2016, figure 1)."""
    tanh = activations.get("tanh")
    for gain, chaotic in ((0.8, False), (3.0, True)):
        weights = Weights(100, 0.0, gain**2 / 100)
        fixed = list(mean_field.predict(Field(own=1.0), [(tanh, weights)] * 50))[-1]
        chi = mean_field.slope_power(fixed, tanh, weights)
        assert (chi > 1) is chaotic
        assert mean_field.depth_scale(chi) == pytest.approx(1 / abs(math.log(chi)))


def test_how_deep_a_signal_gets() -> None:
    assert mean_field.layers_until(5e-3, 0.41) == 6  # 0.41^6 = 4.7e-3
    assert mean_field.layers_until(5e-3, 1.0) == 0
    assert mean_field.depth_scale(math.exp(-0.5)) == pytest.approx(2.0)
    assert mean_field.depth_scale(1.0) == math.inf
    assert mean_field.depth_scale(0.0) == 0.0


def test_what_outgrows_float32_is_infinite_and_what_fades_is_not_zero() -> None:
    relu = activations.get("relu")
    loud = list(mean_field.predict(Field(own=1.0), [(relu, Weights(10, 0.0, 1e20))] * 10))
    assert loud[-1].rms == math.inf
    quiet = list(mean_field.predict(Field(own=1.0), [(relu, Weights(10, 0.0, 1e-30))] * 20))
    assert 0.0 < quiet[-1].spread < 1e-100
    cut = list(mean_field.predict(Field(own=1.0), [(relu, Weights(10, 0.0, 0.0, 1.0))] * 3))
    assert cut[-1].spread == 0.0


class Bump(nn.Module):
    """Nobody's non-linearity."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.exp(-x * x / 4)


@pytest.mark.parametrize("function", [nn.ReLU, nn.Tanh, Bump, partial(nn.LeakyReLU, 0.5)])
def test_a_model_is_predicted_as_the_probe_measures_it(function: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    widths = [32, 64, 96, 128, 128, 128]
    layers = [m for i, o in pairwise(widths) for m in (nn.Linear(i, o), function())]
    module = nn.Sequential(*layers, nn.Linear(128, 100))
    session = TorchSession(module, (torch.randn(64, 32),), {})
    signals = session.probe(ProbeSettings())
    (stretch,) = predict(session.model, session.stats())
    assert len(stretch.fields) == 6
    for layer, field in zip(stretch.path.layers, stretch.fields, strict=True):
        assert field.rms == pytest.approx(signals.layers[layer.name].rms, rel=0.3)
        assert field.spread == pytest.approx(signals.layers[layer.name].std, rel=0.3)


def test_sums_normalisations_and_learned_scales_end_a_stretch() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps = nn.ModuleList(nn.Linear(16, 16) for _ in range(7))
            self.norm = nn.LayerNorm(16)
            self.scale = nn.Parameter(torch.rand(16))

        def forward(self, x: Tensor) -> Tensor:
            a, b, c, d, e, f, g = self.maps
            x = b(a(x).relu()).relu()
            x = d(c(x).relu() * self.scale)
            x = e(self.norm(x)).relu()
            x = x + f(x).relu()
            return g(x)  # type: ignore[no-any-return]

    torch.manual_seed(0)
    session = TorchSession(Net(), (torch.randn(8, 16),), {})
    stretches = predict(session.model, session.stats())
    assert [[layer.name for layer in each.path.layers] for each in stretches] == [["maps.0", "maps.1", "maps.2"]]


def test_nothing_is_predicted_without_dataflow() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=1e-6)
    report = initlint.check(module, no_probe=True, select=["vanishing-signal", "exploding-signal"])
    assert report.findings == ()


def test_the_outlook_says_how_far_the_signal_gets_and_what_would_keep_it() -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = [m for _ in range(9) for m in (nn.Linear(64, 64), nn.ReLU())]
    session = TorchSession(nn.Sequential(*layers, nn.Linear(64, 10)), (torch.randn(8, 64),), {})
    context = Context(session.model, session.stats(), session.probe(ProbeSettings()))
    (path,) = plain_paths(context.model, context.signals)
    why = outlook(context.model, path, context.stats, 0.41)
    assert why.predicted == pytest.approx(0.4, abs=0.04)
    assert why.kept == pytest.approx(0.95, abs=0.05)
    assert why.survives(5e-3) == 6
    text = why.fading(5e-3)
    assert text.startswith("at 0.41 per layer less than 0.5 % is left from layer 6 on; He initialisation keeps 0.9")
    assert why.growing().startswith("each layer multiplies it by 0.41; He initialisation keeps 0.9")


def test_an_identity_carries_over() -> None:
    torch.manual_seed(0)
    maps = [nn.Linear(32, 32) for _ in range(8)]
    for each in maps:
        nn.init.eye_(each.weight)
        nn.init.zeros_(each.bias)
    session = TorchSession(nn.Sequential(*(m for each in maps for m in (each, nn.ReLU()))), (torch.randn(8, 32),), {})
    (stretch,) = predict(session.model, session.stats())
    assert stretch.fields[-1].rms < 2


def test_a_path_is_followed_as_far_as_weights_are_finite() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    with torch.no_grad():
        module[2].weight[0, 0] = math.nan
    session = TorchSession(module, (torch.randn(8, 8),), {})
    layers: tuple[Layer, ...] = session.model.layers
    (stretch,) = predict(session.model, session.stats())
    assert len(stretch.fields) == 1
    assert len(follow(stretch.path, session.stats()).fields) == 1
    assert stretch.path.layers == layers
