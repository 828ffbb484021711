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
    Bad("batch norm", normed, ["0.bias"], Severity.NOTE, exporters=()),
    Bad("instance norm", by_instance, ["0.bias"], Severity.NOTE, exporters=()),
)
def test_bias_before_norm(case: Case) -> None:
    check("bias-before-norm", case, seeds=(0,))
