"""Networks whose layers are followed by a normalisation, and weight norm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from .initialised import Built, he, seeded
from .plain import mlp


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != width:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        branch = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(branch)) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        blocks = []
        inputs = widths[0]
        for index, width in enumerate(widths):
            blocks.append(BasicBlock(inputs, width, 1 if index == 0 else 2))
            inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(functional.relu(self.norm(self.stem(x))))
        return self.head(x.mean((2, 3)))


@seeded
def batchnorm_resnet(widths: tuple[int, ...] = (8, 16, 32), classes: int = 10, zero_gamma: bool = False) -> Built:
    """He et al. 2016, optionally with the last gain of each branch at zero (Goyal et al. 2017)."""
    module = ResNet(widths, classes)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        if zero_gamma and isinstance(layer, BasicBlock):
            nn.init.zeros_(layer.bn2.weight)
    return module, (torch.randn(8, 3, 16, 16),)


@seeded
def normed_cnn(norm: str = "group", width: int = 16, classes: int = 10) -> Built:
    """Four convolutions, each followed by a normalisation: "batch", "group", "instance" or "layer" (one group)."""
    kinds: dict[str, Callable[[], nn.Module]] = {
        "batch": lambda: nn.BatchNorm2d(width),
        "group": lambda: nn.GroupNorm(4, width),
        "instance": lambda: nn.InstanceNorm2d(width, affine=True),
        "layer": lambda: nn.GroupNorm(1, width),
    }
    layers: list[nn.Module] = []
    fan_in = 3
    for _ in range(4):
        layers += [nn.Conv2d(fan_in, width, 3, padding=1), kinds[norm](), nn.ReLU()]
        fan_in = width
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, classes))
    module.apply(he)
    return module, (torch.randn(8, 3, 12, 12),)


@seeded
def rms_norm_mlp(depth: int = 6, width: int = 64, classes: int = 10) -> Built:
    layers: list[nn.Module] = []
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width, bias=False), nn.RMSNorm(width), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(width, classes)), (torch.randn(32, width),)


@seeded
def weight_norm_mlp(depth: int = 4, width: int = 64, classes: int = 10) -> Built:
    """Salimans & Kingma 2016: the effective weight is gain * direction / norm."""
    module = mlp(nn.ReLU, depth, width, width, classes)
    module.apply(he)
    for layer in module:
        if isinstance(layer, nn.Linear):
            parametrizations.weight_norm(layer)
    return module, (torch.randn(32, width),)
