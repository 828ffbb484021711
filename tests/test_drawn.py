"""Values that were drawn, computed or learned are told apart, and chance decides nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from initlint.drawn import Nature, nature

SHAPES = [(64, 32), (16, 3, 3, 3), (512,), (1, 64), (300, 400), (8, 8)]
DRAWS: list[Callable[[torch.Tensor], object]] = [
    nn.init.normal_,
    nn.init.uniform_,
    lambda t: nn.init.trunc_normal_(t, std=0.02),
    lambda t: nn.init.uniform_(t, -0.01, 0.01),
    lambda t: nn.init.orthogonal_(t) if t.ndim > 1 else nn.init.normal_(t),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_scheme_looks_drawn(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for draw in DRAWS:
        for _ in range(5):
            tensor = torch.empty(shape)
            draw(tensor)
            rounded = tensor.to(dtype)
            values = rounded.double().numpy().astype(np.float16 if rounded.element_size() == 2 else np.float64)
            assert nature(values) is Nature.DRAWN


def angles(rows: int, columns: int) -> np.ndarray:
    return np.arange(rows)[:, None] * 10000.0 ** (-np.arange(columns) / columns)


COMPUTED = {
    "zeros": np.zeros((32, 32)),
    "constant": np.full((32, 32), 0.3),
    "identity": np.eye(64),
    "ramp": np.arange(4096.0).reshape(64, 64),
    "logarithms": np.log(np.arange(1.0, 1025.0)).reshape(32, 32),
    "decays": np.tile(np.log(np.arange(1.0, 17.0)), (128, 1)),
    "sines": np.sin(angles(128, 64)),
    "fourier": np.cos(2 * np.pi * np.outer(np.arange(64), np.arange(64)) / 64),
    "hat": np.outer(np.hanning(16), np.hanning(16)),
    "signs": np.where(np.random.default_rng(0).random((64, 64)) < 0.5, -1.0, 1.0),
    "triangle": np.tril(np.ones((64, 64))),
    "small": np.random.default_rng(0).normal(size=(5, 5)),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_tables_do_not(name: str) -> None:
    assert nature(COMPUTED[name]) is Nature.COMPUTED


def test_learned_weights_are_neither() -> None:
    rng = np.random.default_rng(0)
    uneven = rng.normal(size=(64, 64)) * np.exp(rng.normal(size=(64, 1)))
    heavy = rng.standard_t(3, size=(64, 64))
    mixed = rng.normal(size=(128, 128))
    mixed[:, 1:] += 0.3 * mixed[:, :-1]
    assert [nature(each) for each in (uneven, heavy, mixed)] == [Nature.UNDECIDED] * 3
