"""Numbers that several probes share: how many values a norm needs, what counts as an ensemble, or as drawn."""

from __future__ import annotations

NORM_SAMPLES = 16
"""Values per channel that a batch norm needs: the variance of 16 normal values is known to sqrt(2 / 15), a third."""

MAX_BATCH = 64
"""A batch is not raised beyond this for the sake of a norm: 8 times the usual one, and 8 times its memory."""

MEMBERS = 64
"""Longer axes are batches, positions, classes: no ensemble has as many members."""

SAMPLE = 64
"""Values of a weight that are looked at before all are compared."""

DRAWN = 0.75
"""Share of a sample of 64 values that are different: all, of a draw in float32; 60 in bfloat16; few of an identity."""
SHARE = 1e-4
"""Of the usual size of an output: two of them that differ by less are alike. Rounding leaves 1e-7 times a few dozens of
operations; healthy models and idioms were seen to begin at zero, which moves, or above 1e-2."""
