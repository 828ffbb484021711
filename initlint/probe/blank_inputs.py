"""Inputs that hold nothing but zeros: they tell a shape, and are no data.

Many an example input is written ``torch.zeros(1, 3, 224, 224)``. What multiplies a zero gets no gradient, so that a
healthy first layer would look as if it could never learn, and so would all behind it that has no bias.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..model import NotChecked

MASK_NAME = re.compile(r"mask")
"""Additive masks of zeros let all through: they are what they say."""


def blank(numbers: Mapping[str, bool], ids: Mapping[str, bool]) -> list[str]:
    """Names of the inputs to draw anew. By name: whether it holds zeros only; ``numbers`` are floats, ``ids`` rows.

    An empty state beside data is real, as is a second table's row 0; so either all of a kind are blank, or none is.
    """
    return [name for kind in (numbers, ids) if all(kind.values()) for name in kind]


def remark(names: Sequence[str]) -> NotChecked:
    """What the report says of inputs that were drawn anew."""
    several = len(names) > 1
    said = f"the given {', '.join(names)} {'hold' if several else 'holds'} nothing but zeros"
    why = "which tells a shape and is no data (what multiplies a zero gets no gradient)"
    done = f"random values were drawn in {'their' if several else 'its'} place; give real samples to have those probed"
    return NotChecked("inputs", f"{said}, {why}: {done}")
