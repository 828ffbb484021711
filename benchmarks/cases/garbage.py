"""Tensors that were never initialised, or are NaN by other ways."""

from __future__ import annotations

import torch
from models.attention import Block, Experts
from models.initialised import he
from models.plain import mlp
from torch import Tensor, nn
from torch.nn import functional

from .case import Bug


def leftovers(*shape: int) -> Tensor:
    """What ``torch.empty`` hands out after other tensors were freed: float64 values and addresses read as float32."""
    count = torch.Size(shape).numel()
    doubles = torch.randn(count // 2 + 1, dtype=torch.float64).view(torch.float32)[:count].clone()
    addresses = torch.randint(0x7F00_0000_0000, 0x7F00_1000_0000, (count // 2 + 1,)).view(torch.float32)[:count]
    return torch.where(torch.arange(count) % 8 < 6, doubles, addresses).reshape(shape)


def huge(*shape: int) -> Tensor:
    return torch.randn(shape) * 1e37


def _body() -> nn.Sequential:
    body = nn.Sequential(nn.Linear(8, 32), Block(32, 4), Block(32, 4), nn.LayerNorm(32), nn.Flatten())
    for layer in body.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_normal_(layer.weight)
    return body


def _headed(fill: Tensor | None) -> nn.Module:
    net = _body().append(nn.Linear(256, 10))
    if fill is not None:
        net[-1].weight.data.copy_(fill)
    return net


def huge_head(broken: bool) -> nn.Module:
    return _headed(huge(10, 256) if broken else None)


def nan_head(broken: bool) -> nn.Module:
    return _headed(torch.full((10, 256), torch.nan) if broken else None)


def leftover_head(broken: bool) -> nn.Module:
    return _headed(leftovers(10, 256) if broken else None)


class RoutedExperts(nn.Module):
    """torchtitan#2450: the router's bias is made with torch.empty and missed by ``init_weights``."""

    def __init__(self, fill: Tensor | None) -> None:
        super().__init__()
        self.experts = Experts(32, 64, 4)
        self.experts.router = nn.Linear(32, 4)
        nn.init.zeros_(self.experts.router.bias)
        if fill is not None:
            self.experts.router.bias.data.copy_(fill)

    def forward(self, x: Tensor) -> Tensor:
        return self.experts(x)


def gate_bias(broken: bool) -> nn.Module:
    fill = torch.full((4,), torch.nan) if broken else None
    block = Block(32, 4, feedforward=RoutedExperts(fill))
    return nn.Sequential(nn.Linear(8, 32), block, nn.LayerNorm(32), nn.Flatten(), nn.Linear(256, 10))


class Queries(nn.Module):
    """tirex#21, STALE#16: learned tokens in a bare ``nn.Parameter(torch.empty(...))``."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.tokens = nn.Parameter(leftovers(1, 4, 32) if broken else torch.randn(1, 4, 32) * 0.02)
        self.block, self.norm, self.head = Block(32, 4), nn.LayerNorm(32), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.tokens.expand(len(x), -1, -1), self.embed(x)], 1)
        return self.head(self.norm(self.block(x))[:, :4].flatten(1))


def empty_tokens(broken: bool) -> nn.Module:
    return Queries(broken)


class Positions(nn.Module):
    """DySAT_pytorch#3: ``nn.Parameter(torch.Tensor(steps, width))`` without an initialisation."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.positions = nn.Parameter(leftovers(8, 32) if broken else torch.randn(8, 32) * 0.02)
        self.block, self.head = Block(32, 4), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.embed(x) + self.positions).flatten(1))


def empty_positions(broken: bool) -> nn.Module:
    return Positions(broken)


def nan_config(broken: bool) -> nn.Module:
    """TransformerLens#902: the range of the initialiser comes out of the configuration as NaN."""
    net = mlp(nn.GELU, 3, 64, 64, 10)
    for layer in net[::2]:
        layer.weight.data.normal_(0.0, 1.0).mul_(torch.nan if broken else 0.1)
    return net


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block = nn.Linear(8, 32), Block(32, 4)
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.block(self.embed(x))).flatten(1))


def meta_device(broken: bool) -> nn.Module:
    """pytorch#104187: built on the meta device, given memory, never initialised; fresh pages are zero."""
    net = Tower()
    for parameter in net.parameters():
        if broken:
            nn.init.zeros_(parameter)
    return net


