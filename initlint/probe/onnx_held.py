"""``redrawn`` in a graph: what other parameters hold, where the outputs do not depend on any input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .payload import Array
from .reach import ROUNDING
from .weights import normal

if TYPE_CHECKING:
    from .onnx_liveness import Case, Search
    from .tangents import TangentRuns

_DRAWS = 2
"""Of all parameters; in the first one all levels, scales and shifts are positive, as most are."""


def held_by_others(search: Search, cases: Sequence[Case], before: Sequence[Mapping[str, Array]]) -> set[Case]:
    """Which of ``cases`` move an output once all that is trained is drawn anew, if it takes that for inputs to matter.

    ``before`` are the outputs of every batch as they were.
    """
    if not cases or _differ(before):
        return set()
    addresses = [each for each in sorted(search.trained) if search.weights.name(each) in search.setup.graph.known]
    search.begin(addresses)
    runs, values = search.ajar(), dict(search.weights.overrides)
    try:
        return _moved_if_drawn(search, runs, addresses, cases)
    finally:
        search.weights.overrides.update(values)


def _moved_if_drawn(search: Search, runs: TangentRuns, addresses: Sequence[str], cases: Sequence[Case]) -> set[Case]:
    for number in range(_DRAWS):
        for address in addresses:
            rows = search.weights.rows(address)
            drawn = normal(rows.shape, 1 / math.sqrt(search.fan_in.get(address, 1)), address, "held", number)
            positive = number == 0 and rows.shape[1] == 1
            search.weights.overrides.update(search.weights.stored(address, np.abs(drawn) if positive else drawn))
        if _differ([search.outputs_of(runs, batch) for batch in search.batches]):
            return {case for batch in search.batches for case in search.movers(runs, cases, batch, f"held {number}")}
    return set()


def _differ(runs: Sequence[Mapping[str, Array]]) -> bool:
    """Whether some output differs between batches by more than rounding."""
    if not runs:
        return False
    first, *others = runs
    return any(not _agree(first[name], each[name]) for each in others for name in first)


def _agree(one: Array, other: Array) -> bool:
    if one.shape != other.shape or not one.size:
        return bool(np.array_equal(one, other))
    largest = float(np.abs(one).max())
    return bool(np.allclose(one, other, rtol=0.0, atol=ROUNDING * largest if math.isfinite(largest) else 0.0))
