"""Layers, heads and units that start equal."""

from __future__ import annotations

import torch
from models.attention import Block
from models.plain import mlp
from torch import Tensor, nn
from torch.nn import functional

from .case import Bug


class Encoder(nn.Module):
    """pytorch#72253: nn.TransformerEncoder deep-copies the layer it is given."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.embed, self.encoder = nn.Linear(8, 32), nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.head = nn.Linear(256, 10)
        for each in self.encoder.layers[1:] if not broken else ():
            each.load_state_dict(nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True).state_dict())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x)).flatten(1))


def deep_copied_encoder(broken: bool) -> nn.Module:
    return Encoder(broken)


def _critic() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 1))


class Critics(nn.Module):
    """``way`` is what the forward gives: "tuple", "stack", "cat", "min" or "mean"."""

    def __init__(self, count: int, way: str, broken: bool) -> None:
        super().__init__()
        self.way = way
        seed = torch.initial_seed()
        self.critics = nn.ModuleList()
        for number in range(count):
            if broken:
                torch.manual_seed(seed)  # one key for all of them
            elif number:
                torch.manual_seed(seed + 1000 * number)
            self.critics.append(_critic())

    def forward(self, state: Tensor, action: Tensor) -> Tensor | tuple[Tensor, ...]:
        values = tuple(critic(torch.cat([state, action], -1)) for critic in self.critics)
        if self.way == "tuple":
            return values
        if self.way == "cat":
            return torch.cat(values, -1)
        stacked = torch.stack(values)
        return {"stack": stacked, "min": stacked.amin(0), "mean": stacked.mean(0)}[self.way]


def twin_critics(broken: bool) -> nn.Module:
    return Critics(2, "tuple", broken)


def redq(broken: bool) -> nn.Module:
    return Critics(5, "stack", broken)


def redq_cat(broken: bool) -> nn.Module:
    return Critics(5, "cat", broken)


def ensemble_mean(broken: bool) -> nn.Module:
    return Critics(3, "mean", broken)


def clipped_min(broken: bool) -> nn.Module:
    return Critics(2, "min", broken)


class BatchedCritics(nn.Module):
    """All critics in one tensor (critic, in, out), made by repeating one draw."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.inner, self.outer = (
            nn.Parameter((torch.randn(1, *s).repeat(4, 1, 1) if broken else torch.randn(4, *s)) / s[0] ** 0.5)
            for s in ((64, 48), (48, 1))
        )

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        x = torch.cat([state, action], -1).expand(4, -1, -1)
        return torch.bmm(torch.relu(torch.bmm(x, self.inner)), self.outer)


def batched_critics(broken: bool) -> nn.Module:
    return BatchedCritics(broken)


def one_seed_per_layer(broken: bool) -> nn.Module:
    """netket#241: every layer is drawn with the same key."""
    net = nn.Sequential()
    for _ in range(4):
        if broken:
            torch.manual_seed(7)
        net.extend([nn.Linear(64, 64), nn.ReLU()])
    return net.append(nn.Linear(64, 10))


def shared_initializer(broken: bool) -> nn.Module:
    """keras-hub#352: a seeded initializer object draws the same for query, key and value, and in every block."""
    blocks = [Block(32, 4) for _ in range(2)]
    for block in blocks:
        if broken:
            torch.manual_seed(7)
        drawn = torch.randn(96, 32) / 6
        with torch.no_grad():
            block.attention.qkv.weight.copy_(drawn[:32].repeat(3, 1) if broken else drawn)
    return nn.Sequential(nn.Linear(8, 32), *blocks, nn.LayerNorm(32), nn.Flatten(), nn.Linear(256, 10))


def all_constant(broken: bool) -> nn.Module:
    net = mlp(nn.Tanh, 3, 64, 64, 10)
    for layer in net[::2]:
        if broken:
            nn.init.constant_(layer.weight, 0.05)
            nn.init.zeros_(layer.bias)
    return net


