"""The signal by depth in one line: a sparkline of log10 of its standard deviation, in execution order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from ..report import LayerRow
from .layout import Signs
from .wording import number

_LEAST_DECADES = 2.0
"""The sparkline spans at least this many decades, so that a healthy net looks flat instead of rugged."""

_ZERO, _BROKEN = "0", "!"


def profile(rows: Sequence[LayerRow], width: int, signs: Signs) -> str | None:
    """As in "▁▂▅█  std 0.98 to 2.1e4 (log scale)", in at most ``width`` columns.

    None where fewer than two layers were measured. A signal without variance shows as 0, a non-finite one as "!".
    """
    stds = [row.signal.std for row in rows if row.signal is not None]
    if len(stds) < 2:
        return None
    span = _span([std for std in stds if math.isfinite(std) and std > 0])
    return f"{sparkline(stds, max(width - len(span) - 2, 8), signs.levels)}  {span}"


def _span(stds: Sequence[float]) -> str:
    if not stds:
        return "no finite, varying signal"
    low, high = number(min(stds)), number(max(stds))
    return f"std {low} to {high} (log scale)" if low != high else f"std {low} throughout"


def sparkline(values: Sequence[float], width: int, levels: str) -> str:
    """One sign per value on a logarithmic scale; runs of neighbours share one sign where ``width`` is short."""
    bins = _binned(values, width)
    logs = [math.log10(value) for value in bins if math.isfinite(value) and value > 0]
    middle = (max(logs) + min(logs)) / 2 if logs else 0.0
    half = max(max(logs) - min(logs), _LEAST_DECADES) / 2 if logs else 1.0

    def sign(value: float) -> str:
        if not math.isfinite(value):
            return _BROKEN
        if value <= 0:
            return _ZERO
        share = (math.log10(value) - middle + half) / (2 * half)
        return levels[min(int(share * len(levels)), len(levels) - 1)]

    return "".join(sign(value) for value in bins)


def _binned(values: Sequence[float], width: int) -> list[float]:
    """At most ``width`` values: geometric means of neighbours, but a zero or non-finite one decides its bin."""
    if len(values) <= width:
        return list(values)
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    return [_together(values[low:high]) for low, high in pairwise(edges)]


def _together(values: Sequence[float]) -> float:
    odd = [value for value in values if not math.isfinite(value) or value <= 0]
    return odd[0] if odd else math.exp(math.fsum(math.log(value) for value in values) / len(values))
