"""Fixes as changed weights: what a trial puts in place of what the file holds."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import schemes
from ..fans import fans
from ..fixes import Edit, Fill, Fix, edits_of
from ..measure import measure_all
from ..model import Model, Tensor, View
from ..stats import WeightStats

Chunks = Callable[[str], Iterable[NDArray[Any]]]
"""Rows (n, fan_in) of the canonical view of the tensor at an address, in order."""

MadeAnew = Callable[[Mapping[str, NDArray[np.float32]], Sequence[str]], Mapping[str, NDArray[Any]]]
"""Canonical rows of the computed weights at the addresses given last, with the tensors given first changed."""


def edited(model: Model, chunks: Chunks, edits: Sequence[Fix], seed: int) -> dict[str, NDArray[np.float32]]:
    """The canonical values (groups * units, fan_in) of every tensor that ``edits`` change, by its address.

    Advice changes nothing. Draws depend on the seed and on the address alone, not on the other edits. Raises KeyError
    for an address that is neither a tensor's nor a part's.
    """
    changed: dict[str, NDArray[np.float32]] = {}
    for edit in (edit for fix in edits for edit in edits_of(fix)):
        tensor = model.tensor(edit.tensor)
        if tensor is None:
            raise KeyError(edit.tensor)
        if tensor.address not in changed:
            pieces = [np.asarray(chunk, np.float32) for chunk in chunks(tensor.address)]
            changed[tensor.address] = np.concatenate(pieces).copy()
        _apply(edit, model, tensor, changed[tensor.address], seed)
    return changed


def edited_stats(
    model: Model, chunks: Chunks, edits: Sequence[Fix], seed: int, made_anew: MadeAnew | None = None
) -> dict[str, WeightStats]:
    """Statistics of the tensors that ``edits`` change, packed parts included, by address; and of the weights that are
    computed of these, for which ``made_anew`` is asked."""
    changed = edited(model, chunks, edits, seed)
    made = dependents(model, changed) if made_anew is not None else []
    if made_anew is not None and made:
        changed |= made_anew(changed, made)
    every = (*model.tensors, *model.leaves)
    return measure_all(model, lambda address: [changed[address]], [each for each in every if each.address in changed])


def dependents(model: Model, changed: Collection[str]) -> list[str]:
    """Addresses of the weights that are computed of what was ``changed``."""
    return [at for at, makers in model.makers.items() if any(maker.address in changed for maker in makers)]


def _apply(edit: Edit, model: Model, tensor: Tensor, values: NDArray[np.float32], seed: int) -> None:
    """Change the rows that the edit names in place; the parts of a packed tensor are drawn one by one."""
    whole = edit.tensor == tensor.address
    for index, address in enumerate(tensor.part_addresses):
        if not whole and address != edit.tensor:
            continue
        height = len(values) // len(tensor.part_addresses)
        rows = values[index * height : (index + 1) * height]
        if isinstance(edit, Fill):
            rows[:] = edit.value
            continue
        layer = model.owner(tensor.address)
        rng = np.random.default_rng((seed, zlib.crc32(address.encode(errors="surrogatepass"))))
        view = tensor.view if not tensor.parts else View(1, height, tensor.view.fan_in)
        rows[:] = schemes.draw(edit.scheme, view, fans(layer, tensor, address), edit.gain, rng)
