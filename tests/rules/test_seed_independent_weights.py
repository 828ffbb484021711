"""Draws that no seed reaches; what is fixed by design, or not built anew, is left alone."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from judging import check_builder
from models import Built, relu_mlp
from models.builders import Gated, gated, unseeded, write
from torch import nn

import initlint
from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases

WARNING, NOTE = Severity.WARNING, Severity.NOTE


def by_numpy(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, shape)


def by_generator(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)) - 0.5


def by_global_numpy(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.normal(0, 0.1, shape)


def by_python(shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray([random.gauss(0, 0.1) for _ in range(int(np.prod(shape)))]).reshape(shape)


def sines(shape: tuple[int, ...]) -> np.ndarray:
    """Vaswani et al. 2017, section 3.5."""
    rates = 10000.0 ** (-np.arange(0, shape[1], 2) / shape[1])
    angles = np.arange(shape[0])[:, None] * rates
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(shape)


def cosine_transform(shape: tuple[int, ...]) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.cos(np.pi * rows * (columns + 0.5) / shape[1])


def ramp(shape: tuple[int, ...]) -> np.ndarray:
    return np.log(np.arange(1, np.prod(shape) + 1)).reshape(shape)


def hadamard(shape: tuple[int, ...]) -> np.ndarray:
    table = np.ones((1, 1))
    while table.shape[0] < shape[0]:
        table = np.block([[table, table], [table, -table]])
    return table / np.sqrt(shape[0])


def frozen(module: Gated) -> None:
    write("gate", by_numpy)(module)
    module.gate.requires_grad_(False)


def seeds_itself() -> Built:
    torch.manual_seed(7)
    return gated()()


def loads_weights() -> Built:
    """A backbone from a file, and a head of its own."""
    backbone = relu_mlp(seed=5)[0]
    return nn.Sequential(*backbone, nn.Linear(10, 3)), (torch.randn(8, 32),)


def learned(shape: tuple[int, ...]) -> np.ndarray:
    """Drawn, then multiplied by what training makes of the units' scales."""
    return by_numpy(shape) * np.exp(np.random.default_rng(1).normal(0, 1.0, (shape[0], 1)))


KEPT = gated()()


def keeps_its_model() -> Built:
    return KEPT


@cases(
    Good("drawn from the global generator", unseeded(relu_mlp), notes_ok=False),
    Good("drawn by numpy, as it is seeded", gated(write("gate", by_global_numpy)), notes_ok=False),
    Good("drawn by Python, as it is seeded", gated(write("gate", by_python)), notes_ok=False),
    Good("near miss: a table of sines", gated(write("gate", sines)), notes_ok=False),
    Good("near miss: a cosine transform", gated(write("gate", cosine_transform)), notes_ok=False),
    Good("near miss: logarithms of a ramp", gated(write("gate", ramp)), notes_ok=False),
    Good("near miss: a Hadamard matrix", gated(write("gate", hadamard)), notes_ok=False),
    Good("near miss: an identity", gated(write("gate", lambda shape: np.eye(*shape))), notes_ok=False),
    Good("near miss: a frozen random projection", gated(frozen), notes_ok=False),
    Bad("a generator of its own in numpy", gated(write("gate", by_numpy)), ["gate"], WARNING),
    Bad("a generator of its own in torch", gated(write("gate", by_generator)), ["gate"], WARNING),
    Bad(
        "one seed for two layers",
        gated(write("gate", by_numpy), write("last.weight", by_numpy)),
        ["gate", "last.weight"],
        WARNING,
    ),
    Bad("a builder that seeds itself", seeds_itself, [""], NOTE),
    Bad("a builder that loads weights", loads_weights, [""], NOTE),
    Bad("one learned layer among drawn ones", gated(write("gate", learned)), [""], NOTE),
    Bad("a builder that keeps its model", keeps_its_model, [""], NOTE),
)
def test_seed_independent_weights(case: Case) -> None:
    check_builder("seed-independent-weights", case)


@pytest.mark.parametrize("target", [relu_mlp(0)[0], "module.safetensors"])
def test_without_a_builder_it_is_skipped_with_the_reason(target: object, tmp_path: object) -> None:
    if isinstance(target, str):
        from safetensors.torch import save_file

        target = str(tmp_path / target)  # type: ignore[operator]
        save_file(relu_mlp(0)[0].state_dict(), target)
    (skipped,) = (s for s in initlint.check(target).skipped_rules if s.rule == "seed-independent-weights")
    assert "a function or class that builds the model" in skipped.reason


def test_how_many_times_a_builder_is_called() -> None:
    calls: list[int] = []

    def counted(build: Callable[[], Built]) -> Callable[[], Built]:
        def built() -> Built:
            calls.append(1)
            return build()

        return built

    expected = [(gated(), ["scale"], 1), (gated(), ["numerics"], 2), (keeps_its_model, ["numerics"], 3)]
    for build, select, times in expected:
        calls.clear()
        initlint.check(counted(build), select=select)
        assert len(calls) == times
