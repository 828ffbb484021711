"""The right idea in the wrong size: fans, outliers, biases, heads, and initialisations that were lost."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from models.attention import Block
from models.initialised import he
from models.plain import mlp
from torch import Tensor, nn

from .case import Bug
from .zeros import DiT


def _plain_convolutions(groups: int, std: Callable[[nn.Conv2d], float], depth: int = 6) -> nn.Module:
    net = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU())
    for _ in range(depth):
        net.extend([nn.Conv2d(16, 16, 3, padding=1, groups=groups), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU()])
    net.extend([nn.Flatten(), nn.Linear(256, 10)])
    net.apply(he)
    for layer in net:
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            nn.init.normal_(layer.weight, std=std(layer))
    return net


def depthwise_fan(broken: bool) -> nn.Module:
    """timm#84: fan_out without the division by the groups."""
    return _plain_convolutions(16, lambda c: math.sqrt(2 / (9 * (c.out_channels if broken else 1))))


def grouped_fan(broken: bool) -> nn.Module:
    """pytorch#23854: kaiming's fan_out of a grouped convolution counts the filters of all groups."""
    return _plain_convolutions(4, lambda c: math.sqrt(2 / (9 * (c.out_channels if broken else 4))))


def depthwise_fan_normed(broken: bool) -> nn.Module:
    net = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    for _ in range(3):
        net.extend([nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU()])
        nn.init.normal_(net[-3].weight, std=math.sqrt(2 / (9 * (16 if broken else 1))))
    return net.extend([nn.Flatten(), nn.Linear(256, 10)])


def packed_projection(broken: bool) -> nn.Module:
    """pytorch#166378: Xavier on the packed (3 * width, width) weight takes its fans from all three parts."""
    block = Block(32, 4)
    bound = math.sqrt(6 / ((3 if broken else 1) * 32 + 32))
    nn.init.uniform_(block.attention.qkv.weight, -bound, bound)
    return nn.Sequential(nn.Linear(8, 32), block, nn.LayerNorm(32), nn.Flatten(), nn.Linear(256, 10))


def transposed_fan(broken: bool) -> nn.Module:
    """Lasagne#858: a decoder whose fans are swapped."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Unflatten(1, (64, 1, 1)))
    for inputs, outputs in ((64, 32), (32, 16), (16, 1)):
        net.extend([nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.ReLU()])
        fan = (outputs if broken else inputs) * 4
        nn.init.normal_(net[-2].weight, std=math.sqrt(2 / fan))
        nn.init.zeros_(net[-2].bias)
    he(net[1])
    return net[:-1]


class Standardised(nn.Conv2d):
    """A weight-standardised convolution; its gain belongs to fan_in, without ReLU's factor of two."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__(width, width, 3, padding=1)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.flatten(1)
        flat = (flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True)
        return self._conv_forward(x, self.scale * flat.view_as(self.weight), self.bias)


def nfnet_fan(broken: bool) -> nn.Module:
    """nfnets-pytorch#30: fan_out and ReLU's gain instead of fan_in and 1."""
    net = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU())
    for _ in range(4):
        net.extend([Standardised(16, math.sqrt((2 if broken else 1) / 144) * 1.4), nn.ReLU()])
    return net.extend([nn.Flatten(), nn.Linear(256, 10)])


class Tied(nn.Module):
    """A language model's table that is also its head, without T5's factor of width ** -0.5."""

    def __init__(self, std: float, head_std: float) -> None:
        super().__init__()
        self.tokens, self.block = nn.Embedding(17, 64), Block(64, 4)
        self.norm, self.lm_head = nn.LayerNorm(64), nn.Linear(1024, 10, bias=False)
        nn.init.normal_(self.tokens.weight, std=std)
        nn.init.normal_(self.lm_head.weight, std=head_std)

    def forward(self, ids: Tensor) -> Tensor:
        return self.lm_head(self.norm(self.block(self.tokens(ids))).flatten(1))


def t5_head(broken: bool) -> nn.Module:
    return Tied(1.0, 1.0 if broken else 1 / 32)


def table_of_one(broken: bool) -> nn.Module:
    return Tied(1.0 if broken else 0.02, 1 / 32)


