"""Idioms of convolutional networks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .initialised import Built, he, seeded


@seeded
def autoencoder(width: int = 16) -> Built:
    module = nn.Sequential(
        nn.Conv2d(3, width, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(width, 3, 4, 2, 1),
    )
    module.apply(he)
    for layer in module:
        if isinstance(layer, nn.ConvTranspose2d):  # an output pixel sums in * (kernel / stride)^2 products
            nn.init.normal_(layer.weight, std=math.sqrt(2.0 / (layer.in_channels * 4)))
    return module, (torch.randn(8, 3, 16, 16),)


@seeded
def gan_generator(latent: int = 32, width: int = 16) -> Built:
    """Radford et al. 2016 (DCGAN): normal with std 0.02, norm gains around 1."""
    module = nn.Sequential(
        nn.ConvTranspose2d(latent, 4 * width, 4, 1, 0, bias=False),
        nn.BatchNorm2d(4 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, 3, 4, 2, 1, bias=False),
        nn.Tanh(),
    )
    for layer in module:
        if isinstance(layer, nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
    return module, (torch.randn(16, latent, 1, 1),)


class InvertedResidual(nn.Module):
    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        hidden = width * expansion
        self.expand = nn.Conv2d(width, hidden, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden)
        self.project = nn.Conv2d(hidden, width, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu6(self.norm1(self.expand(x)))
        hidden = functional.relu6(self.norm2(self.depthwise(hidden)))
        return x + self.norm3(self.project(hidden))


@seeded
def mobilenet(width: int = 16, depth: int = 3, classes: int = 10) -> Built:
    stem = [nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU6()]
    blocks = [InvertedResidual(width, 4) for _ in range(depth)]
    module = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    return module, (torch.randn(8, 3, 16, 16),)


class SqueezeExcite(nn.Module):
    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.reduce = nn.Linear(width, squeezed)
        self.expand = nn.Linear(squeezed, width)

    def forward(self, x: Tensor) -> Tensor:
        branch = functional.relu(self.norm(self.conv(x)))
        gate = self.expand(functional.relu(self.reduce(branch.mean((2, 3))))).sigmoid()
        return x + branch * gate[:, :, None, None]


@seeded
def squeeze_excite(width: int = 16, depth: int = 3, classes: int = 10) -> Built:
    blocks = [SqueezeExcite(width, width // 4) for _ in range(depth)]
    stem = nn.Conv2d(3, width, 3, padding=1)
    module = nn.Sequential(stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))
    module.apply(he)
    return module, (torch.randn(8, 3, 12, 12),)


class UNet(nn.Module):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.down1 = self._stage(3, width)
        self.down2 = self._stage(width, 2 * width)
        self.bottom = self._stage(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.merge2 = self._stage(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.merge1 = self._stage(2 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    @staticmethod
    def _stage(inputs: int, width: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(functional.max_pool2d(first, 2))
        bottom = self.bottom(functional.max_pool2d(second, 2))
        second = self.merge2(torch.cat([second, self.up2(bottom)], dim=1))
        return self.head(self.merge1(torch.cat([first, self.up1(second)], dim=1)))


@seeded
def unet(width: int = 8, classes: int = 3) -> Built:
    return UNet(width, classes), (torch.randn(4, 3, 16, 16),)


@seeded
def pixel_shuffle(width: int = 16, scale: int = 2) -> Built:
    """ICNR (Aitken et al. 2017): scale^2 equal kernels in a row before a pixel shuffle, which starts as nearest."""
    module = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 3 * scale**2, 3, padding=1),
        nn.PixelShuffle(scale),
    )
    module.apply(he)
    last = module[2]
    with torch.no_grad():
        last.weight.copy_(last.weight[:: scale**2].repeat_interleave(scale**2, dim=0))
    return module, (torch.randn(8, 3, 12, 12),)


class ConvNeXtBlock(nn.Module):
    """``scale`` multiplies the branch: a tiny vector is LayerScale, one zero scalar ReZero."""

    def __init__(self, width: int, scale: Tensor) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.project = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(scale.clone())

    def forward(self, x: Tensor) -> Tensor:
        branch = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        branch = self.project(functional.gelu(self.expand(branch)))
        return x + (self.scale * branch).permute(0, 3, 1, 2)


def _convnext(width: int, depth: int, scale: Tensor) -> Built:
    blocks = [ConvNeXtBlock(width, scale) for _ in range(depth)]
    stem = nn.Conv2d(3, width, 2, 2)
    module = nn.Sequential(
        stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(width), nn.Linear(width, 10)
    )
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return module, (torch.randn(8, 3, 16, 16),)


@seeded
def layer_scale(width: int = 16, depth: int = 3) -> Built:
    """Touvron et al. 2021; Liu et al. 2022: a tiny constant vector scales each residual branch."""
    return _convnext(width, depth, torch.full((width,), 1e-6))


@seeded
def re_zero(width: int = 16, depth: int = 3) -> Built:
    """Bachlechner et al. 2020: one zero scalar per residual branch."""
    return _convnext(width, depth, torch.zeros(1))


class FixupBlock(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.bias1a, self.bias1b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.bias2a, self.bias2b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.scale = nn.Parameter(torch.ones(1))
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        nn.init.normal_(self.conv1.weight, std=math.sqrt(2.0 / (9 * width)) * depth**-0.5)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        branch = functional.relu(self.conv1(x + self.bias1a) + self.bias1b)
        return functional.relu(x + self.conv2(branch + self.bias2a) * self.scale + self.bias2b)


@seeded
def fixup(width: int = 16, depth: int = 4, classes: int = 10) -> Built:
    """Zhang et al. 2019: no normalisation; zero last convolution per branch, zero head."""
    blocks = [FixupBlock(width, depth) for _ in range(depth)]
    head = nn.Linear(width, classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
    he(stem)
    module = nn.Sequential(stem, nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    return module, (torch.randn(8, 3, 12, 12),)


@seeded
def focal_prior(width: int = 16, classes: int = 8) -> Built:
    """Lin et al. 2017 (RetinaNet): std 0.01 and a bias of -log(99) on the classification output."""
    module = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, classes, 3, padding=1),
        nn.Sigmoid(),
    )
    module.apply(he)
    nn.init.normal_(module[5].weight, std=0.01)
    nn.init.constant_(module[5].bias, -math.log(99.0))
    return module, (torch.randn(8, 3, 12, 12),)