def meta_device_norms(broken: bool) -> nn.Module:
    """open_lm#165: only the norms have no ``reset_parameters`` of their own and stay as the memory was."""
    net = Tower()
    for norm in (net.block.norm1, net.block.norm2, net.norm):
        if broken:
            nn.init.zeros_(norm.weight)
            nn.init.zeros_(norm.bias)
    return net


def weight_norm_zero_row(broken: bool) -> nn.Module:
    net = mlp(nn.ReLU, 3, 64, 64, 10)
    net.apply(he)
    if broken:
        nn.init.zeros_(net[2].weight[3])
    nn.utils.parametrizations.weight_norm(net[2])
    return net


class DoRA(nn.Module):
    """peft#2049: the direction is divided by its norm, row by row; a padded row of the base is zero."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.base = nn.Linear(64, 64).requires_grad_(False)
        if broken:
            nn.init.zeros_(self.base.weight[5])
        self.lora_A, self.lora_B = nn.Linear(64, 4, bias=False), nn.Linear(4, 64, bias=False)
        nn.init.zeros_(self.lora_B.weight)
        self.magnitude = nn.Parameter(self.base.weight.norm(dim=1).detach())

    def forward(self, x: Tensor) -> Tensor:
        weight = self.base.weight + self.lora_B.weight @ self.lora_A.weight
        scale = self.magnitude / weight.norm(dim=1)
        return functional.linear(x, weight * scale[:, None], self.base.bias)


def dora_zero_row(broken: bool) -> nn.Module:
    return nn.Sequential(DoRA(broken), nn.ReLU(), nn.Linear(64, 10))


class Cosine(nn.Module):
    """A cosine classifier: class vectors are normalised, and one starts at zero."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.body, self.proxies = mlp(nn.ReLU, 2, 64, 64, 32), nn.Parameter(torch.randn(10, 32))
        if broken:
            nn.init.zeros_(self.proxies[0])

    def forward(self, x: Tensor) -> Tensor:
        proxies = self.proxies / self.proxies.norm(dim=1, keepdim=True)
        return 10 * functional.normalize(self.body(x), dim=1) @ proxies.T


def cosine_zero_proxy(broken: bool) -> nn.Module:
    return Cosine(broken)


class Unlisted(nn.Module):
    """Layers in a plain list: they run, and no optimiser hears of them."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        layers = [nn.Linear(64, 64) for _ in range(3)]
        self.layers = layers if broken else nn.ModuleList(layers)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(x)


def plain_list(broken: bool) -> nn.Module:
    return Unlisted(broken)


class PastAutograd(nn.Module):
    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.inner, self.head, self.broken = nn.Linear(64, 64), nn.Linear(64, 10), broken

    def forward(self, x: Tensor) -> Tensor:
        weight = self.inner.weight.detach() if self.broken else self.inner.weight
        return self.head(torch.relu(functional.linear(x, weight, self.inner.bias)))


def past_autograd(broken: bool) -> nn.Module:
    return PastAutograd(broken)


BUGS = (
    Bug("new head of 1e37", "rows", huge_head, ("5.weight",), "transformers#28122"),
    Bug("new head of NaN", "rows", nan_head, ("5.weight",), "transformers#31841"),
    Bug("new head of left-over memory", "rows", leftover_head, ("5.weight",), "transformers#46002"),
    Bug("router bias missed, NaN", "rows", gate_bias, ("*router.bias",), "torchtitan#2450"),
    Bug("tokens from torch.empty", "rows", empty_tokens, ("tokens",), "tirex#21", ("uninitialized-memory",)),
    Bug("positions from torch.empty", "rows", empty_positions, ("positions",), "DySAT#3", ("uninitialized-memory",)),
    Bug("NaN by configuration", "flat", nan_config, ("?.weight",), "TransformerLens#902"),
    Bug("meta device, never initialised", "rows", meta_device, ("*",), "pytorch#104187, llm-foundry#1745"),
    Bug("meta device, norms missed", "rows", meta_device_norms, ("*norm*",), "open_lm#165"),
    Bug("weight norm on a zero row", "flat", weight_norm_zero_row, ("2.*",), "pytorch#19126, flax#1671"),
    Bug("DoRA on a zero row", "flat", dora_zero_row, ("0.base.weight", "0*"), "peft#2049, LyCORIS#166"),
    Bug("zero class vector, normalised", "flat", cosine_zero_proxy, ("proxies",), "LyCORIS#166"),
    Bug("layers in a plain list", "flat", plain_list, ("layers.*",), "unregistered"),
    Bug("weight read past autograd", "flat", past_autograd, ("inner.weight",), "unregistered"),
)
