"""What stands in for parts of PyTorch while a module is run: checkpoints, and spectral norms of the older kind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

POWER_ITERATIONS = 15  # what torch.nn.utils.parametrizations.spectral_norm takes before its first forward


@contextmanager
def standing_in() -> Iterator[None]:
    """Each stand-in is in its place inside, and what was there before is back afterwards."""
    before: list[tuple[Any, str, Any]] = []
    try:
        for place, names in _STAND_INS.items():
            home = _home(place)
            for name in (each for each in names if hasattr(home, each)):
                before.append((home, name, getattr(home, name)))
                setattr(home, name, names[name])
        yield
    finally:
        for home, name, own in reversed(before):
            setattr(home, name, own)


def _home(place: str) -> Any:
    """A module of PyTorch, or a class in one ("module:class"); None where nobody has imported it."""
    module, _, kind = place.partition(":")
    found = sys.modules.get(module)
    return getattr(found, kind, None) if kind else found


class _Plain:
    """In the place of a reentrant checkpoint."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        return function(*args)


def _plain(*args: Any, **kwargs: Any) -> Iterator[None]:
    """In the place of the other kind, around the function: nothing before it and nothing after it."""
    yield


_weight_as_it_is: Any = getattr(_home("torch.nn.utils.spectral_norm:SpectralNorm"), "compute_weight", None)
"""None where PyTorch has dropped the older kind, whose place nobody then takes."""


def _normed_weight(norm: Any, module: torch.nn.Module, do_power_iteration: bool) -> torch.Tensor:
    """The weight over its largest singular value, as torch.nn.utils.spectral_norm has it after the first steps.

    Its singular vectors are drawn at random, and only a forward in training mode iterates them (Miyato et al. 2018): a
    fresh one in evaluation mode divides by next to nothing. Here they are iterated on copies, as nobody sees.
    """
    if do_power_iteration:
        kept: torch.Tensor = _weight_as_it_is(norm, module, do_power_iteration)
        return kept
    weight, u, v = (getattr(module, f"{norm.name}_{each}") for each in ("orig", "u", "v"))
    with _disable_current_modes(), torch.no_grad():
        matrix = norm.reshape_weight_to_matrix(weight.detach())
        for _ in range(POWER_ITERATIONS):
            v = torch.nn.functional.normalize(matrix.t().mv(u), dim=0, eps=norm.eps)
            u = torch.nn.functional.normalize(matrix.mv(v), dim=0, eps=norm.eps)
    return weight / torch.dot(u, torch.mv(norm.reshape_weight_to_matrix(weight), v))  # type: ignore[no-any-return]


_STAND_INS: dict[str, dict[str, Any]] = {
    "torch.utils.checkpoint": {
        # they keep what they compute: run again behind the probe's back it would come out differently, and those of the
        # older kind refuse gradients of chosen tensors
        "CheckpointFunction": _Plain,
        "_checkpoint_without_reentrant_generator": _plain,
        "_checkpoint_without_reentrant_generator_impl": _plain,  # its name from PyTorch 2.14 on
    },
    "torch.nn.utils.spectral_norm:SpectralNorm": {"compute_weight": _normed_weight},
}
