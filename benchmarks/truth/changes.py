"""Changes of a single weight, or of one gate or expert of it, of the second split; a piece is (units, fan-in...)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .families import RELU, fan_in


def fan_out(piece: Tensor) -> int:
    return piece[:, 0].numel()


def truncated(piece: Tensor) -> None:
    std = RELU / math.sqrt(fan_in(piece))
    nn.init.trunc_normal_(piece, std=std, a=-2 * std, b=2 * std)


def identity(piece: Tensor) -> None:
    """Where it is square; a kernel looks at its own place."""
    if piece.ndim == 2 and len(piece) == piece.shape[1]:
        piece.copy_(torch.eye(len(piece)))
    elif piece.ndim > 2 and len(piece) == piece.shape[1]:
        piece.copy_(nn.init.dirac_(torch.empty(piece.shape)))


def one_row(piece: Tensor) -> None:
    piece.copy_(piece[:1].clone().expand_as(piece))


def every_second_zero(piece: Tensor) -> None:
    piece[1::2] = 0.0


def half_loud(piece: Tensor) -> None:
    piece[: len(piece) // 2] *= 100.0


def outliers(tensor: Tensor) -> None:
    tensor[torch.rand_like(tensor) < 0.01] *= 100.0


def heavy_tailed(piece: Tensor) -> None:
    piece.copy_(torch.empty(piece.shape).cauchy_() / math.sqrt(fan_in(piece)))


def variance_as_std(piece: Tensor) -> None:
    piece.normal_(std=2 / fan_in(piece))


def root_taken_twice(piece: Tensor) -> None:
    piece.normal_(std=fan_in(piece) ** -0.25)
