"""The only sample that a module was given with others beside it, as one batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map

from ..load.from_torch import output_tensors, to_numpy
from .blank_inputs import MASK_NAME
from .single_sample import Array, drawn_like, tells_others


def with_more(tree: Any, names: Mapping[int, str], batch: int, seed: int) -> Any | None:
    """The nest of one sample as ``batch`` of them, the given one first; None where none can be made.

    ``names`` are those of its tensors, by identity.
    """
    tensors = [each for each in tree_leaves(tree) if isinstance(each, torch.Tensor)]
    if any(each.is_nested or to_numpy(each) is None for each in tensors):
        return None
    leaves = {id(each): each.detach() for each in tensors if each.ndim and each.shape[0] == 1 and each.numel()}
    kept = {key for key, each in leaves.items() if _is_structure(each, names.get(key, ""))}
    data = set(leaves) - kept
    if not data:  # a mask or token types by themselves are data
        data = {key for key in leaves if not MASK_NAME.search(names.get(key, ""))}
    values = {key: _numbers(leaves[key]) for key in leaves if key in data}
    if not values or (len(leaves) > 1 and not all(map(tells_others, values.values()))):
        return None
    generator = np.random.Generator(np.random.PCG64([seed, 1]))
    made = {key: each.repeat(batch, *[1] * (each.ndim - 1)) for key, each in leaves.items()}
    for key, sample in values.items():
        drawn = drawn_like(sample, (batch - 1, *sample.shape[1:]), generator)
        made[key][1:] = torch.from_numpy(drawn).to(made[key])
    if any(bool((made[key] == leaves[key]).all()) for key in values):
        return None
    return tree_map(lambda each: made.get(id(each), each), tree)


def _numbers(tensor: torch.Tensor) -> Array:
    found = to_numpy(tensor)
    assert found is not None
    return found


def _is_structure(tensor: torch.Tensor, name: str) -> bool:
    """The same for every sample: a mask, positions, token types."""
    if tensor.dtype == torch.bool or MASK_NAME.search(name):
        return True
    if tensor.is_floating_point() or tensor.is_complex() or tensor.numel() == 1:
        return False
    return bool((tensor == tensor.reshape(-1)[0]).all()) or bool((tensor.diff(dim=-1) == 1).all())


def follows(one: Any, several: Any, batch: int) -> bool:
    """Whether the outputs of ``several`` are those of ``one``, with a place for each sample, and as finite."""
    first, second = ([each.detach() for each in output_tensors(output)] for output in (one, several))
    if len(first) != len(second):
        return False
    pairs = list(zip(first, second, strict=True))
    if any(a.ndim != b.ndim for a, b in pairs):
        return False
    grown = [[sizes for sizes in zip(a.shape, b.shape, strict=True) if sizes[0] != sizes[1]] for a, b in pairs]
    if not any(grown) or any(each not in ([], [(1, batch)]) for each in grown):
        return False
    return all(bool(b.isfinite().all()) or not bool(a.isfinite().all()) for a, b in pairs)
