"""Comparisons in modules: spikes and signs are data to the layers behind them, masks change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from loading import node, normal, opened
from torch import Tensor, nn
from torch.nn import functional
from tracing import traced

import initlint
from initlint.kinds import Use
from initlint.model import Model


class Surrogate(torch.autograd.Function):
    """Any step forwards, a fast sigmoid's slope backwards."""

    @staticmethod
    def forward(context: Any, x: Tensor, step: Callable[[Tensor], Tensor]) -> Tensor:
        context.save_for_backward(x)
        return step(x)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] / (1 + context.saved_tensors[0].abs()) ** 2, None


class Net(nn.Module):
    """Two layers with ``between`` in the middle."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.between = nn.Linear(8, 32), nn.Linear(32, 4), between

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x)))


def written(x: Tensor) -> Tensor:
    spikes = torch.zeros_like(x)
    spikes[x > 0] = 1
    return spikes


STEPS: dict[str, Callable[[Tensor], Tensor]] = {
    "float": lambda x: (x > 0).float(),
    "to": lambda x: (x >= 0).to(x.dtype),
    "where": lambda x: torch.where(x > 0, 1.0, -1.0),
    "times one": lambda x: (x < 0) * 1.0,
    "not equal": lambda x: (x.round() != 0).float(),
    "both": lambda x: ((x > -1) & ~(x > 1)).float(),
    "any": lambda x: (x.unsqueeze(-1) > torch.tensor([1.0, 2.0])).any(-1).float(),
    "written": written,
    "drawn": lambda x: torch.bernoulli(torch.sigmoid(x)),
    "below a draw": lambda x: (torch.rand_like(x) < torch.sigmoid(x)).float(),
    "normal": lambda x: torch.normal(x, torch.ones_like(x)),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_layer_behind_a_comparison_is_a_layer(step: str) -> None:
    model = traced(Net(lambda x: Surrogate.apply(x, STEPS[step])), torch.randn(16, 8)).model  # type: ignore[no-untyped-call]
    assert [layer.name for layer in model.layers] == ["first", "second"]
    assert model.layer("second").producers == ("first",)
    assert model.parameters == 8 * 32 + 32 + 32 * 4 + 4


def test_a_layer_behind_a_draw_in_a_file_is_a_layer() -> None:
    nodes = [
        node("MatMul", ["x", "first.weight"], ["h"]),
        node("Sigmoid", ["h"], ["p"]),
        node("Bernoulli", ["p"], ["code"]),
        node("MatMul", ["code", "second.weight"], ["y"]),
    ]
    model = opened(nodes, {"first.weight": normal(8, 32), "second.weight": normal(32, 4)}).model
    assert [layer.name for layer in model.layers] == ["first", "second"]


def test_a_drawn_mask_is_no_data() -> None:
    def thinned(x: Tensor) -> Tensor:
        return x * torch.bernoulli(torch.full_like(x, 0.9))

    plain, masked = (
        traced(Net(between), torch.randn(16, 8)).model for between in (torch.relu, lambda x: thinned(torch.relu(x)))
    )
    assert structure(masked) == structure(plain)


def test_a_zero_layer_behind_spikes_is_found() -> None:
    net = Net(lambda x: Surrogate.apply(x, STEPS["float"]))  # type: ignore[no-untyped-call]
    nn.init.zeros_(net.second.weight)
    assert "second.weight" in {each.address for each in initlint.check(net, torch.randn(16, 8)).findings}


def test_a_comparison_reads_as_in_a_file() -> None:
    nodes = [
        node("MatMul", ["x", "first.weight"], ["h"]),
        node("Greater", ["h", "zero"], ["above"]),
        node("Cast", ["above"], ["spikes"], to=1),
        node("MatMul", ["spikes", "second.weight"], ["y"]),
    ]
    weights = {"first.weight": normal(8, 32), "second.weight": normal(32, 4), "zero": np.zeros((), np.float32)}
    file = opened(nodes, weights).model
    module = traced(Net(STEPS["float"]), torch.randn(16, 8)).model
    for name in ("first", "second"):
        ours, theirs = module.layer(name), file.layer(name)
        assert (ours.activation, ours.uses, ours.producers) == (theirs.activation, theirs.uses, theirs.producers)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: x * (x > 0),
    "leaky-relu": lambda x: torch.where(x > 0, x, 0.1 * x),
    "elu": lambda x: torch.where(x > 0, x, torch.exp(x) - 1),
    "abs": lambda x: torch.where(x < 0, -x, x),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_non_linearity_written_with_a_comparison_has_its_name(name: str) -> None:
    model = traced(Net(ACTIVATIONS[name]), torch.randn(16, 8)).model
    assert (model.layer("first").activation, model.layer("second").input_activation) == (name, name)


class Attending(nn.Module):
    """One block over tokens, of which some are padding; ``mask`` makes of them which pairs may meet."""

    def __init__(self, mask: Callable[[Tensor], Tensor] | None, added: bool = False) -> None:
        super().__init__()
        self.embed, self.qkv, self.out, self.head = (
            nn.Embedding(50, 16),
            nn.Linear(16, 48),
            nn.Linear(16, 16),
            nn.Linear(16, 3),
        )
        self.mask, self.added = mask, added

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        q, k, v = self.qkv(x).chunk(3, -1)
        logits = q @ k.transpose(-1, -2) / 4
        if self.mask is not None and self.added:
            logits = logits + (1 - self.mask(tokens).float()) * -1e9
        elif self.mask is not None:
            logits = torch.where(self.mask(tokens), logits, -1e9)
        x = x + self.out(logits.softmax(-1) @ v)
        if self.mask is None:
            return self.head(x.mean(1))
        weight = (tokens != 0).unsqueeze(-1).float()
        return self.head((x * weight).sum(1) / weight.sum(1).clamp(min=1))


def causal(tokens: Tensor) -> Tensor:
    places = torch.arange(tokens.shape[1])
    return (places[:, None] >= places) & (tokens != 0)[:, None]


def structure(model: Model) -> list[tuple[object, ...]]:
    return [
        (each.name, each.weight.parts, each.activation, each.uses, each.producers, each.bypassed, each.input_source)
        for each in model.layers
    ]


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("mask", [lambda tokens: (tokens != 0)[:, None], causal])
def test_a_mask_makes_no_difference(mask: Callable[[Tensor], Tensor], added: bool) -> None:
    tokens = torch.randint(1, 50, (4, 6))
    tokens[0, 3:] = 0
    plain, masked = (traced(net, tokens).model for net in (Attending(None), Attending(mask, added)))
    assert structure(masked) == structure(plain)
    assert Use.SOFTMAX in masked.layer("qkv").uses


class Neighbours(nn.Module):
    """Averages over those that are near: which these are is no weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        near = (torch.cdist(x, x) < 4).float()
        near = near / near.sum(-1, keepdim=True)
        return self.second(near @ torch.relu(self.first(near @ x)))


def test_what_was_compared_is_no_weight() -> None:
    assert [layer.name for layer in traced(Neighbours(), torch.randn(16, 8)).model.layers] == ["first", "second"]


class Checked(nn.Module):
    """Looks for infinities between a layer and its norm, as models for half precision do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(8, 16), nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.linear(x)
        if torch.isinf(hidden).any():
            hidden = hidden.clamp(-1e4, 1e4)
        return functional.relu(self.norm(hidden))


def test_a_look_for_infinities_is_no_reader() -> None:
    assert traced(Checked(), torch.randn(16, 8)).model.layer("linear").norm_after is not None
