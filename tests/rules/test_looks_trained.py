"""Training makes units differ in scale and tails heavy; draws of every scheme do neither."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from models import Built, gpt, mixture_of_experts, relu_mlp, torch_encoder
from models.graphs import Array, mlp
from torch import nn

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

NOTE = Severity.NOTE
LEGACY = ("legacy",)


def heavy_tailed(weight: Array, spread: float = 0.5) -> Array:
    """Rows of different scale and Student-t values, as in trained weights (Martin & Mahoney 2021)."""
    rng = np.random.default_rng(0)
    rows = np.exp(spread * rng.standard_normal((len(weight), 1)))
    return (0.1 * rows * rng.standard_t(5, weight.shape)).astype(np.float32)


def orthogonal(weight: Array) -> Array:
    return np.linalg.qr(weight)[0].astype(np.float32)


def trained(seed: int = 0) -> Built:
    """Some seconds of Adam on a task that needs three of the 32 inputs."""
    module, _ = relu_mlp(seed, depth=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        optimiser = torch.optim.Adam(module.parameters(), 3e-3, weight_decay=1e-3)
        for _ in range(400):
            x = torch.randn(256, 32)
            y = (x[:, 0] * x[:, 1] > 0).long() + 2 * (x[:, 2] > 0).long()
            optimiser.zero_grad()
            nn.functional.cross_entropy(module(x), y).backward()
            optimiser.step()
    return module, (torch.randn(32, 32),)


def staircase(weight: Array) -> Array:
    """Every unit sees a few inputs more than the one before it, as in a masked autoregressive net (MADE)."""
    seen = np.linspace(1, weight.shape[1], len(weight))[:, None] > np.arange(weight.shape[1])
    return np.asarray(np.where(seen, np.random.default_rng(0).standard_normal(weight.shape) * 0.2, 0.0), np.float32)


def outer(weight: Array) -> Array:
    one, other = (np.random.default_rng(seed).standard_normal(size) for seed, size in enumerate(weight.shape))
    return np.asarray(np.outer(one, other) * 0.1, np.float32)


@cases(
    Good("he-initialised mlp", mlp, notes_ok=False),
    Good("orthogonal", partial(mlp, changes={"2.weight": orthogonal, "4.weight": orthogonal}), notes_ok=False),
    Good(
        "uniform",
        partial(mlp, changes={"2.weight": lambda w: np.random.default_rng(0).uniform(-0.2, 0.2, w.shape)}),
        notes_ok=False,
    ),
    Good("gpt", gpt, notes_ok=False, exporters=LEGACY),
    Good("packed projections", torch_encoder, notes_ok=False, exporters=LEGACY),
    Good("stacked experts", mixture_of_experts, notes_ok=False, exporters=LEGACY),
    Good("near miss: an outer product of draws", partial(mlp, changes={"2.weight": outer, "4.weight": outer})),
    Good("near miss: masked connections", partial(mlp, changes={"2.weight": staircase})),
    Good(
        "near miss: heavy tails in rows of one scale",
        partial(mlp, changes={"2.weight": lambda w: np.random.default_rng(0).standard_t(5, w.shape) * 0.1}),
        notes_ok=False,
    ),
    Good(
        "near miss: too few values to tell",
        partial(mlp, inputs=8, width=16, changes={"0.weight": heavy_tailed}),
        notes_ok=False,
    ),
    Bad("heavy-tailed rows of different scale", partial(mlp, changes={"2.weight": heavy_tailed}), ["2.weight"], NOTE),
    Bad("a net that was trained", trained, ["2.weight"], NOTE, LEGACY),
)
def test_looks_trained(case: Case) -> None:
    check("looks-trained", case, seeds=(0,))
