"""What computed weights are made of, as a model names it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Maker:
    """A stored tensor that a computed weight is made of."""

    address: str
    factor: bool
    """All of the weight is multiplied by it: its zero makes all of that zero."""
    linear: bool
    """It is trained, and the weight grows with it, but for what is added."""


STORED = " (stored)"
"""Sets a parameter apart from the computed weight that goes by its name, in addresses of ``Model.leaves``."""


def plain(address: str) -> str:
    """What the model itself calls the tensor."""
    return address.removesuffix(STORED)
