"""What biases add to the signal."""

from __future__ import annotations

import math

from . import activations
from .model import Kind, Layer, Use
from .stats import WeightStats

_EXCUSED = frozenset({Use.OUTPUT, Use.PRODUCT, Use.COORDINATE, Use.SOFTMAX})


def gives_data(layer: Layer) -> bool:
    """Its output is data for others: no prior, gate, offset or logit; and nothing takes its mean away again."""
    taken_away = layer.norm_after in (Kind.BATCH_NORM, Kind.INSTANCE_NORM)
    bounded = activations.get(layer.activation).bounded or layer.activation in activations.PERIODIC
    return not (taken_away or bounded or layer.kind.is_recurrent or layer.uses & _EXCUSED)


def passed_on(layer: Layer, bias: WeightStats) -> float:
    """Root mean square over units of what gets past the non-linearity: a ReLU stops negative biases."""
    if layer.dead_below is None or layer.norm_after is not None:
        return math.sqrt(bias.mean_square)
    return math.sqrt(sum(max(0.0, b) ** 2 for b in bias.values) / max(1, len(bias.values)))
