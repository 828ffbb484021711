"""A norm is known in whatever arithmetic it is written, in a module as in its export; what looks like one is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from tracing import traced

import initlint
from initlint.plugin import Kind

Written = Callable[[Tensor, Tensor, Tensor], Tensor]
CHANNELS = 8


def by_means(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    mean = x.mean(1, keepdim=True)
    return gain * ((x - mean) / torch.sqrt((x - mean).pow(2).mean(1, keepdim=True) + 1e-6)) + shift


def by_variance(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    variance = torch.var(x, dim=1, unbiased=False, keepdim=True)
    return (x - x.mean(1, keepdim=True)) * (variance + 1e-5).rsqrt() * gain + shift


def by_both_at_once(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    variance, mean = torch.var_mean(x, dim=1, unbiased=False, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-5) * gain + shift


def by_deviation(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    return gain * (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-6) + shift


def by_difference(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    mean = x.mean(1, keepdim=True)
    return (x - mean) / torch.sqrt((x**2).mean(1, keepdim=True) - mean**2 + 1e-5) * gain + shift


def by_a_product_of_two(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    mean = x.mean(1, keepdim=True)
    variance = ((x - mean) * (x - mean)).mean(1, keepdim=True)
    return torch.addcmul(shift, gain, (x - mean) * variance.add(1e-5).rsqrt())


def by_a_power(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    return centred * ((centred**2).mean(1, keepdim=True) + 1e-5) ** -0.5 * gain + shift


def per_channel(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    return (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), keepdim=True) + 1e-5) * gain + shift


def over_the_batch(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    variance = x.var((0, 2, 3), keepdim=True, unbiased=False)
    return (x - x.mean((0, 2, 3), keepdim=True)) / (variance + 1e-5).sqrt() * gain + shift


def by_normalize(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    return functional.normalize(x, dim=1) * gain * CHANNELS**0.5


def by_normalize_and_distance_from_one(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    return functional.normalize(x, dim=1) * CHANNELS**0.5 * (gain + 1)


def by_a_length(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    return x / (x.norm(2, dim=1, keepdim=True) * CHANNELS**-0.5 + 1e-8) * gain


def by_a_clamped_length(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    return x / (torch.norm(x, dim=1, keepdim=True) * CHANNELS**-0.5).clamp(min=1e-5) * gain


def by_a_sum_of_squares(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    return x / (x.square().sum(1, keepdim=True) / CHANNELS + 1e-6).sqrt() * gain


def by_a_mean_of_squares(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    return gain * (x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)).type_as(x)


NORMS: dict[Written, Kind] = {
    by_means: Kind.LAYER_NORM,
    by_variance: Kind.LAYER_NORM,
    by_both_at_once: Kind.LAYER_NORM,
    by_deviation: Kind.LAYER_NORM,
    by_difference: Kind.LAYER_NORM,
    by_a_product_of_two: Kind.LAYER_NORM,
    by_a_power: Kind.LAYER_NORM,
    per_channel: Kind.INSTANCE_NORM,
    over_the_batch: Kind.BATCH_NORM,
    by_normalize: Kind.RMS_NORM,
    by_normalize_and_distance_from_one: Kind.RMS_NORM,
    by_a_length: Kind.RMS_NORM,
    by_a_clamped_length: Kind.RMS_NORM,
    by_a_sum_of_squares: Kind.RMS_NORM,
    by_a_mean_of_squares: Kind.RMS_NORM,
}


def by_its_sum(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Shares of a whole."""
    return x / (x.sum(1, keepdim=True) + 1e-5) * gain


def squashed(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Short vectors stay short."""
    return x / (1 + x.norm(dim=1, keepdim=True)) * gain


def softened(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    return x / torch.sqrt(1 + x.pow(2).mean(1, keepdim=True)) * gain


def by_the_length_of_something_else(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    return x / (torch.sin(x).std(1, keepdim=True) + 1e-5) * gain


def by_the_variance(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Without a root: twice as large an input gives half as large an output."""
    return (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 1e-5) * gain


NEAR_MISSES: tuple[Written, ...] = (
    by_its_sum,
    squashed,
    softened,
    by_the_length_of_something_else,
    by_the_variance,
)


class Normed(nn.Module):
    def __init__(self, written: Written) -> None:
        super().__init__()
        self.written, self.conv, self.head = written, nn.Conv2d(3, CHANNELS, 3), nn.Linear(CHANNELS, 4)
        self.gain = nn.Parameter(torch.ones(1, CHANNELS, 1, 1))
        self.shift = nn.Parameter(torch.zeros(1, CHANNELS, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.written(self.conv(x), self.gain, self.shift)).mean((2, 3)))


def batch() -> Tensor:
    return torch.randn(4, 3, 7, 7)


@pytest.mark.parametrize(("written", "kind"), NORMS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_norm_is_a_layer_however_it_is_written(written: Written, kind: Kind) -> None:
    conv, norm, _ = traced(Normed(written), batch()).model.layers
    assert (conv.norm_after, norm.kind, norm.weight.address) == (kind, kind, "gain")


@pytest.mark.parametrize(("written", "kind"), NORMS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_its_export_says_the_same(written: Written, kind: Kind, tmp_path: Path) -> None:
    path = str(tmp_path / "model.onnx")
    torch.onnx.export(Normed(written).eval(), (batch(),), path, dynamo=False)
    conv, norm, _ = (row.layer for row in initlint.check(path).layers)
    assert (conv.norm_after, norm.kind) == (kind, kind)


@pytest.mark.parametrize("written", NEAR_MISSES, ids=lambda written: str(written.__name__))
def test_what_keeps_the_scale_is_no_norm(written: Written) -> None:
    layers = traced(Normed(written), batch()).model.layers
    assert [layer.norm_after for layer in layers] == [None] * len(layers)
    assert not any(layer.kind.is_norm for layer in layers)


def test_a_zero_gain_of_a_written_norm_is_told() -> None:
    """Twice in a row, so that each of the two waits for the other."""
    model = nn.Sequential(nn.Conv2d(3, 3, 1), Gained(), Gained(), nn.Flatten(), nn.Linear(147, 3))
    for norm in (model[1], model[2]):
        nn.init.zeros_(norm.gain)
    found = {finding.address for finding in initlint.check(model, batch()).findings if finding.rule == "zero-norm-gain"}
    assert found == {"1.gain", "2.gain"}


class Gained(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x, dim=1) * self.gain * math.sqrt(3)
