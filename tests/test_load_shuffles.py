"""Which layers' units a pixel shuffle makes positions, whatever stands between."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from loading import node, normal, opened
from onnx import NodeProto
from torch import Tensor, nn
from tracing import traced

BETWEEN = {
    "nothing": (),
    "SiLU": (nn.SiLU,),
    "GELU": (nn.GELU,),
    "ELU": (nn.ELU,),
    "PReLU": (nn.PReLU,),
    "a PReLU with a slope per channel": (lambda: nn.PReLU(8),),
    "BatchNorm": (lambda: nn.BatchNorm2d(8),),
    "GroupNorm and Mish": (lambda: nn.GroupNorm(2, 8), nn.Mish),
}


class Rearranged(nn.Module):
    """As einops writes b (c a d) h w -> b c (h a) (w d)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 2, 2, 2, 4, 4).permute(0, 1, 4, 2, 5, 3).reshape(2, 2, 8, 8)


class ChannelShuffle(nn.Module):
    """ShuffleNet's: the units change places with one another."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(2, 2, 4, 4, 4).transpose(1, 2).reshape(2, 8, 4, 4)


@pytest.mark.parametrize(("between", "last"), list(product(BETWEEN, [lambda: nn.PixelShuffle(2), Rearranged])))
def test_functions_of_single_units_may_stand_before_the_shuffle(between: str, last: type[nn.Module]) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), *(each() for each in BETWEEN[between]), last())
    first = traced(net, torch.randn(2, 3, 4, 4)).model.layers[0]
    assert first.shuffles_units


class Unfolded(nn.Module):
    """Places become patches, as in MobileViT; units stay what they are."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(2, 8, 2, 2, 2, 2).permute(0, 3, 5, 2, 4, 1).reshape(2, 4, 4, 8)


@pytest.mark.parametrize(("between", "last"), list(product(BETWEEN, [ChannelShuffle, Unfolded])))
def test_other_rearrangements_make_no_positions(between: str, last: type[nn.Module]) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), *(each() for each in BETWEEN[between]), last())
    first = traced(net, torch.randn(2, 3, 4, 4)).model.layers[0]
    assert not first.shuffles_units


def test_what_reads_the_units_beside_the_shuffle_needs_them_apart() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.shuffle, self.other = nn.Conv2d(3, 8, 1), nn.PixelShuffle(2), nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            h = self.conv(x)
            return self.shuffle(nn.functional.silu(h)), self.other(h)

    first = traced(Fork(), torch.randn(2, 3, 4, 4)).model.layers[0]
    assert not first.shuffles_units


def shuffled(*between: NodeProto) -> bool:
    """Of a file: a convolution with ``between`` from h to z, then DepthToSpace."""
    nodes = [node("Conv", ["x", "c.weight"], ["h"]), *between, node("DepthToSpace", ["z"], ["y"], blocksize=2)]
    weights = {"c.weight": normal(8, 3, 1, 1), "s.weight": normal(8, 1, 1), "k.weight": normal(8, 8, 1, 1)}
    used = {value for each in nodes for value in each.input}
    model = opened(nodes, {name: value for name, value in weights.items() if name in used}).model
    return model.layers[0].shuffles_units


def test_a_file_that_spells_the_activation_out() -> None:
    assert shuffled(node("Sigmoid", ["h"], ["s"]), node("Mul", ["h", "s"], ["z"]))
    assert shuffled(node("PRelu", ["h", "s.weight"], ["z"]))


def test_another_layer_of_a_file_mixes_the_units() -> None:
    assert not shuffled(node("Conv", ["h", "k.weight"], ["z"]))
