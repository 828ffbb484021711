"""Whether a fix leaves less of the inputs in the signal than there was: some things are loud together or not at all.

A table of N(0, 1000) beside positions of the same size trains, if slowly; brought back to its usual size alone, it is
drowned by them.
"""

from __future__ import annotations

import math

from .probe.signals import LayerSignal, Signals

MUCH = 0.1
LITTLE = 3e-3
"""Of what a norm gives, differs from sample to sample: nets fail with SGD below the former, below the latter with both
optimisers (``benchmarks/results/calibrate_positions.md``)."""


def is_drowned(before: Signals, after: Signals) -> bool:
    """Whether somewhere much of the signal depended on the inputs, and little does with the fix."""
    return any(
        _share(signal) >= MUCH and name in after.layers and _share(after.layers[name]) < LITTLE
        for name, signal in before.layers.items()
    )


def _share(signal: LayerSignal) -> float:
    """What differs from sample to sample at the same place, of all; NaN where that was not looked at."""
    known = math.isfinite(signal.sample_std) and 0.0 < signal.rms < math.inf
    return signal.sample_std / signal.rms if known else math.nan
