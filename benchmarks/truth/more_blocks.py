"""More networks of the benchmark of truth, of the second split: perceptrons, images, graphs, pairs and experts."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class Highway(nn.Module):
    """Highway layers (Srivastava et al. 2015), which start by carrying most of their input."""

    def __init__(self, width: int = 32, depth: int = 5) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(64, width), nn.Linear(width, 10)
        self.transforms = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.gates = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        for gate in self.gates:
            nn.init.constant_(gate.bias, -1.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for transform, gate in zip(self.transforms, self.gates, strict=True):
            share = torch.sigmoid(gate(x))
            x = share * torch.tanh(transform(x)) + (1 - share) * x
        return self.head(x)


class WeightNormed(nn.Linear):
    """Salimans and Kingma 2016: directions and lengths apart."""

    def __init__(self, inputs: int, outputs: int, length: float) -> None:
        super().__init__(inputs, outputs)
        self.length = nn.Parameter(torch.full((outputs,), length))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.length[:, None] * functional.normalize(self.weight, dim=1), self.bias)


def weight_normed(width: int = 32, depth: int = 3) -> nn.Module:
    net = nn.Sequential()
    for number, (before, after) in enumerate(pairwise((64, *[width] * depth))):
        net.add_module(f"layer{number}", WeightNormed(before, after, 2**0.5))
        net.add_module(f"act{number}", nn.ReLU())
    net.add_module("head", WeightNormed(width, 10, 1.0))
    return net


class Switch(nn.Module):
    """Experts of which each example has one, weighted by its share (Fedus et al. 2022), on a residual stream."""

    def __init__(self, width: int = 32, experts: int = 3) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(64, width), nn.LayerNorm(width)
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(experts)
        )
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        normed = self.norm(x)
        shares = self.router(normed).softmax(-1)
        best = functional.one_hot(shares.argmax(-1), shares.shape[-1])
        outer = torch.stack([expert(normed) for expert in self.experts], 1)
        return self.head(self.last(x + ((best * shares).unsqueeze(-1) * outer).sum(1)))


class Exits(nn.Module):
    """An exit behind every block (Teerapittayanon et al. 2016); the last one comes first."""

    def __init__(self, width: int = 32, depth: int = 3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(64 if number == 0 else width, width), nn.LayerNorm(width), nn.SiLU())
            for number in range(depth)
        )
        self.exits = nn.ModuleList(nn.Linear(width, 10) for _ in range(depth))

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for block, leave in zip(self.blocks, self.exits, strict=True):
            x = block(x)
            outputs.append(leave(x))
        return outputs[::-1]


class Siamese(nn.Module):
    """One encoder for both halves of the image; how they differ and agree decides."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(32, width), nn.ELU(), nn.Linear(width, width), nn.ELU())
        self.mix, self.head = nn.Linear(3 * width, width), nn.Linear(width, 1)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        left, right = self.encoder(left), self.encoder(right)
        return self.head(functional.elu(self.mix(torch.cat([(left - right).abs(), left * right, right], -1))))


class Factorised(nn.Module):
    """A factorisation machine (Rendle 2010) with a class for each of its outputs: a linear map and products of two."""

    def __init__(self, rank: int = 24) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(64, rank), nn.Linear(64, rank)
        self.norm = nn.LayerNorm(rank)
        self.linear, self.head = nn.Linear(64, 10, bias=False), nn.Linear(rank, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.head(self.norm(self.left(x) * self.right(x)))


class Hypernetwork(nn.Module):
    """A denoiser whose inner layer is made for the class, as in Ha et al. 2017."""

    def __init__(self, width: int = 32, inner: int = 16) -> None:
        super().__init__()
        self.inner = inner
        self.embed = nn.Linear(64, width)
        self.hyper = nn.Sequential(nn.Linear(10, inner), nn.Tanh(), nn.Linear(inner, inner * width))
        self.mix, self.head = nn.Linear(width + inner, 2 * width), nn.Linear(2 * width, 64)

    def forward(self, x: Tensor, kind: Tensor) -> Tensor:
        x = torch.relu(self.embed(x))
        made = self.hyper(kind).unflatten(-1, (self.inner, -1))
        inner = (made @ x.unsqueeze(-1)).squeeze(-1)
        return self.head(torch.relu(self.mix(torch.cat([x, inner], -1))))


# -- images ----------------------------------------------------------------------------------------------------------


class UNet(nn.Module):
    """A denoiser of images that is told the class; skips are concatenated."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.enter = nn.Conv2d(1, width, 3, 1, 1)
        self.down = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.condition = nn.Linear(10, 2 * width)
        self.bottom = nn.Conv2d(2 * width, 2 * width, 3, 1, 1)
        self.up = nn.Conv2d(2 * width, width, 3, 1, 1)
        self.join = nn.Conv2d(2 * width, width, 3, 1, 1)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor, kind: Tensor) -> Tensor:
        skip = functional.silu(self.enter(x.unflatten(-1, (1, 8, 8))))
        x = functional.silu(self.down(skip) + self.condition(kind)[:, :, None, None])
        x = functional.interpolate(functional.silu(self.bottom(x)), scale_factor=2.0)
        x = torch.cat([functional.silu(self.up(x)), skip], 1)
        return self.head(functional.silu(self.join(x))).flatten(1)


def deconvolutional(width: int = 12) -> nn.Module:
    """An autoencoder of strided and transposed convolutions."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, 2, 1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(width, 2 * width, 3, 2, 1),
        nn.LeakyReLU(0.1),
        nn.Conv2d(2 * width, 2 * width, 1),
        nn.LeakyReLU(0.1),
        nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
        nn.LeakyReLU(0.1),
        nn.ConvTranspose2d(width, 1, 4, 2, 1),
    )


