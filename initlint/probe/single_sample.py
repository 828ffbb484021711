"""Where one sample was given: what never differs within a batch looks like what the input cannot change.

Others are then drawn from the values of the given one, entry by entry, so that a range is kept (an image in [0, 1], ids
of a vocabulary). Where nothing tells how a second sample would differ from the first, none is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model import NotChecked

Array = NDArray[Any]

WORK = 1e9
"""Products that a forward of the larger batch may come to: a tenth of a second at 1e10 a second, as slow cores do."""

VALUES = 1e7
"""Values that all operations of the larger batch may come to, 40 MB: a tenth of a second for a few times of reading."""


@dataclass(frozen=True)
class Work:
    """What a run of one sample did at its layers."""

    single: int
    """Layers that gave one value per unit."""
    weights: int
    """Entries of all layers' weights."""
    products: int
    """Of an entry of a weight with a value."""
    values: int
    """Of all operations, and of the inputs."""

    def allows(self, batch: int) -> bool:
        """Whether a larger batch is needed and cheap: there is little to do, or most of it is to read the weights."""
        short = batch * self.products <= WORK or self.products <= 2 * self.weights
        return self.single > 0 and short and batch * self.values <= VALUES


def tells_others(values: Array) -> bool:
    """Whether they show what another sample's would be: numbers of more than two values (a mask has two), or ids."""
    return len(np.unique(values)) > 2 if values.dtype.kind == "f" else int(values.max()) > 0


def drawn_like(sample: Array, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Values of the sample in another order; where it has one only, standard normal, or whole numbers up to it."""
    values = sample.reshape(-1)
    if (values != values[0]).any():
        return values[generator.integers(0, values.size, shape)]
    if sample.dtype.kind == "f":
        return generator.standard_normal(shape, np.float32).astype(sample.dtype)
    return generator.integers(0, max(1, int(values[0]) + 1), shape).astype(sample.dtype)


def remark(added: int) -> NotChecked:
    """What the report says of samples that were drawn."""
    said = "one sample was given, which does not show what depends on the input"
    done = f"{added} more were drawn from its values; give two or more to have real ones probed"
    return NotChecked("inputs", f"{said}: {done}")
