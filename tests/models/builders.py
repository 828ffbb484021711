"""Builders that take no seed: they draw from the global generators, as a user's function does, and forget things."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from .initialised import Built


def unseeded(build: Callable[..., Built]) -> Callable[[], Built]:
    """A builder of this package as one that the global seed reaches."""

    def built() -> Built:
        return build(seed=int(torch.randint(2**31, ())))

    return built


class Gated(nn.Module):
    """Two layers with everything between them that people write by hand; as it stands, all of it is initialised."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, width), nn.Linear(width, 4)
        self.gate = nn.Parameter(torch.empty(width, width))
        self.scale = nn.Parameter(torch.Tensor(width))
        self.token = nn.Parameter(torch.randn(width) * 0.02)
        self.register_buffer("cache", torch.zeros(64, width))
        self.register_buffer("order", torch.arange(width))
        nn.init.xavier_normal_(self.gate)
        nn.init.ones_(self.scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.first(x)) * self.scale
        h = h + torch.tanh(h @ self.gate)[:, self.order] + self.token
        cache = self.get_buffer("cache")
        cache[: len(h)] = h.detach()
        return self.last(h + cache[: len(h)])


def gated(*changes: Callable[[Gated], object]) -> Callable[[], Built]:
    """A builder of ``Gated`` that ends with ``changes``."""

    def built() -> Built:
        module = Gated()
        with torch.no_grad():
            for change in changes:
                change(module)
        return module, (torch.randn(8, 16),)

    return built


def forget(*names: str) -> Callable[[nn.Module], None]:
    """Give each tensor fresh memory."""

    def change(module: nn.Module) -> None:
        for name in names:
            owner, _, attribute = name.rpartition(".")
            holder = module.get_submodule(owner)
            value = torch.empty_like(getattr(holder, attribute))
            is_parameter = attribute in holder._parameters
            setattr(holder, attribute, nn.Parameter(value) if is_parameter else value)

    return change


def forget_rows(name: str, start: int) -> Callable[[nn.Module], None]:
    """Fresh memory, of which the first ``start`` rows are drawn: a packed tensor whose second half was overlooked."""

    def change(module: nn.Module) -> None:
        parameter = module.get_parameter(name)
        parameter.set_(torch.empty_like(parameter).data)
        nn.init.normal_(parameter[:start], std=0.1)

    return change


def write(name: str, values: Callable[[tuple[int, ...]], object]) -> Callable[[nn.Module], None]:
    """Set a parameter to ``values(shape)``."""

    def change(module: nn.Module) -> None:
        parameter = module.get_parameter(name)
        parameter.copy_(torch.as_tensor(np.asarray(values(tuple(parameter.shape))), dtype=parameter.dtype))

    return change


def found_memory(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """What a heap holds: 32 random bits per value, a pointer's upper half every other time; finite values only."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**32, shape, dtype=np.uint32)
    bits.flat[1::2] = 0x7F8A
    bits[(bits & 0x7F800000) == 0x7F800000] = 0x1234  # NaN and infinity are another rule's
    return bits.view(np.float32)
