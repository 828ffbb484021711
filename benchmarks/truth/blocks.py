"""Networks of the benchmark of truth: small, each of another architecture."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


def mlp(*widths: int, act: type[nn.Module] = nn.ReLU, norm: type[nn.Module] | None = None) -> nn.Sequential:
    net = nn.Sequential()
    for number, (before, after) in enumerate(pairwise(widths[:-1])):
        net.add_module(f"layer{number}", nn.Linear(before, after))
        if norm is not None:
            net.add_module(f"norm{number}", norm(after))
        net.add_module(f"act{number}", act())
    net.add_module("head", nn.Linear(*widths[-2:]))
    return net


class FeedForward(nn.Module):
    def __init__(self, width: int, norm: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(functional.gelu(self.fc1(self.norm(x))))


class Residual(nn.Module):
    """``norm``: pre-activation blocks and a last norm; else as in Fixup, without any."""

    def __init__(self, inputs: int, outputs: int, norm: bool = True, width: int = 32, depth: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.blocks = nn.Sequential(*(FeedForward(width, norm) for _ in range(depth)))
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(x))))


class Gated(nn.Module):
    """A residual net of SwiGLU blocks (Shazeer 2020) with RMS norms."""

    def __init__(self, width: int = 32, depth: int = 3) -> None:
        super().__init__()
        self.embed = nn.Linear(64, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.RMSNorm(width),
                    "gate": nn.Linear(width, 48, bias=False),
                    "up": nn.Linear(width, 48, bias=False),
                    "down": nn.Linear(48, width, bias=False),
                }
            )
            for _ in range(depth)
        )
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            normed = block["norm"](x)
            x = x + block["down"](functional.silu(block["gate"](normed)) * block["up"](normed))
        return self.head(self.norm(x))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


class BasicBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class ResNet(nn.Module):
    def __init__(self, width: int = 12, depth: int = 2) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(1, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*(BasicBlock(width) for _ in range(depth)))
        self.head = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(torch.relu(self.bn(self.stem(x))))
        return self.head(functional.avg_pool2d(x, 2).flatten(1))


def depthwise() -> nn.Module:
    """Depthwise and pointwise convolutions in turn, as in MobileNet, without norms."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, 1, 1, groups=16),
        nn.ReLU(),
        nn.Conv2d(16, 24, 1),
        nn.ReLU(),
        nn.Conv2d(24, 24, 3, 2, 1, groups=24),
        nn.ReLU(),
        nn.Conv2d(24, 24, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 10),
    )


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 32))
        self.decoder = nn.Sequential(nn.Linear(32, 64), nn.Tanh())
        self.head = nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.decoder(self.encoder(x)))


class Experts(nn.Module):
    """A soft mixture of stacked experts on a residual stream."""

    def __init__(self, width: int = 32, experts: int = 4) -> None:
        super().__init__()
        self.embed, self.router = nn.Linear(64, width), nn.Linear(width, experts)
        self.up = nn.Parameter(torch.empty(experts, 2 * width, width))
        self.down = nn.Parameter(torch.empty(experts, width, 2 * width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        normed = self.norm(x)
        inner = torch.relu(torch.einsum("bi,eoi->beo", normed, self.up))
        outer = torch.einsum("beo,eio->bei", inner, self.down)
        return self.head(x + (self.router(normed).softmax(-1).unsqueeze(-1) * outer).sum(1))


class Graph(nn.Module):
    """Message passing on a 4 x 4 grid, whose nodes are patches of 2 x 2 pixels: relu(A x W + x U)."""

    def __init__(self, width: int = 16, depth: int = 3) -> None:
        super().__init__()
        place = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij"), -1).view(16, 2)
        near = (torch.cdist(place, place, 1) == 1).float()
        self.register_buffer("mean", near / near.sum(1, keepdim=True))
        widths = [4, *(width for _ in range(depth))]
        pairs = list(pairwise(widths))
        self.messages = nn.ModuleList(nn.Linear(before, after, bias=False) for before, after in pairs)
        self.own = nn.ModuleList(nn.Linear(before, after) for before, after in pairs)
        self.head = nn.Linear(16 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.unfold(x, 2, stride=2).transpose(1, 2)
        for message, own in zip(self.messages, self.own, strict=True):
            x = torch.relu(message(self.mean @ x) + own(x))
        return self.head(x.flatten(1))


class Heads(nn.Module):
    """A trunk with two heads of their own hidden layers; both are to tell the digit."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.left = nn.Sequential(nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 10))
        self.right = nn.Sequential(nn.Linear(32, 24), nn.Tanh(), nn.Linear(24, 10))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(x)
        return self.left(x), self.right(x)


class Conditioned(nn.Module):
    """A denoiser whose blocks are shifted, scaled and gated by the class, as in DiT (Peebles and Xie 2023)."""

    def __init__(self, width: int = 48, depth: int = 2) -> None:
        super().__init__()
        self.embed, self.condition = nn.Linear(64, width), nn.Linear(10, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(width, elementwise_affine=False),
                    "modulation": nn.Linear(width, 3 * width),
                    "fc1": nn.Linear(width, 2 * width),
                    "fc2": nn.Linear(2 * width, width),
                }
            )
            for _ in range(depth)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 64)

    def forward(self, x: Tensor, kind: Tensor) -> Tensor:
        x, condition = self.embed(x), functional.silu(self.condition(kind))
        for block in self.blocks:
            shift, scale, gate = block["modulation"](condition).chunk(3, -1)
            x = x + gate * block["fc2"](functional.gelu(block["fc1"](block["norm"](x) * (1 + scale) + shift)))
        return self.head(self.norm(x))
