"""How many values a norm needs, and how far a batch is raised for its sake."""

from __future__ import annotations

NORM_SAMPLES = 16
"""Values per channel that a batch norm needs: the variance of 16 normal values is known to sqrt(2 / 15), a third."""

MAX_BATCH = 64
"""A batch is not raised beyond this for the sake of a norm: 8 times the usual one, and 8 times its memory."""
