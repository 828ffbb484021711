"""Networks whose architecture is drawn by chance: blocks of all kinds in any order, for any task of the digits.

A net is its number: the same number gives the same architecture and the same healthy initialisation everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional

from .families import Family, draw, fan_in

Make = Callable[[], nn.Module]

SATURATING: tuple[type[nn.Module], ...] = (nn.Tanh, nn.Softsign, nn.Hardtanh)
RECTIFIED: tuple[type[nn.Module], ...] = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.PReLU, nn.ReLU6)
SMOOTH: tuple[type[nn.Module], ...] = (nn.GELU, nn.SiLU, nn.Mish, nn.SELU, nn.Hardswish, nn.CELU)
SHIFTED: tuple[type[nn.Module], ...] = (nn.Sigmoid, nn.Softplus)


# -- blocks ----------------------------------------------------------------------------------------------------------


class Channels(nn.Module):
    """Layer norm over the channels of an image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class Around(nn.Module):
    """A shortcut around a branch; ``scale``: a learnt factor for each feature of the branch (LayerScale)."""

    def __init__(self, branch: nn.Module, before: nn.Module, after: nn.Module, scale: float | None, width: int) -> None:
        super().__init__()
        self.before, self.branch, self.after = before, branch, after
        self.scale = nn.Parameter(torch.full((width,), scale)) if scale is not None else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.branch(self.before(x))
        if self.scale is not None:
            out = out * (self.scale if out.ndim < 4 else self.scale[:, None, None])
        return self.after(x + out)


class Gate(nn.Module):
    """Two maps of the same input, one of which opens or shuts the other."""

    def __init__(self, width: int, inner: int, shut: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.shut = shut
        self.gate, self.up, self.down = nn.Linear(width, inner), nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.shut(self.gate(x)) * self.up(x))


class Squeeze(nn.Module):
    """Channels weighed by what is seen of the whole image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, width // 2), nn.Linear(width // 2, width)

    def forward(self, x: Tensor) -> Tensor:
        weighed = torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((-2, -1))))))
        return x * weighed[:, :, None, None]


class SelfAttention(nn.Module):
    """torch's own, or written out, with or without norms of queries and keys."""

    def __init__(self, width: int, heads: int, kind: str, causal: bool) -> None:
        super().__init__()
        self.heads, self.kind, self.causal = heads, kind, causal
        if kind == "packed":
            self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        else:
            self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=kind == "plain") for _ in range(4))
        if kind == "normed":
            self.q_norm, self.k_norm = nn.LayerNorm(width // heads), nn.LayerNorm(width // heads)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        if self.kind == "packed":
            mask = torch.ones(length, length, dtype=torch.bool).triu(1) if self.causal else None
            out: Tensor = self.attention(x, x, x, attn_mask=mask, need_weights=False)[0]
            return out
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        if self.kind == "normed":
            q, k = self.q_norm(q), self.k_norm(k)
        if self.kind == "plain":
            logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
            if self.causal:
                logits = logits.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), float("-inf"))
            mixed = logits.softmax(-1) @ v
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.o(mixed.transpose(1, 2).flatten(2))


class Walk(nn.Module):
    """A recurrent layer as a layer among others."""

    def __init__(self, width: int, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cell = kind(width, width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.cell(x)[0]
        return out


class Along(nn.Module):
    """A convolution along a sequence that looks back only."""

    def __init__(self, width: int, reach: int) -> None:
        super().__init__()
        self.reach, self.conv = reach, nn.Conv1d(width, width, reach)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.pad(x.transpose(1, 2), (self.reach - 1, 0))).transpose(1, 2)


class Mixture(nn.Module):
    """Some maps, weighed by a router."""

    def __init__(self, width: int, inner: int, experts: int, act: type[nn.Module]) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, inner), act(), nn.Linear(inner, width)) for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        weights = self.router(x).softmax(-1)
        return (torch.stack([each(x) for each in self.experts], -1) * weights.unsqueeze(-2)).sum(-1)


class Net(nn.Module):
    """What reads the input, blocks, and what is asked of them."""

    def __init__(self, stem: nn.Module, body: Sequence[nn.Module], norm: nn.Module, pool: str, head: nn.Module) -> None:
        super().__init__()
        self.stem, self.body, self.norm, self.pool, self.head = stem, nn.Sequential(*body), norm, pool, head

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.body(self.stem(x)))
        if self.pool == "mean":
            x = x.mean(1) if x.ndim == 3 else x.mean((-2, -1))
        elif self.pool == "last":
            x = x[:, -1]
        elif self.pool == "flat":
            x = x.flatten(1)
        out: Tensor = self.head(x)
        return out


