"""Networks without normalisation, shortcuts or gates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from .initialised import Built, he, seeded, xavier


def mlp(activation: Callable[[], nn.Module], depth: int, width: int, inputs: int, classes: int) -> nn.Sequential:
    """``depth`` linear layers with the non-linearity between them, as torch draws them."""
    layers: list[nn.Module] = []
    fan_in = inputs
    for _ in range(depth - 1):
        layers += [nn.Linear(fan_in, width), activation()]
        fan_in = width
    return nn.Sequential(*layers, nn.Linear(fan_in, classes))


@seeded
def relu_mlp(depth: int = 4, width: int = 64, inputs: int = 32, classes: int = 10) -> Built:
    module = mlp(nn.ReLU, depth, width, inputs, classes)
    module.apply(he)
    nn.init.xavier_normal_(module[-1].weight)
    return module, (torch.randn(32, inputs),)


@seeded
def tanh_mlp(depth: int = 4, width: int = 64, inputs: int = 32, classes: int = 10) -> Built:
    module = mlp(nn.Tanh, depth, width, inputs, classes)
    module.apply(xavier)
    return module, (torch.randn(32, inputs),)


@seeded
def sigmoid_mlp(depth: int = 3, width: int = 64, inputs: int = 32, classes: int = 10) -> Built:
    """Three layers by default: plain sigmoid nets lose the signal with depth, whatever the initialisation."""
    module = mlp(nn.Sigmoid, depth, width, inputs, classes)
    module.apply(xavier)
    return module, (torch.randn(32, inputs),)


@seeded
def gelu_mlp(depth: int = 4, width: int = 64, inputs: int = 32, classes: int = 10) -> Built:
    module = mlp(nn.GELU, depth, width, inputs, classes)
    module.apply(he)
    return module, (torch.randn(32, inputs),)


@seeded
def selu_mlp(depth: int = 8, width: int = 64, inputs: int = 32, classes: int = 10) -> Built:
    """Klambauer et al. 2017: LeCun normal keeps a SELU net at unit variance."""
    module = mlp(nn.SELU, depth, width, inputs, classes)
    for layer in module:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            nn.init.zeros_(layer.bias)
    return module, (torch.randn(32, inputs),)


@seeded
def torch_default_mlp(depth: int = 3, width: int = 64, inputs: int = 32, classes: int = 10) -> Built:
    """PyTorch's own default in a shallow ReLU net: a sixth of He's variance, and it trains."""
    return mlp(nn.ReLU, depth, width, inputs, classes), (torch.randn(32, inputs),)


@seeded
def relu_cnn(depth: int = 6, width: int = 16, classes: int = 10) -> Built:
    """Convolutions with ReLU and no normalisation, two of them with stride, then a linear head."""
    layers: list[nn.Module] = []
    fan_in, side = 3, 16
    for index in range(depth - 1):
        stride = 2 if index in (1, 3) else 1
        side //= stride
        layers += [nn.Conv2d(fan_in, width, 3, stride, padding=1), nn.ReLU()]
        fan_in = width
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * side * side, classes))
    module.apply(he)
    nn.init.xavier_normal_(module[-1].weight)
    return module, (torch.randn(8, 3, 16, 16),)


@seeded
def zero_head(width: int = 64, classes: int = 10) -> Built:
    """A ReLU net whose last layer starts at zero: uniform predictions, and it trains."""
    module = mlp(nn.ReLU, 3, width, width, classes)
    module.apply(he)
    nn.init.zeros_(module[-1].weight)
    return module, (torch.randn(32, width),)
