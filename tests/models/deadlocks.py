"""Models of which some part can never learn or never differ, and the idioms that look like them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from .initialised import Built, he, seeded


class ZeroGate(nn.Module):
    """yz93/LAVT-RIS#25: a gate of two linear layers; ``zeros`` of them start at zero."""

    def __init__(self, width: int, zeros: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width, bias=False)
        self.outer = nn.Linear(width, width, bias=False)
        for layer in (self.outer, self.inner)[:zeros]:
            nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + x * torch.tanh(self.outer(torch.relu(self.inner(x))))


@seeded
def zero_gate(width: int = 16, zeros: int = 2) -> Built:
    module = nn.Sequential(nn.Linear(8, width), ZeroGate(width, zeros), nn.Linear(width, 4))
    return module, (torch.randn(16, 8),)


class ControlNet(nn.Module):
    """Zhang et al. 2023: a trainable copy that joins a frozen stream through zero convolutions, two in sequence."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1).requires_grad_(False)
        self.block = nn.Conv2d(width, width, 3, padding=1).requires_grad_(False)
        self.hint = nn.Conv2d(3, width, 3, padding=1)
        self.zero_hint = nn.Conv2d(width, width, 1)
        self.copy = nn.Conv2d(width, width, 3, padding=1)
        self.zero_out = nn.Conv2d(width, width, 1)
        self.apply(he)
        for layer in (self.zero_hint, self.zero_out):
            nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor, hint: Tensor) -> Tensor:
        h = self.stem(x)
        control = torch.relu(self.copy(h + self.zero_hint(torch.relu(self.hint(hint)))))
        return self.block(torch.relu(h)) + self.zero_out(control)


@seeded
def control_net(width: int = 8) -> Built:
    return ControlNet(width), (torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8))


class TwinCritics(nn.Module):
    def __init__(self, width: int, copied: bool) -> None:
        super().__init__()
        self.one, self.two = (nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 1)) for _ in range(2))
        if copied:
            self.two.load_state_dict(self.one.state_dict())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.one(x), self.two(x)


@seeded
def twin_critics(width: int = 16, copied: bool = True) -> Built:
    """EdanToledo/Stoix#72: two critics, meant to disagree, built from one seed."""
    return TwinCritics(width, copied), (torch.randn(16, 8),)


class Experts(nn.Module):
    """Top-1 routing over separate modules: only those that are chosen run."""

    def __init__(self, width: int, experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(nn.Linear(width, width) for _ in range(experts))
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        weight, index = self.router(x).softmax(-1).topk(1)
        mixed = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows = (index[:, 0] == number).nonzero()[:, 0]
            if len(rows):
                mixed = mixed.index_add(0, rows, expert(x[rows]) * weight[rows])
        return self.head(mixed)


@seeded
def sparse_experts(width: int = 16, experts: int = 32) -> Built:
    """More experts than samples, so that some are not reached by any batch."""
    return Experts(width, experts), (torch.randn(8, width),)


class Listed(nn.Module):
    """Layers in a Python list: they run, but ``parameters()`` does not list them."""

    def __init__(self, width: int, registered: bool) -> None:
        super().__init__()
        self.inner = nn.Linear(8, width)
        layers = [nn.Linear(width, width) for _ in range(2)]
        self.layers = nn.ModuleList(layers) if registered else layers
        self.head = nn.Linear(width, 4)
        self.scale = torch.full((width,), 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.inner(x))
        for layer in self.layers:
            x = torch.relu(layer(x * self.scale))
        return self.head(x)


@seeded
def listed(width: int = 16, registered: bool = False) -> Built:
    return Listed(width, registered), (torch.randn(16, 8),)


class Detached(nn.Module):
    """``way`` is how the second layer's weight is read: "data", "no_grad" or "plain"."""

    def __init__(self, width: int, way: str) -> None:
        super().__init__()
        self.way = way
        self.inner = nn.Linear(8, width)
        self.outer = nn.Linear(width, 4, bias=False)
        self.backbone = nn.Linear(8, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "no_grad":
            with torch.no_grad():
                features = self.backbone(x)
        else:
            features = self.backbone(x)
        hidden = torch.relu(self.inner(x)) + features
        return functional.linear(hidden, self.outer.weight.data if self.way == "data" else self.outer.weight)


@seeded
def detached(width: int = 16, way: str = "data") -> Built:
    return Detached(width, way), (torch.randn(16, 8),)


class Spare(nn.Module):
    """``spare`` is never called, ``dropped`` is called for nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(8, width)
        self.spare = nn.Linear(width, width)
        self.dropped = nn.Linear(width, width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.inner(x))
        self.dropped(hidden)
        return self.head(hidden)


@seeded
def spare(width: int = 16) -> Built:
    return Spare(width), (torch.randn(16, 8),)


class Auxiliary(nn.Module):
    """A second output of another shape, which a loss on the first one does not see."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(8, width)
        self.head = nn.Linear(width, 4)
        self.aside = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = torch.relu(self.inner(x))
        return {"logits": self.head(hidden), "aside": self.aside(hidden)}


@seeded
def auxiliary(width: int = 16) -> Built:
    return Auxiliary(width), (torch.randn(16, 8),)


def stacked(*layers: Callable[[], nn.Module]) -> Callable[..., Built]:
    """A builder of a sequence on eight features."""

    @seeded
    def build() -> Built:
        module = nn.Sequential(*(layer() for layer in layers))
        module.apply(he)
        return module, (torch.randn(16, 8),)

    return build
