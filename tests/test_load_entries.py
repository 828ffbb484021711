"""An input that joins the output by a sum is a way around the layers; masks, targets and positions are none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from loading import node, normal, opened
from torch import Tensor, nn

import initlint
from initlint.probe.on_torch import TorchSession

Join = Callable[[Tensor, Tensor], Tensor | tuple[Tensor, ...]]

AROUND: dict[str, Join] = {
    "a sum": lambda h, x: x + h,
    "a difference": lambda h, x: x - h,
    "a part of it": lambda h, x: torch.cat([x, x], 1)[:, :3] + h,
    "scale and shift": lambda h, x: x * (1 + h),
    "an affine coupling": lambda h, x: x * h.exp() + h,
    "a refined logit": lambda h, x: torch.sigmoid(x + h),
    "two outputs": lambda h, x: (x + h, x * h + x),
}
NOT_AROUND: dict[str, Join] = {
    "a mask of samples": lambda h, x: h + x[:, :1],
    "one position for all samples": lambda h, x: h + x[:1],
    "a full mask": lambda h, x: h * x,
    "a gate": lambda h, x: torch.sigmoid(h) * x,
    "the penalty of a mask": lambda h, x: h + torch.clamp(torch.log(x.abs()), min=-1e9),
    "a target": lambda h, x: (h - x) ** 2,
    "a target and its mean": lambda h, x: (h - x).abs().mean(),
    "handed back": lambda h, x: (h, x),
}


class TwoStreams(nn.Module):
    """Four layers, far too quiet, on one input; what they give meets the other one."""

    def __init__(self, join: Join) -> None:
        super().__init__()
        self.join = join
        maps = [nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 3)]
        for each in maps:
            nn.init.normal_(each.weight, std=1e-4)
        self.net = nn.Sequential(*(part for each in maps for part in (each, nn.SiLU())))[:-1]

    def forward(self, features: Tensor, other: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.join(self.net(features), other)


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(64, 16), torch.randn(64, 3)


def bypassed(join: Join) -> set[bool]:
    return {layer.bypassed for layer in TorchSession(TwoStreams(join), batch(), {}).traced.model.layers}


@pytest.mark.parametrize("name", AROUND)
def test_an_input_in_the_sum_is_a_way_around(name: str) -> None:
    assert bypassed(AROUND[name]) == {True}


@pytest.mark.parametrize("name", NOT_AROUND)
def test_what_only_changes_the_output_is_none(name: str) -> None:
    assert bypassed(NOT_AROUND[name]) == {False}


def test_the_end_of_a_residual_branch_may_be_quiet() -> None:
    torch.manual_seed(0)
    assert initlint.check(TwoStreams(AROUND["a sum"]), batch()).ok
    assert not initlint.check(TwoStreams(NOT_AROUND["a full mask"]), batch()).ok


def test_positions_and_masks_before_a_layer_leave_the_way_as_it_is() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project, self.head = nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor, position: Tensor, mask: Tensor) -> Tensor:
            h = self.project(x) + position
            return self.head(torch.softmax(h @ h.transpose(1, 2) + mask, -1) @ h)

    inputs = torch.randn(4, 5, 6), torch.randn(4, 5, 8), torch.randn(4, 5, 5)
    layers = TorchSession(Encoder(), inputs, {}).traced.model.layers
    assert [layer.bypassed for layer in layers] == [False, False]


@pytest.mark.parametrize(("shape", "around"), [(["n", 4], True), (["n", 1], False), ([4], False), ([1, 4], False)])
def test_the_sum_of_a_file(shape: list[int | str], around: bool) -> None:
    nodes = [node("MatMul", ["x", "a.weight"], ["h"]), node("Add", ["h", "o"], ["y"])]
    model = opened(nodes, {"a.weight": normal(4, 4)}, {"x": ["n", 4], "o": shape}).model
    assert [layer.bypassed for layer in model.layers] == [around]
