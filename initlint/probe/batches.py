"""A second batch made of the first: liveness is not to rest on what one batch happens to reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ..settings import SEEDS


def shuffled(tree: Any, seed: int) -> Any:
    """The same nest with the tensors' samples mixed: each feature keeps its own values, so indices stay in range.

    Masks (at most two different values), one-dimensional integers (lengths, labels) and sorted positions stay.
    """
    generator = torch.Generator().manual_seed((7_919 * seed + 1) % SEEDS)
    return _mapped(tree, generator)


def _mapped(tree: Any, generator: torch.Generator) -> Any:
    if type(tree) is torch.Tensor:
        return _mixed(tree, generator)
    if type(tree) in (list, tuple):
        return type(tree)(_mapped(each, generator) for each in tree)
    if type(tree) is dict or (isinstance(tree, Mapping) and not hasattr(tree, "__dataclass_fields__")):
        return {key: _mapped(value, generator) for key, value in tree.items()}
    return tree


def _mixed(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.numel() < 2 or _is_structure(tensor):
        return tensor
    axis = 0 if tensor.shape[0] > 1 else next(i for i, size in enumerate(tensor.shape) if size > 1)
    order = torch.rand(tensor.shape, generator=generator).argsort(axis).to(tensor.device)
    return tensor.detach().gather(axis, order)


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