class Placed(nn.Module):
    """Something that embeds, and learnt positions."""

    def __init__(self, embed: nn.Module, length: int, width: int) -> None:
        super().__init__()
        self.embed, self.positions = embed, nn.Parameter(torch.randn(length, width) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.embed(x) + self.positions
        return out


# -- drawing them ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Style:
    """What the blocks of a net have in common."""

    width: int
    act: type[nn.Module]
    norm: str
    """batch, layer, rms, group or none."""
    shortcuts: bool
    after: bool
    """Norms behind the sum, not in front of the branch."""
    scale: float | None
    dropout: float
    biased: bool

    def normed(self, image: bool = False, width: int = 0) -> nn.Module:
        width = width or self.width
        if self.norm == "batch":
            return nn.BatchNorm2d(width) if image else nn.BatchNorm1d(width)
        if self.norm == "group":
            return nn.GroupNorm(4, width)
        if self.norm == "layer":
            return Channels(width) if image else nn.LayerNorm(width)
        if self.norm == "rms" and not image:
            return nn.RMSNorm(width)
        return nn.Identity()

    def around(self, branch: nn.Module, image: bool = False) -> nn.Module:
        if not self.shortcuts:
            return nn.Sequential(branch, self.normed(image), self.act())
        norm, nothing = self.normed(image), nn.Identity()
        before, after = (nothing, norm) if self.after else (norm, nothing)
        return Around(branch, before, after, self.scale, self.width)


def styled(random: Random, sequence: bool) -> Style:
    kinds = random.choices((RECTIFIED, SMOOTH, SATURATING, SHIFTED), (5, 4, 2, 1))[0]
    norms = ("layer", "rms", "none") if sequence else ("batch", "layer", "group", "rms", "none")
    norm = random.choice(norms)
    shortcuts = random.random() < (0.8 if sequence else 0.4)
    return Style(
        width=random.choice((16, 24, 32, 48)),
        act=random.choice(kinds),
        norm=norm,
        shortcuts=shortcuts,
        after=random.random() < 0.3,
        scale=random.choice((None, None, None, 0.1, 1e-4, 1.0)) if norm != "none" else None,
        dropout=random.choice((0.0, 0.0, 0.0, 0.1)),
        biased=random.random() < 0.8,
    )


def dense_block(random: Random, style: Style) -> nn.Module:
    width, inner = style.width, style.width * random.choice((1, 2))
    kind = random.choices(("map", "two", "gate", "mixture"), (4, 4, 2, 1))[0]
    if kind == "gate":
        return style.around(Gate(width, inner, random.choice((torch.sigmoid, functional.silu, functional.gelu))))
    if kind == "mixture":
        return style.around(Mixture(width, inner, random.choice((2, 4)), style.act))
    if kind == "two":
        maps = [nn.Linear(width, inner, style.biased), style.act(), nn.Linear(inner, width, style.biased)]
        return style.around(nn.Sequential(*maps, nn.Dropout(style.dropout)))
    one = nn.Linear(width, width, style.biased)
    return style.around(nn.Sequential(one, style.act()) if style.shortcuts else one)


def dense(random: Random) -> tuple[str, nn.Module]:
    style = styled(random, sequence=False)
    task, inputs, outputs = random.choice(
        (("flat", 64, 10), ("flat", 64, 10), ("flat", 64, 10), ("binary", 64, 1), ("restore", 64, 64), ("wave", 2, 1))
    )
    depth = random.choice((1, 2, 2, 3, 4, 6, 9))
    stem = nn.Sequential(nn.Linear(inputs, style.width), *([] if style.shortcuts else [style.normed(), style.act()]))
    body = [dense_block(random, style) for _ in range(depth)]
    norm = style.normed() if style.shortcuts and not style.after else nn.Identity()
    return task, Net(stem, body, norm, "", nn.Linear(style.width, outputs))


def image_block(random: Random, style: Style) -> nn.Module:
    width = style.width
    kind = random.choices(("map", "two", "separable", "squeeze"), (3, 3, 2, 1))[0]
    biased = style.biased and style.norm != "batch"
    if kind == "separable":
        each = nn.Conv2d(width, width, 3, 1, 1, groups=width, bias=biased)
        return style.around(nn.Sequential(each, style.act(), nn.Conv2d(width, width, 1, bias=biased)), image=True)
    if kind == "squeeze":
        return style.around(nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=biased), Squeeze(width)), image=True)
    if kind == "two":
        maps = [nn.Conv2d(width, width, 3, 1, 1, bias=biased), style.act()]
        return style.around(nn.Sequential(*maps, nn.Conv2d(width, width, 1, bias=biased)), image=True)
    one = nn.Conv2d(width, width, 3, 1, 1, bias=biased)
    return style.around(nn.Sequential(one, style.act()) if style.shortcuts else one, image=True)


