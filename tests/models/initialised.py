"""How a builder is seeded, and the initialisations that several models share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

import torch
from torch import Tensor, nn

Built = tuple[nn.Module, tuple[Tensor, ...]]
P = ParamSpec("P")


def seeded(build: Callable[P, Built]) -> Callable[Concatenate[int, P], Built]:
    """Give a builder a first argument ``seed`` that decides all it draws."""

    @wraps(build)
    def with_seed(seed: int = 0, *args: P.args, **options: P.kwargs) -> Built:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build(*args, **options)

    return with_seed  # type: ignore[return-value]


def he(module: nn.Module) -> None:
    """He et al. 2015: for layers that a ReLU reads; biases zero. Use with ``Module.apply``."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def xavier(module: nn.Module) -> None:
    """Glorot & Bengio 2010; biases zero. Use with ``Module.apply``."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def gpt2(module: nn.Module) -> None:
    """Radford et al. 2019: normal with std 0.02 everywhere; biases zero. Use with ``Module.apply``."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
