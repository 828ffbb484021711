"""Zeros that hold each other, or a ReLU, at zero."""

from __future__ import annotations

import torch
from models.attention import Block, LoRALinear
from models.deadlocks import ZeroGate
from models.initialised import he
from models.plain import mlp
from torch import Tensor, nn
from torch.nn import functional

from .case import Bug


def relora(broken: bool) -> nn.Module:
    """Frozen weights under adapters; merging resets both halves instead of one."""
    net = nn.Sequential()
    for _ in range(2):
        base = nn.Linear(64, 64)
        he(base)
        net.extend([LoRALinear(base, 8), nn.ReLU()])
        if broken:
            nn.init.zeros_(net[-2].a.weight)
    return net.append(nn.Linear(64, 10))


class AdaptedAttention(nn.Module):
    """Adapters on query and value, as peft puts them; ``scaling`` is alpha / rank."""

    def __init__(self, width: int, rank: int, broken: bool) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(width, width).requires_grad_(False) for _ in range(4)
        )
        self.lora_A = nn.ModuleDict({n: nn.Linear(width, rank, bias=False) for n in ("q", "v")})
        self.lora_B = nn.ModuleDict({n: nn.Linear(rank, width, bias=False) for n in ("q", "v")})
        self.scaling = 2.0
        for name in ("q", "v"):
            nn.init.zeros_(self.lora_B[name].weight)
            if broken:
                nn.init.zeros_(self.lora_A[name].weight)

    def _adapted(self, name: str, base: nn.Linear, x: Tensor) -> Tensor:
        return base(x) + self.lora_B[name](self.lora_A[name](x)) * self.scaling

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._adapted("q", self.q_proj, x), self.k_proj(x), self._adapted("v", self.v_proj, x)
        q, k, v = (each.unflatten(-1, (4, -1)).transpose(1, 2) for each in (q, k, v))
        return self.o_proj(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Adapted(nn.Module):
    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.attention = AdaptedAttention(32, 4, broken)
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(8 * 32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(self.norm(x + self.attention(x)).flatten(1))


def lora_attention(broken: bool) -> nn.Module:
    return Adapted(broken)


class EmbeddingAdapter(nn.Module):
    """peft's LoRA for tables: A (rank, rows) is the zero one, B is drawn."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.base = nn.Embedding(17, 32).requires_grad_(False)
        self.lora_embedding_A = nn.Parameter(torch.zeros(4, 17))
        self.lora_embedding_B = nn.Parameter(torch.zeros(32, 4) if broken else torch.randn(32, 4))
        self.mix = nn.Sequential(nn.Flatten(), nn.Linear(16 * 32, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, ids: Tensor) -> Tensor:
        delta = functional.embedding(ids, self.lora_embedding_A.T) @ self.lora_embedding_B.T
        return self.mix(self.base(ids) + delta * 2.0)


def lora_embedding(broken: bool) -> nn.Module:
    return EmbeddingAdapter(broken)


def language_gate(broken: bool) -> nn.Module:
    stem = nn.Linear(64, 32)
    return nn.Sequential(stem, ZeroGate(32, 2 if broken else 1), nn.Linear(32, 10))


class ZeroBranch(nn.Module):
    """NaiveGAflux: an identity block made by zeroing every convolution of the branch, not the last one only."""

    def __init__(self, width: int, broken: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)
        if broken:
            nn.init.zeros_(self.conv1.weight)
            nn.init.zeros_(self.conv1.bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv2(torch.relu(self.conv1(x))))


def zero_branch(broken: bool) -> nn.Module:
    blocks = [ZeroBranch(16, broken) for _ in range(2)]
    return nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), *blocks, nn.Flatten(), nn.Linear(256, 10))


def zero_hidden(broken: bool) -> nn.Module:
    """VowpalWabbit: the hidden layer of a ReLU net starts at zero, the output layer is drawn."""
    net = mlp(nn.ReLU, 2, 32, 64, 10)
    net.apply(he)
    if broken:
        nn.init.zeros_(net[0].weight)
    return net


def zero_hidden_deep(broken: bool) -> nn.Module:
    net = mlp(nn.ReLU, 4, 64, 64, 10)
    net.apply(he)
    if broken:
        nn.init.zeros_(net[4].weight)
    return net


class Bottleneck(nn.Module):
    """timm, pre-activation: ``norm3`` stands in front of ``conv3``, so the zero belongs to ``conv3``."""

    def __init__(self, width: int, zeros: tuple[str, ...]) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(width), nn.Conv2d(width, 8, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm3, self.conv3 = nn.BatchNorm2d(8), nn.Conv2d(8, width, 1, bias=False)
        for name in zeros:
            nn.init.zeros_(getattr(self, name).weight)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv1(functional.relu(self.norm1(x)))
        branch = self.conv2(functional.relu(self.norm2(branch)))
        return x + self.conv3(functional.relu(self.norm3(branch)))


def _bottlenecks(zeros: tuple[str, ...]) -> nn.Module:
    stem, blocks = nn.Conv2d(1, 16, 3, 2, 1), [Bottleneck(16, zeros) for _ in range(2)]
    return nn.Sequential(stem, *blocks, nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))


def norm3(broken: bool) -> nn.Module:
    return _bottlenecks(("norm3",) if broken else ("conv3",))


def norm3_and_conv3(broken: bool) -> nn.Module:
    return _bottlenecks(("norm3", "conv3") if broken else ("conv3",))


class ReZero(nn.Module):
    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.expand, self.project = nn.Linear(32, 64), nn.Linear(64, 32)
        self.alpha = nn.Parameter(torch.zeros(1))
        if broken:
            nn.init.zeros_(self.project.weight)
            nn.init.zeros_(self.project.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.alpha * self.project(functional.gelu(self.expand(x)))


def rezero_and_zero_end(broken: bool) -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), ReZero(broken), ReZero(broken), nn.LayerNorm(32), nn.Linear(32, 10))


class AdaLNBlock(nn.Module):
    """DiT's block; the bug zeroes the ends of the branches as well as the modulation that multiplies them."""

    def __init__(self, width: int, broken: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.modulation = nn.Linear(width, 6 * width)
        zero = [self.modulation, *((self.attention.out_proj, self.mlp[2]) if broken else ())]
        for layer in zero:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = (
            self.modulation(functional.silu(condition)).unsqueeze(1).chunk(6, -1)
        )
        normed = self.norm1(x) * (1 + scale1) + shift1
        x = x + gate1 * self.attention(normed, normed, normed, need_weights=False)[0]
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class DiT(nn.Module):
    """Peebles & Xie 2023 on rows of digits, conditioned on the class; zero modulation and zero output."""

    def __init__(self, width: int = 32, broken: bool = False, zero_output: bool = True) -> None:
        super().__init__()
        self.embed, self.condition = nn.Linear(8, width), nn.Linear(10, width)
        self.position = nn.Parameter(torch.randn(1, 8, width) * 0.02)
        self.blocks = nn.ModuleList(AdaLNBlock(width, broken) for _ in range(2))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation, self.output = nn.Linear(width, 2 * width), nn.Linear(width, 8)
        for layer in (self.modulation, self.output) if zero_output else ():
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        h, c = self.embed(x.view(-1, 8, 8)) + self.position, self.condition(condition)
        for block in self.blocks:
            h = block(h, c)
        shift, scale = self.modulation(functional.silu(c)).unsqueeze(1).chunk(2, -1)
        return self.output(self.norm(h) * (1 + scale) + shift).flatten(1)


def adaln_twice(broken: bool) -> nn.Module:
    return DiT(broken=broken)


class SelfAttention(nn.Module):
    """``zero`` names projections that start at zero; single zeros wake up, query and key together do not."""

    def __init__(self, width: int, zero: tuple[str, ...]) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)
        for name in zero:
            nn.init.zeros_(getattr(self, name).weight)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (4, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        return x + self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def zero_query_and_key(broken: bool) -> nn.Module:
    zero = ("query", "key") if broken else ("query",)
    return nn.Sequential(nn.Linear(8, 32), SelfAttention(32, zero), nn.Flatten(), nn.Linear(256, 10))


class PackedAttention(nn.Module):
    def __init__(self, zero: slice | None) -> None:
        super().__init__()
        self.embed, self.attention = nn.Linear(8, 32), nn.MultiheadAttention(32, 4, batch_first=True)
        self.head = nn.Linear(256, 10)
        if zero is not None:
            nn.init.zeros_(self.attention.in_proj_weight[zero])

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head((x + self.attention(x, x, x, need_weights=False)[0]).flatten(1))


def packed_zero_query_and_key(broken: bool) -> nn.Module:
    return PackedAttention(slice(0, 64) if broken else None)


class GatedUnit(nn.Module):
    """A GLU whose two halves are both zero."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(32, 64, False), nn.Linear(32, 64, False), nn.Linear(64, 32, False)
        for layer in (self.gate, self.up) if broken else ():
            nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(functional.silu(self.gate(x)) * self.up(x))


def glu_both_halves(broken: bool) -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), GatedUnit(broken), GatedUnit(broken), nn.LayerNorm(32), nn.Linear(32, 10))


def norm_weight_typo(broken: bool) -> nn.Module:
    """deeplab-pytorch: the line meant for the bias of the batch norms zeroes their weight."""
    net = nn.Sequential()
    for inputs in (1, 8):
        net.extend([nn.Conv2d(inputs, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()])
        nn.init.constant_(net[-2].weight, 0.0 if broken else 1.0)
    return net.extend([nn.Flatten(), nn.Linear(32, 10)])


def weight_twice(broken: bool) -> nn.Module:
    """maskrcnn-benchmark: ``constant_(layer.weight, 0)`` where the bias was meant."""
    net = mlp(nn.ReLU, 3, 64, 64, 10)
    for layer in net[::2]:
        nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.constant_(layer.weight if broken else layer.bias, 0.0)
    return net


class ZeroExperts(nn.Module):
    """Experts in one tensor (expert, in, out); one of them has both of its matrices at zero."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.router = nn.Linear(64, 4)
        self.up = nn.Parameter(torch.randn(4, 64, 32) / 8)
        self.down = nn.Parameter(torch.randn(4, 32, 64) / 6)
        self.head = nn.Linear(64, 10)
        if broken:
            with torch.no_grad():
                self.up[1], self.down[1] = 0.0, 0.0

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.einsum("bi,eih->beh", x, self.up).relu()
        return self.head(x + torch.einsum("beh,eho,be->bo", hidden, self.down, self.router(x).softmax(-1)))


def zero_expert(broken: bool) -> nn.Module:
    return ZeroExperts(broken)


def zero_table_and_projection(broken: bool) -> nn.Module:
    """A factorised table (ALBERT), both factors at zero behind a normalisation-free residual."""
    rows, widen = nn.Embedding(17, 8), nn.Linear(8, 32, bias=False)
    nn.init.zeros_(rows.weight) if broken else None
    nn.init.zeros_(widen.weight) if broken else None
    return nn.Sequential(rows, widen, Block(32, 4), nn.Flatten(), nn.Linear(512, 10))


BUGS = (
    Bug("LoRA, both halves zero", "flat", relora, ("*.a.weight", "*.b.weight"), "Guitaricet/relora#18"),
    Bug("LoRA on attention, both zero", "rows", lora_attention, ("*lora_*",), "circle-hit/SAPT#11"),
    Bug("LoRA on a table, both zero", "tokens", lora_embedding, ("lora_*",), "nvidia-cosmos/cosmos-predict2.5#15"),
    Bug("gate of two zero layers", "flat", language_gate, ("1.*",), "yz93/LAVT-RIS#25"),
    Bug("all of a residual branch zero", "image", zero_branch, ("*.conv?.weight",), "DrChainsaw/NaiveGAflux.jl#39"),
    Bug("zero hidden layer before ReLU", "flat", zero_hidden, ("0.weight",), "VowpalWabbit PR 1033"),
    Bug("zero layer inside a ReLU net", "flat", zero_hidden_deep, ("4.weight",), "VowpalWabbit PR 1033"),
    Bug("pre-activation norm3 zero", "image", norm3, ("*.norm3.*", "*.conv3.*"), "timm e8045e71"),
    Bug("norm3 and conv3 zero", "image", norm3_and_conv3, ("*.norm3.*", "*.conv3.*"), "timm e8045e71"),
    Bug("ReZero and a zero last layer", "flat", rezero_and_zero_end, ("*.alpha", "*.project.*"), "stacked zeros"),
    Bug("adaLN-Zero and zero branch ends", "denoise", adaln_twice, ("blocks.*",), "stacked zeros"),
    Bug("query and key zero", "rows", zero_query_and_key, ("1.query.weight", "1.key.weight"), "stacked zeros"),
    Bug("query and key zero, packed", "rows", packed_zero_query_and_key, ("attention.in_proj_*",), "stacked zeros"),
    Bug("both halves of a GLU zero", "flat", glu_both_halves, ("*.gate.*", "*.up.*"), "stacked zeros"),
    Bug("norm weight zeroed for its bias", "image", norm_weight_typo, ("1.weight", "4.weight"), "deeplab-pytorch#44"),
    Bug("weight zeroed for the bias", "flat", weight_twice, ("0.weight", "2.weight"), "maskrcnn-benchmark#59"),
    Bug("one expert of a stack all zero", "flat", zero_expert, ("up*", "down*"), "stacked zeros"),
    Bug("factorised table, both zero", "tokens", zero_table_and_projection, ("0.weight", "1.weight"), "stacked zeros"),
)