def image(random: Random) -> tuple[str, nn.Module]:
    style = styled(random, sequence=False)
    depth, pool = random.choice((1, 2, 2, 3, 5)), random.choice(("flat", "mean", "flat"))
    stride = 2 if style.width > 24 else random.choice((1, 2))
    stem = nn.Sequential(nn.Conv2d(1, style.width, 3, stride, 1), style.normed(image=True), style.act())
    body: list[nn.Module] = [image_block(random, style) for _ in range(depth)]
    side = 8 // stride
    if pool == "flat" and side > 4:
        body.append(random.choice((nn.MaxPool2d, nn.AvgPool2d))(2))
        side //= 2
    norm = style.normed(image=True) if style.shortcuts and not style.after else nn.Identity()
    return "image", Net(stem, body, norm, pool, nn.Linear(style.width * (side**2 if pool == "flat" else 1), 10))


def sequence_block(random: Random, style: Style, kind: str, causal: bool) -> list[nn.Module]:
    width, inner = style.width, 2 * style.width
    if kind == "attention":
        mixes: nn.Module = SelfAttention(width, 2, random.choice(("packed", "plain", "fused", "normed")), causal)
    elif kind == "along":
        mixes = Along(width, random.choice((2, 3, 4)))
    else:
        walk = Walk(width, random.choice((nn.RNN, nn.LSTM, nn.GRU)))
        return [style.around(walk) if style.shortcuts else walk]
    if random.random() < 0.3:
        return [style.around(mixes), style.around(Gate(width, inner, random.choice((functional.silu, torch.sigmoid))))]
    fed = nn.Sequential(nn.Linear(width, inner, style.biased), style.act(), nn.Linear(inner, width, style.biased))
    return [style.around(mixes), style.around(fed)]


def sequence(random: Random) -> tuple[str, nn.Module]:
    style = styled(random, sequence=True)
    kind = random.choices(("attention", "recurrent", "along"), (4, 3, 2))[0]
    task = random.choice(("rows", "tokens", "echo", "rows"))
    causal = task == "echo"
    length = {"rows": 8, "tokens": 16, "echo": 10}[task]
    embed: nn.Module = nn.Linear(8, style.width) if task == "rows" else nn.Embedding(17, style.width)
    if kind == "attention" or random.random() < 0.2:
        embed = Placed(embed, length, style.width)
    body = [each for _ in range(random.choice((1, 1, 2, 3))) for each in sequence_block(random, style, kind, causal)]
    norm = style.normed() if style.shortcuts and not style.after else nn.Identity()
    pool = "" if task == "echo" else random.choice(("mean", "last")) if kind == "recurrent" else "mean"
    return task, Net(embed, body, norm, pool, nn.Linear(style.width, 8 if task == "echo" else 10))


def drawn_task_and_net(number: int) -> tuple[str, nn.Module]:
    random = Random(number)
    kind = random.choices((dense, image, sequence), (4, 3, 4))[0]
    return kind(random)


def drawn_module(number: int) -> nn.Module:
    """Weights from torch's global generator; the architecture is that of the number."""
    module = drawn_task_and_net(number)[1]
    random = Random(-number)
    scheme = random.choice(("default", "default", "He", "Xavier", "orthogonal", "LeCun"))
    family = Family("", "", nn.Identity, 0)
    if scheme == "He":
        draw(module, family, lambda piece: nn.init.normal_(piece, std=(2 / fan_in(piece)) ** 0.5))
    elif scheme == "LeCun":
        draw(module, family, lambda piece: nn.init.normal_(piece, std=fan_in(piece) ** -0.5))
    elif scheme == "Xavier":
        draw(module, family, nn.init.xavier_uniform_)
    elif scheme == "orthogonal":
        with torch.no_grad():
            draw(module, family, lambda piece: piece.copy_(nn.init.orthogonal_(torch.empty(piece.shape))))
    return module


class DrawnFamily(Family):
    """As its number draws it, tables too."""

    def build(self) -> nn.Module:
        return self.make()


def drawn_family(number: int) -> Family:
    task, _ = drawn_task_and_net(number)
    return DrawnFamily(f"net {number}", task, partial(drawn_module, number), 0)
