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
    def __init__(self, width: int, copied: bool, way: str) -> None:
        super().__init__()
        self.way = way
        self.one, self.two = (nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 1)) for _ in range(2))
        if copied:
            self.two.load_state_dict(self.one.state_dict())

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        values = self.one(x), self.two(x)
        return {"tuple": lambda: values, "stack": lambda: torch.stack(values), "cat": lambda: torch.cat(values, -1)}[
            self.way
        ]()


@seeded
def twin_critics(width: int = 16, copied: bool = True, way: str = "tuple") -> Built:
    """EdanToledo/Stoix#72: two critics, meant to disagree, built from one seed; ``way`` is how both values leave."""
    return TwinCritics(width, copied, way), (torch.randn(16, 8),)


class CodeBook(nn.Module):
    """van den Oord et al. 2017: a code book read behind a straight-through estimator, and updated by hand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(8, width), nn.Linear(width, 4)
        self.codes = nn.Embedding(12, width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.encode(x)
        nearest = self.codes(torch.cdist(hidden, self.codes.weight).argmin(-1))
        return self.decode(hidden + (nearest - hidden).detach())


@seeded
def code_book(width: int = 16) -> Built:
    return CodeBook(width), (torch.randn(16, 8),)


class PackedExperts(nn.Module):
    """A soft mixture whose experts share tensors (expert, in, out); ``empty`` of them are all zero."""

    def __init__(self, width: int, empty: int) -> None:
        super().__init__()
        self.router = nn.Linear(8, 4)
        self.up = nn.Parameter(torch.randn(4, 8, width) / 3)
        self.down = nn.Parameter(torch.randn(4, width, 4) / 4)
        with torch.no_grad():
            self.up[:empty], self.down[:empty] = 0.0, 0.0

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.einsum("bi,eih->beh", x, self.up).relu()
        return torch.einsum("beh,eho,be->bo", hidden, self.down, self.router(x).softmax(-1))


@seeded
def packed_experts(width: int = 16, empty: int = 1) -> Built:
    return PackedExperts(width, empty), (torch.randn(16, 8),)


class PackedAttention(nn.Module):
    """torch's attention; the rows ``zero`` of its packed projection start at zero."""

    def __init__(self, width: int, zero: int) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(width, 2, batch_first=True), nn.Linear(width, 4)
        nn.init.zeros_(self.attention.in_proj_weight[:zero])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + self.attention(x, x, x, need_weights=False)[0])


@seeded
def packed_attention(width: int = 8, zero: int = 16) -> Built:
    return PackedAttention(width, zero), (torch.randn(8, 6, width),)


class Locator(nn.Module):
    """Jaderberg et al. 2015: a spatial transformer that starts as the identity, by a zero weight and a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.locate = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 6))
        self.classify = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
        nn.init.zeros_(self.locate[3].weight)
        self.locate[3].bias.data = torch.tensor([1.0, 0, 0, 0, 1, 0])

    def forward(self, x: Tensor) -> Tensor:
        grid = functional.affine_grid(self.locate(x).view(-1, 2, 3), list(x.shape), align_corners=False)
        return self.classify(functional.grid_sample(x, grid, align_corners=False))


@seeded
def spatial_transformer() -> Built:
    return Locator(), (torch.randn(8, 1, 8, 8),)


class Tokens(nn.Module):
    """Learned tokens, ``scale`` times too large, beside the input."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(1, 2, width) * scale)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(torch.cat([self.tokens.expand(len(x), -1, -1), x], 1)))


@seeded
def tokens(width: int = 8, scale: float = 1e30) -> Built:
    return Tokens(width, scale), (torch.randn(8, 6, width),)


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


class _Coupling(nn.Module):
    """An affine coupling whose learnt factor is zero, and so is the end of the net that gives both scale and shift."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8))
        self.factor = nn.Parameter(torch.full((4,), factor))
        nn.init.zeros_(self.net[2].weight)
        nn.init.zeros_(self.net[2].bias)

    def forward(self, x: Tensor) -> Tensor:
        kept, moved = x.chunk(2, 1)
        scale, shift = self.net(kept).chunk(2, 1)
        return torch.cat([kept, moved * torch.exp(self.factor * torch.tanh(scale)) + shift], 1)


@seeded
def coupling(factor: float = 0.0) -> Built:
    return _Coupling(factor), (torch.randn(16, 8),)