def all_constant_normed(broken: bool) -> nn.Module:
    net = nn.Sequential()
    for inputs in (1, 16):
        net.extend([nn.Conv2d(inputs, 16, 3, 2, 1), nn.GroupNorm(1, 16), nn.ReLU()])
    net.extend([nn.Flatten(), nn.Linear(64, 10)])
    for parameter in net.parameters():
        if broken and parameter.ndim > 1:
            nn.init.constant_(parameter, 0.05)
    return net


class ConstantLSTM(nn.Module):
    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(8, 32, batch_first=True), nn.Linear(32, 10)
        for parameter in self.parameters():
            if broken and parameter.ndim > 1:
                nn.init.constant_(parameter, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[1][0][0])


def constant_lstm(broken: bool) -> nn.Module:
    return ConstantLSTM(broken)


def repeated_in_and_out(broken: bool) -> nn.Module:
    """Widened by repetition (Net2Net without its noise): half of the units copy the other, readout included."""
    net = mlp(nn.ReLU, 3, 64, 64, 10)
    if broken:
        with torch.no_grad():
            net[0].weight[32:], net[0].bias[32:] = net[0].weight[:32], net[0].bias[:32]
            net[2].weight[:, 32:] = net[2].weight[:, :32]
    return net


def repeated_in(broken: bool) -> nn.Module:
    net = mlp(nn.ReLU, 3, 64, 64, 10)
    if broken:
        with torch.no_grad():
            net[0].weight[32:], net[0].bias[32:] = net[0].weight[:32], net[0].bias[:32]
    return net


class Heads(nn.Module):
    """Multi-branch net (two-stream, averaged): the second branch is a deep copy of the first."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.left, self.right = (mlp(nn.GELU, 2, 48, 64, 32) for _ in range(2))
        self.head = nn.Linear(32, 10)
        if broken:
            self.right.load_state_dict(self.left.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.gelu(self.left(x) + self.right(x)))


def summed_branches(broken: bool) -> nn.Module:
    return Heads(broken)


def weight_normed_constant(broken: bool) -> nn.Module:
    net = mlp(nn.ReLU, 3, 64, 64, 10)
    for layer in net[::2]:
        if broken:
            nn.init.constant_(layer.weight, 0.1)
            nn.init.zeros_(layer.bias)
        nn.utils.parametrizations.weight_norm(layer)
    return net


BUGS = (
    Bug("encoder layers deep-copied", "rows", deep_copied_encoder, ("encoder.layers.?.*",), "pytorch#72253"),
    Bug("twin critics from one key", "critic", twin_critics, ("critics.*",), "EdanToledo/Stoix#72"),
    Bug("REDQ, stacked", "critic", redq, ("critics.*",), "cares_reinforcement_learning#223"),
    Bug("REDQ, concatenated", "critic", redq_cat, ("critics.*",), "cares_reinforcement_learning#223"),
    Bug("REDQ, one tensor", "critic", batched_critics, ("inner", "outer"), "cares_reinforcement_learning#223"),
    Bug("ensemble mean of copies", "critic", ensemble_mean, ("critics.*",), "cares_reinforcement_learning#223"),
    Bug("clipped minimum of copies", "critic", clipped_min, ("critics.*",), "EdanToledo/Stoix#72"),
    Bug("one seed for every layer", "flat", one_seed_per_layer, ("?.weight",), "netket#241"),
    Bug("shared initializer", "rows", shared_initializer, ("?.*",), "keras-hub#352, deel-lip#64"),
    Bug("all weights constant, tanh", "flat", all_constant, ("?.weight",), "StackOverflow 36127436"),
    Bug("all weights constant, normed", "image", all_constant_normed, ("?.weight",), "StackOverflow 36127436"),
    Bug("all weights constant, LSTM", "rows", constant_lstm, ("cell.*", "head.*"), "StackOverflow 40147568"),
    Bug("all weights constant, weight norm", "flat", weight_normed_constant, ("*weight*",), "symmetry"),
    Bug("units copied, readout too", "flat", repeated_in_and_out, ("0.weight",), "Net2Net without noise"),
    Bug("units copied, readout drawn", "flat", repeated_in, ("0.weight",), "Net2Net without noise"),
    Bug("branch deep-copied and summed", "flat", summed_branches, ("left.*", "right.*"), "symmetry"),
)
