"""Builders of healthy models with one thing changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .faults import Fault, plant
from .initialised import Built


def altered(build: Callable[..., Built], change: Callable[[Any], object], **options: Any) -> Callable[..., Built]:
    """``build`` with ``change`` applied to the module it gives."""

    def built(seed: int = 0) -> Built:
        module, inputs = build(seed, **options)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            change(module)
        return module, inputs

    return built


def planted(build: Callable[..., Built], fault: Fault, *addresses: str, **options: Any) -> Callable[..., Built]:
    """``build`` with ``fault`` planted at each address."""

    def change(module: nn.Module) -> None:
        for address in addresses:
            plant(module, address, fault)

    return altered(build, change, **options)
