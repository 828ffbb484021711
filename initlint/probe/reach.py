"""Where non-linearities are exactly flat in float32, and how far from there a value is out of reach for every batch.

A flat non-linearity passes no gradient where its input lies beyond the edge of its flat part. Whether another batch
would get there is a question of distance: where even the nearest of all its values lies several standard deviations of
these values away from the edge, it is off for good. A spread below one counts as one: a layer's values grow to that
while others in front of it learn, as behind a signal that starts out faint; and what no input changes (a mixture's
logits, a scalar gate) has no spread over batches, but moves by as much.
"""

from __future__ import annotations

import math

SLOPE = 1e-2
"""Given to what is off: enough for a gradient that is no rounding, too little to matter where there is one."""
OUT_OF_REACH = 4.0
"""Standard deviations between the edge and the nearest value; as ``certain_deviations`` of dead-relu-bias. The mean is
twice as far away in a layer of any size, so that inputs twice as loud as the probe's do not reach the edge either."""
USUAL = 1.0
"""Standard deviation of values in front of a non-linearity that all schemes aim at."""
FEWEST = 8
"""Values that tell a spread: with 7 degrees of freedom one in a hundred is told less than half as wide as it is."""

ROUNDING = 1e-4
"""Of the largest output: what cancels in it may be a thousand times as large, and is rounded by 1e-7 of that."""

Edges = tuple[float, float]
"""Between them a function has a slope; beyond them its slope is exactly zero."""

UNDERFLOW = 104.0
"""exp(-z) is zero in float32 beyond, subnormal numbers included."""
SIGMOID: Edges = (-UNDERFLOW, 17.4)
"""Above, 1 + exp(-z) rounds to 1."""
TANH: Edges = (-9.1, 9.1)
"""Beyond, it rounds to 1, and 1 - tanh^2 to zero."""
GELU: Edges = (-14.5, math.inf)
"""Below, z exp(-z^2 / 2) is zero."""
EXPONENTIAL: Edges = (-UNDERFLOW, math.inf)
RECTIFIER: Edges = (0.0, math.inf)