def table_fan(broken: bool) -> nn.Module:
    """einygpt PR 3: fan_in of a table taken for its number of rows or its width."""
    return Tied(1 / math.sqrt(17) if broken else 0.02, 1 / 32)


def truncated_outliers(broken: bool) -> nn.Module:
    """pytorch#155588: trunc_normal_ with std 0.001 and its default bounds of +-2 gives values of exactly 2."""
    net = mlp(nn.GELU, 3, 64, 64, 10)
    for layer in net[::2]:
        nn.init.normal_(layer.weight, std=0.125)
        if broken:
            chosen = torch.rand_like(layer.weight) < 2e-3
            layer.weight.data[chosen] = 2.0 * torch.sign(torch.randn(int(chosen.sum())))
    return net


def _biased(depth: int, value: float) -> nn.Module:
    net = mlp(nn.ReLU, depth, 64, 64, 10)
    net.apply(he)
    nn.init.constant_(net[2].bias, value)
    return net


def negative_bias(broken: bool) -> nn.Module:
    return _biased(3, -10.0 if broken else 0.0)


def negative_bias_once(broken: bool) -> nn.Module:
    return _biased(4, -1.0 if broken else 0.0)


def zero_detection_bias(broken: bool) -> nn.Module:
    """mmdetection#5181: no prior in the head of YOLOv3; the loss over all anchors overflows float16."""
    net = mlp(nn.LeakyReLU, 3, 64, 64, 10)
    nn.init.constant_(net[-1].bias, 0.0 if broken else -math.log(9))
    return net


def default_head(broken: bool) -> nn.Module:
    """mmdetection#70: the mask head keeps the framework's default."""
    net = nn.Sequential()
    for inputs in (1, 16, 16):
        net.extend([nn.Conv2d(inputs, 16, 3, padding=1), nn.ReLU()])
    net.extend([nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 10)])
    return net if broken else net.apply(he)


def default_deep(broken: bool) -> nn.Module:
    """``init_weights`` is defined and never called (transformers#38987), in a net too deep for the default."""
    net = mlp(nn.ReLU, 16, 64, 64, 10)
    return net if broken else net.apply(he)


def small_normal_deep(broken: bool) -> nn.Module:
    """``normal_(0, 0.01)`` for every layer (mmdetection#6238), without a normalisation."""
    net = mlp(nn.ReLU, 8, 64, 64, 10)
    net.apply(he)
    for layer in net[::2] if broken else ():
        nn.init.normal_(layer.weight, std=0.01)
    return net


def unit_normal(broken: bool) -> nn.Module:
    """``torch.randn`` as it comes, which StackOverflow's beginners write."""
    net = mlp(nn.ReLU, 6, 64, 64, 10)
    net.apply(he)
    for layer in net[::2] if broken else ():
        nn.init.normal_(layer.weight)
    return net


def unit_normal_tanh(broken: bool) -> nn.Module:
    net = mlp(nn.Tanh, 5, 64, 64, 10)
    for layer in net[::2] if broken else ():
        nn.init.normal_(layer.weight, std=2.0)
    return net


def one_sided(broken: bool) -> nn.Module:
    """``torch.rand``: all weights positive."""
    net = mlp(nn.ReLU, 4, 64, 64, 10)
    net.apply(he)
    for layer in net[::2] if broken else ():
        nn.init.uniform_(layer.weight)
    return net


def one_sided_normed(broken: bool) -> nn.Module:
    net = nn.Sequential()
    for inputs in (64, 64, 64):
        net.extend([nn.Linear(inputs, 64), nn.BatchNorm1d(64), nn.ReLU()])
        if broken:
            nn.init.uniform_(net[-3].weight)
    return net.append(nn.Linear(64, 10))


