"""Learned scales on the way of all of the signal: ``g * relu(fc(x))`` with a parameter g."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .fixes import Fill, Several
from .kinds import Role, Source
from .model import Model, Tensor
from .paths import PlainPath
from .stats import WeightStats


@dataclass(frozen=True)
class QuietScales:
    """Scales below one."""

    first: Tensor
    product: float
    """Of those in front of the hidden layers."""
    fix: Several
    """Sets all of them to one."""


def quiet_scales(model: Model, path: PlainPath, stats: Mapping[str, WeightStats]) -> QuietScales | None:
    """Those along ``path``; None without any.

    What one that leads into a sum makes small (LayerScale, ReZero) comes by another way.
    """
    inner = {layer.name for layer in path.layers if layer.input_source is not Source.SUM}
    hidden = {layer.name for layer in path.hidden}
    found: dict[str, Tensor] = {}
    product = 1.0
    for factor in model.factors:
        tensor, known = model.tensor(factor.address), stats.get(factor.address)
        if factor.function != "identity" or tensor is None or known is None or tensor.role is not Role.OTHER:
            continue
        free = tensor.trainable and tensor.address not in model.uneditable
        if free and factor.consumers and inner.issuperset(factor.consumers) and 0.0 < known.mean_square < 1.0:
            found[tensor.address] = tensor
            product *= math.sqrt(known.mean_square) if hidden.issuperset(factor.consumers) else 1.0
    if not found:
        return None
    return QuietScales(next(iter(found.values())), product, Several(tuple(Fill(address, 1.0) for address in found)))
