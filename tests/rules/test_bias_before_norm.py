"""A bias in front of a batch norm is idle; one in front of a layer norm, or with another reader, is not."""

from __future__ import annotations

import torch
from models import Built, batchnorm_resnet, relu_mlp, seeded, vit
from torch import Tensor, nn

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

LEGACY = ("legacy",)


@seeded
def normed(norm: str = "batch", bias: bool = True) -> Built:
    kinds = {"batch": nn.BatchNorm2d(8), "instance": nn.InstanceNorm2d(8, affine=True), "group": nn.GroupNorm(2, 8)}
    layers = [nn.Conv2d(3, 8, 3, bias=bias), kinds[norm], nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)]
    return nn.Sequential(*layers), (torch.randn(8, 3, 8, 8),)


class TwoReaders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(16 * 36, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.head(torch.cat([x, self.norm(x)], 1).flatten(1))


@seeded
def two_readers() -> Built:
    return TwoReaders(), (torch.randn(8, 3, 8, 8),)


@seeded
def relu_between() -> Built:
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 36, 10)]
    return nn.Sequential(*layers), (torch.randn(8, 3, 8, 8),)


@seeded
def padded_between() -> Built:
    layers = [nn.Conv2d(3, 8, 3), nn.ZeroPad2d(2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 100, 10)]
    return nn.Sequential(*layers), (torch.randn(8, 3, 8, 8),)


class Tied(nn.Module):
    """One bias, in front of a norm and of none."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.norm, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.two.bias = self.one.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.one(x)) + self.two(x)))


@seeded
def tied() -> Built:
    return Tied(), (torch.randn(16, 6),)


@seeded
def zero_head() -> Built:
    model, inputs = normed(0)
    nn.init.zeros_(model[-1].weight)
    return model, inputs


@seeded
def by_two_values() -> Built:
    """A batch norm over two values gives -1 and 1, and gradients that are rounding."""
    layers = [nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8, 10)]
    return nn.Sequential(*layers), (torch.randn(2, 3, 1, 1),)


@seeded
def per_token() -> Built:
    """The units of a linear map over tokens are moved to where the norm wants them."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map, self.norm, self.head = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.relu(self.norm(self.map(x).transpose(1, 2))).mean(2))

    return Tokens(), (torch.randn(8, 5, 6),)


def grouped(seed: int = 0) -> Built:
    return normed(seed, norm="group")


def without(seed: int = 0) -> Built:
    return normed(seed, bias=False)


def by_instance(seed: int = 0) -> Built:
    return normed(seed, norm="instance")


@cases(
    Good("no norm", relu_mlp, notes_ok=False, exporters=LEGACY),
    Good("residual net without biases", batchnorm_resnet, notes_ok=False, exporters=LEGACY),
    Good("no bias", without, notes_ok=False, exporters=LEGACY),
    Good("near miss: layer norms", vit, notes_ok=False, exporters=LEGACY),
    Good("near miss: a group norm leaves some of it", grouped, notes_ok=False, exporters=LEGACY),
    Good("near miss: something else reads it too", two_readers, notes_ok=False, exporters=LEGACY),
    Good("near miss: a ReLU between", relu_between, notes_ok=False, exporters=LEGACY),
    Good("near miss: padding, to which nothing is added", padded_between, notes_ok=False, exporters=LEGACY),
    Good("near miss: tied to a bias without a norm", tied, notes_ok=False, exporters=LEGACY),
    Bad("batch norm", normed, ["0.bias"], Severity.NOTE, exporters=LEGACY),
    Bad("instance norm", by_instance, ["0.bias"], Severity.NOTE, exporters=()),
    Bad("in front of a zero head", zero_head, ["0.bias"], Severity.NOTE, exporters=()),
    Bad("batch norm over two values", by_two_values, ["0.bias"], Severity.NOTE, exporters=()),
    Bad("batch norm over tokens", per_token, ["map.bias"], Severity.NOTE, exporters=LEGACY),
)
def test_bias_before_norm(case: Case) -> None:
    check("bias-before-norm", case, seeds=(0, 1, 2))