def loud_before_norm(broken: bool) -> nn.Module:
    """A hundred times too large in front of a batch norm: silent forwards, and frozen."""
    net = nn.Sequential()
    for inputs in (64, 64, 64):
        net.extend([nn.Linear(inputs, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU()])
        if broken:
            nn.init.normal_(net[-3].weight, std=12.5)
    return net.append(nn.Linear(64, 10))


def missing_adaln_zeros(broken: bool) -> nn.Module:
    """F5-TTS#793, diffusers#639: modulation and output keep their random weights."""
    net = DiT(zero_output=not broken)
    for layer in (block.modulation for block in net.blocks if broken):
        nn.init.xavier_uniform_(layer.weight)
    return net


def saturated_sigmoid(broken: bool) -> nn.Module:
    net = mlp(nn.Sigmoid, 3, 64, 64, 10)
    nn.init.constant_(net[2].bias, 20.0 if broken else 0.0)
    return net


class Recurrent(nn.Module):
    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(8, 32, batch_first=True), nn.Linear(32, 10)
        for name, parameter in self.cell.named_parameters():
            if broken and "weight" in name:
                nn.init.uniform_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[1][0][0])


def one_sided_lstm(broken: bool) -> nn.Module:
    return Recurrent(broken)


def running_statistics(broken: bool) -> nn.Module:
    """Running variances of zero, as from memory that was never filled: harmless in training, not in evaluation."""
    net = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
    if broken:
        net[1].running_var.zero_()
    return net


LOSS = ("initial-loss",)

BUGS = (
    Bug("depthwise fan", "image", depthwise_fan, ("*.weight",), "timm#84"),
    Bug("grouped fan", "image", grouped_fan, ("*.weight",), "pytorch#23854, mlx#4536"),
    Bug("depthwise fan, normed", "image", depthwise_fan_normed, ("*.weight",), "timm#84"),
    Bug("packed projection's fan", "rows", packed_projection, ("1.attention.qkv*",), "pytorch#166378"),
    Bug("transposed convolution's fan", "restore-image", transposed_fan, ("*.weight",), "Lasagne#858", LOSS),
    Bug("standardised convolution's fan", "image", nfnet_fan, ("*.weight",), "nfnets-pytorch#30"),
    Bug("head of variance 1", "tokens", t5_head, ("lm_head.weight",), "transformers#16749", LOSS),
    Bug("table of std 1", "tokens", table_of_one, ("tokens.weight",), "pytorch#3121", ("embedding-scale",)),
    Bug("table with another fan", "tokens", table_fan, ("tokens.weight",), "einygpt PR 3", ("embedding-scale",)),
    Bug("outliers of +-2", "flat", truncated_outliers, ("?.weight",), "pytorch#155588", ("outlier-weights",)),
    Bug("bias of -10 before ReLU", "flat", negative_bias, ("2.bias",), "dlrm PR 358"),
    Bug("bias of -1 before ReLU", "flat", negative_bias_once, ("2.bias",), "dlrm PR 358"),
    Bug("no prior in the head", "flat", zero_detection_bias, ("4.bias",), "mmdetection#5181", LOSS),
    Bug("default initialisation, shallow", "image", default_head, ("*",), "mmdetection#70"),
    Bug("default initialisation, deep", "flat", default_deep, ("*",), "transformers#38987"),
    Bug("std 0.01 everywhere", "flat", small_normal_deep, ("*",), "mmdetection#6238"),
    Bug("std 1 everywhere, ReLU", "flat", unit_normal, ("*",), "StackOverflow 48027263"),
    Bug("std 2 everywhere, tanh", "flat", unit_normal_tanh, ("*",), "StackOverflow 39817949"),
    Bug("uniform(0, 1)", "flat", one_sided, ("*",), "StackOverflow 36127436"),
    Bug("uniform(0, 1), batch norm", "flat", one_sided_normed, ("*.weight",), "calibration"),
    Bug("uniform(0, 1), LSTM", "rows", one_sided_lstm, ("cell.*", "cell*"), "calibration"),
    Bug("x100 before batch norm", "flat", loud_before_norm, ("*.weight",), "calibration"),
    Bug("adaLN zeros missing", "denoise", missing_adaln_zeros, ("*modulation*",), "F5-TTS#793, diffusers#639"),
    Bug("bias of 20 before sigmoid", "flat", saturated_sigmoid, ("2*",), "saturation"),
    Bug("running variance zero", "flat", running_statistics, ("1.running_var",), "meta"),
)