class Dense(nn.Module):
    """Every layer reads all before it (Huang et al. 2017)."""

    def __init__(self, width: int = 8, growth: int = 8, depth: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, 2, 1, bias=False)
        widths = [width + number * growth for number in range(depth + 1)]
        self.norms = nn.ModuleList(nn.BatchNorm2d(each) for each in widths)
        self.convs = nn.ModuleList(nn.Conv2d(each, growth, 3, 1, 1, bias=False) for each in widths[:-1])
        self.head = nn.Linear(4 * widths[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=False):
            x = torch.cat([x, conv(torch.relu(norm(x)))], 1)
        return self.head(functional.avg_pool2d(torch.relu(self.norms[-1](x)), 2).flatten(1))


class Branches(nn.Module):
    """Kernels of three sizes and a pool, side by side (Szegedy et al. 2015)."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(inputs, width, 1)
        self.reduce3, self.three = nn.Conv2d(inputs, width, 1), nn.Conv2d(width, width, 3, 1, 1)
        self.reduce5, self.five = nn.Conv2d(inputs, width, 1), nn.Conv2d(width, width, 5, 1, 2)
        self.pooled = nn.Conv2d(inputs, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.three(torch.relu(self.reduce3(x)))
        five = self.five(torch.relu(self.reduce5(x)))
        pooled = self.pooled(functional.max_pool2d(x, 3, 1, 1))
        return torch.relu(torch.cat([self.one(x), three, five, pooled], 1))


def inception(width: int = 5) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1),
        nn.ReLU(),
        Branches(8, width),
        Branches(4 * width, width),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * width, 10),
    )


class SqueezeExcite(nn.Module):
    """Group norms, a shortcut, and channels that are weighed by their means (Hu et al. 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, 1, 1), nn.GroupNorm(4, width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, 1, 1), nn.GroupNorm(4, width)
        self.squeeze, self.excite = nn.Linear(width, width // 4), nn.Linear(width // 4, width)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        weights = torch.sigmoid(self.excite(torch.relu(self.squeeze(inner.mean((2, 3))))))
        return torch.relu(x + weights[:, :, None, None] * inner)


class SqueezeExciteNet(nn.Module):
    def __init__(self, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, width, 3, 2, 1), nn.GroupNorm(4, width)
        self.blocks = nn.Sequential(*(SqueezeExcite(width) for _ in range(depth)))
        self.head = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(torch.relu(self.norm(self.stem(x))))
        return self.head(functional.avg_pool2d(x, 2).flatten(1))


class MixerBlock(nn.Module):
    """Maps over places and channels in turn (Tolstikhin et al. 2021), with LayerScale (Touvron et al. 2021)."""

    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.places1, self.places2 = nn.Linear(places, 2 * places), nn.Linear(2 * places, places)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.scale1, self.scale2 = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        turned = self.norm1(x).transpose(1, 2)
        x = x + self.scale1 * self.places2(functional.gelu(self.places1(turned))).transpose(1, 2)
        return x + self.scale2 * self.fc2(functional.gelu(self.fc1(self.norm2(x))))


class Mixer(nn.Module):
    def __init__(self, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 2, 2)
        self.blocks = nn.Sequential(*(MixerBlock(16, width) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(x).flatten(2).transpose(1, 2))).mean(1))


class GraphAttention(nn.Module):
    """Velickovic et al. 2018 on a 4 x 4 grid with diagonals and loops, whose nodes are patches of 2 x 2 pixels."""

    def __init__(self, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        place = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij"), -1).view(16, 2)
        self.register_buffer("apart", torch.cdist(place, place, torch.inf) > 1)
        pairs = list(pairwise([4, *(width for _ in range(depth))]))
        self.values = nn.ModuleList(nn.Linear(before, after) for before, after in pairs)
        self.sources = nn.ModuleList(nn.Linear(after, 1, bias=False) for _, after in pairs)
        self.targets = nn.ModuleList(nn.Linear(after, 1, bias=False) for _, after in pairs)
        self.head = nn.Linear(16 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.unfold(x, 2, stride=2).transpose(1, 2)
        for value, source, target in zip(self.values, self.sources, self.targets, strict=True):
            values = value(x)
            logits = functional.leaky_relu(target(values) + source(values).transpose(1, 2), 0.2)
            x = functional.elu(logits.masked_fill(self.apart, -torch.inf).softmax(-1) @ values)
        return self.head(x.flatten(1))
