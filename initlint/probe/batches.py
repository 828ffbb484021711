"""A second batch made of the first: liveness is not to rest on what one batch happens to reach."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from ..settings import SEEDS
from .blank_inputs import MASK_NAME

_NOTHING = re.compile(r"(?!)")


def shuffled(tree: Any, seed: int) -> Any:
    """The same nest with the tensors' samples mixed: each feature keeps its own values, so indices stay in range.

    Masks (at most two different values), one-dimensional integers (lengths, labels) and sorted positions stay.
    """
    generator = torch.Generator().manual_seed((7_919 * seed + 1) % SEEDS)
    return _mapped(tree, partial(_mixed, generator=generator))


def varied(tree: Any, seed: int) -> Any:
    """The same nest with values drawn for the tensors that hold one value throughout each sample, as ``torch.ones``.

    Nothing tells the places of such data apart. Integers are drawn up to the largest; what is called a mask stays.
    """
    generator = torch.Generator().manual_seed((7_919 * seed + 2) % SEEDS)
    return _mapped(tree, partial(_unlike, generator=generator), MASK_NAME)


def _mapped(tree: Any, change: Callable[[torch.Tensor], torch.Tensor], kept: re.Pattern[str] = _NOTHING) -> Any:
    """``change`` applied to the tensors of a nest, but for those whose name in a mapping is one to be ``kept``."""
    if type(tree) is torch.Tensor:
        return change(tree)
    if type(tree) in (list, tuple):
        return type(tree)(_mapped(each, change, kept) for each in tree)
    if type(tree) is dict or (isinstance(tree, Mapping) and not hasattr(tree, "__dataclass_fields__")):
        return {k: value if kept.search(str(k)) else _mapped(value, change, kept) for k, value in tree.items()}
    return tree


def _mixed(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.numel() < 2 or _is_structure(tensor):
        return tensor
    axis = 0 if tensor.shape[0] > 1 else next(i for i, size in enumerate(tensor.shape) if size > 1)
    order = torch.rand(tensor.shape, generator=generator).argsort(axis).to(tensor.device)
    return tensor.detach().gather(axis, order)


def _unlike(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.ndim < 2 or tensor.dtype == torch.bool:
        return tensor
    samples = tensor.detach().flatten(1)
    if samples.shape[1] < 2 or not bool((samples == samples[:, :1]).all()):
        return tensor
    if tensor.is_floating_point() or tensor.is_complex():
        drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
    else:
        drawn = torch.randint(0, max(1, int(tensor.max()) + 1), tensor.shape, generator=generator)
    return drawn.to(tensor)


def _is_structure(tensor: torch.Tensor) -> bool:
    """Not data but a mask, lengths, or positions."""
    if tensor.dtype == torch.bool:
        return True
    if not (tensor.is_floating_point() or tensor.is_complex()):
        steps = tensor.diff(dim=-1) if tensor.ndim else tensor
        return tensor.ndim < 2 or bool((steps >= 0).all())
    if tensor.is_complex():
        return False
    first = tensor.reshape(-1)[0]
    others = tensor[tensor != first]
    return not others.numel() or bool((others == others[0]).all())
