"""What rows of logits say of the softmax behind them. numpy alone: a few hundred rows stand for all."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .emit import Emitter
from .signals import SoftmaxSignal
from .taps import SoftmaxTap

ROWS = 256
"""Rows that are looked at per softmax: a mean entropy is then known to a sixteenth of its spread over rows."""

VALUES = 1 << 20
"""Fewer rows are looked at where they are longer than VALUES / ROWS: a vocabulary has 10^5 entries."""

SPREAD = 0.6180339887498949
"""Fractional parts of multiples of the golden section fill an interval evenly (Knuth, TAOCP 3, section 6.4), and so
keep step neither with heads nor with positions."""

_MASKED = -9e3
"""Masks are added as -1e4 or less (BERT's), or as minus infinity."""

_MASK_RATIO = 20.0
"""A mask lies this much farther below zero than any logit above: logits themselves have no side."""


def positions(rows: int, width: int) -> NDArray[np.float64]:
    """Which rows to look at, as shares of their number; ``width`` may be 0 for unknown."""
    count = min(ROWS, max(1, VALUES // max(1, width)), max(1, rows))
    shares: NDArray[np.float64] = np.mod(np.arange(count, dtype=np.float64) * SPREAD, 1.0)
    return shares


def signal_of(tap: SoftmaxTap, logits: NDArray[Any]) -> SoftmaxSignal | None:
    """Statistics of ``logits`` (rows, entries); None where no row has two entries to choose from."""
    values = logits.astype(np.float64)
    with np.errstate(all="ignore"):
        finite = np.isfinite(values)
        top = max(0.0, float(values.max(where=finite, initial=0.0)))
        masked = values < min(_MASKED, -_MASK_RATIO * top)
        lengths = (~masked).sum(axis=1)
        usable = (lengths > 1) & (finite | masked).all(axis=1)
        if not usable.any():
            return None
        values, masked, lengths = values[usable], masked[usable], lengths[usable]
        peak = np.where(masked, -np.inf, values).max(axis=1, keepdims=True)
        shifted = np.where(masked, -np.inf, values - peak)
        weights = np.exp(shifted)
        total = weights.sum(axis=1)
        below = np.where(masked, 0.0, shifted)
        entropy = np.log(total) - (weights * below).sum(axis=1) / total
        excess = np.log(total) - below.sum(axis=1) / lengths - np.log(lengths)
        largest = 1.0 / total
    return SoftmaxSignal(
        layers=tap.layers,
        attention=tap.attention,
        at_output=tap.at_output,
        rows=int(usable.sum()),
        length=float(lengths.mean()),
        entropy=float((entropy / np.log(lengths)).mean()),
        certain=float((1.0 - largest < CERTAIN).mean()),
        excess=float(excess.mean()),
        joining=tap.joining,
    )


CERTAIN = 1e-3
"""A row that leaves less than this to all other entries hands back a thousandth of the gradient of an even one."""


def write(emit: Emitter, tap: SoftmaxTap, shape: tuple[int | None, ...] | None) -> str | None:
    """Write nodes that pick rows of the logits; None where it is not known which axis is theirs."""
    value, axis = tap.value, tap.axis
    rank = len(shape) if shape is not None else None
    if not tap.flattens and axis != -1:
        if rank is None:
            return None
        axis %= rank
        if axis != rank - 1:
            order = [each for each in range(rank) if each != axis] + [axis]
            value = emit.op("Transpose", value, perm=order)
        axis = rank - 1
    width = shape[axis] if shape is not None and not tap.flattens else None
    rows = emit.op("Flatten", value, axis=axis)
    shares = emit.constant(positions(ROWS, width or VALUES // ROWS).astype(np.float32))
    count = emit.op("Gather", emit.op("Shape", rows), emit.ints(0))
    places = emit.op("Floor", emit.op("Mul", shares, emit.to_float(count)))
    return emit.to_float(emit.op("Gather", rows, emit.op("Cast", places, to=_INT64), axis=0))


_INT64 = 7
"""``TensorProto.INT64``."""
