"""Rows of logits of a softmax in an eager run: few enough to be kept, of all samples, heads and positions."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

from .softmax_rows import VALUES, positions

Rows = Callable[[], torch.Tensor]
"""Gives (rows, entries) when asked, before the operands are overwritten."""


def of_logits(logits: torch.Tensor, axis: int) -> Rows:
    """Rows along ``axis``."""

    def take() -> torch.Tensor:
        moved = logits.detach().movedim(axis, -1) if logits.ndim else logits.detach().reshape(1)
        return _pick(moved, _places(moved.shape[:-1], moved.shape[-1]))

    return take


def of_attention(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, causal: bool, scale: float | None
) -> Rows:
    """Rows of scale * query @ key.T + mask, for (..., positions, width); fewer key heads than query heads are shared.

    A mask of booleans is true where there may be attention.
    """

    def take() -> torch.Tensor:
        length, width = key.shape[-2:]
        rows = min(_MOST, max(_FEWEST, VALUES // max(1, length * width)))  # the keys are copied for every row
        places = _places(query.shape[:-1], VALUES // rows)
        chosen = query.detach()[places].float() if places else query.detach().float()
        *batch, head = places[:-1] if len(places) > 1 else (torch.zeros(1, dtype=torch.long),)
        if len(places) > 2 and key.shape[-3] != query.shape[-3]:
            head = head // (query.shape[-3] // key.shape[-3])
        keys = key.detach()[(*batch, head)] if len(places) > 1 else key.detach().expand(len(chosen), -1, -1)
        factor = width**-0.5 if scale is None else scale
        logits = torch.einsum("rw,rlw->rl", chosen, keys.float()) * factor
        if causal:
            logits = logits.masked_fill(torch.arange(length)[None].to(places[-1]) > places[-1][:, None], -torch.inf)
        if mask is None:
            return logits
        masks = mask.detach().expand(*query.shape[:-1], length)[places]
        return logits.masked_fill(~masks, -torch.inf) if masks.dtype == torch.bool else logits + masks.float()

    return take


_FEWEST, _MOST = 8, 64
"""Rows that are looked at however many keys there are, and however few."""


@lru_cache(maxsize=64)
def _places(shape: torch.Size, width: int) -> tuple[torch.Tensor, ...]:
    """Indices of rows of a tensor of this shape, one tensor per axis."""
    count = shape.numel()
    chosen = (positions(count, width) * count).astype(np.int64)
    return tuple(torch.from_numpy(each) for each in np.unravel_index(chosen, tuple(shape))) if shape else ()


def _pick(tensor: torch.Tensor, places: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return tensor[tuple(each.to(tensor.device) for each in places)].float() if places else tensor[None].float()
