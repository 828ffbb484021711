"""What a layer's bias adds to both of two embeddings cancels in their difference: that is no fault."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import initlint
from initlint.plugin import Severity
from initlint.probe.signals import Backward


class Pair(nn.Module):
    """One encoder, called twice."""

    def __init__(self, encoder: nn.Module, join: Callable[[Tensor, Tensor], Tensor], head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self._join = join

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return self.head(self._join(self.encoder(one), self.encoder(other)))


def mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, width))


def images() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.Flatten())


def distance(one: Tensor, other: Tensor) -> Tensor:
    return functional.pairwise_distance(one, other)[:, None]


@pytest.mark.parametrize(
    ("encoder", "join", "head", "shape"),
    [
        (lambda: mlp(1), torch.sub, nn.Identity, (32, 10)),
        (lambda: mlp(8), lambda one, other: (one - other).abs(), lambda: nn.Linear(8, 3), (32, 10)),
        (lambda: mlp(8), distance, lambda: nn.Linear(1, 3), (32, 10)),
        (lambda: mlp(1), lambda one, other: one - other[:1], nn.Identity, (32, 10)),
        (images, torch.sub, lambda: nn.Linear(72, 4), (8, 3, 8, 8)),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_no_bias_that_cancels_is_called_stuck(
    encoder: Callable[[], nn.Module],
    join: Callable[[Tensor, Tensor], Tensor],
    head: Callable[[], nn.Module],
    shape: tuple[int, ...],
    seed: int,
) -> None:
    torch.manual_seed(seed)
    module = Pair(encoder(), join, head())
    report = initlint.check(module, (torch.randn(*shape), torch.randn(*shape)))
    assert [each for each in report.findings if each.severity >= Severity.WARNING] == []


def test_a_bias_that_is_held_by_a_dead_unit_is_still_stuck() -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 8), nn.ReLU())
    nn.init.constant_(encoder[2].bias, -100.0)
    report = initlint.check(Pair(encoder, torch.sub, nn.Linear(8, 3)), (torch.randn(32, 10), torch.randn(32, 10)))
    assert Severity.ERROR in {each.severity for each in report.headlines}


class Crossing(nn.Module):
    """nn.MultiheadAttention with other keys than queries reads its packed projection in two calls of unequal parts."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(10, 16), nn.Linear(16, 3)
        self.attend = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        h, media = self.embed(x), self.embed(x.flip(1))
        return self.head(h + self.attend(h, media, media, need_weights=False)[0])


def test_cross_attention_has_gradients() -> None:
    report = initlint.check(Crossing(), torch.randn(8, 5, 10))
    assert (report.probe.backward, report.probe.reason) == (Backward.EXACT, "")
