"""What biases add to the signal."""

from __future__ import annotations

import math
from statistics import median

from . import activations
from .kinds import Kind, Use
from .model import Layer, Model
from .stats import WeightStats

_CENTRING = frozenset({Kind.LAYER_NORM, Kind.GROUP_NORM, Kind.BATCH_NORM, Kind.INSTANCE_NORM})
ALIKE = 0.1
"""Biases that differ by less than a tenth of their size leave a hundredth of their power."""
NORMAL_MEDIAN = 0.6745
"""Of the absolute value of a standard normal."""
_EXCUSED = frozenset({Use.OUTPUT, Use.PRODUCT, Use.COORDINATE, Use.SOFTMAX})


def gives_data(layer: Layer) -> bool:
    """Its output is data for others: no prior, gate, offset or logit; and nothing takes its mean away again."""
    taken_away = layer.norm_after in (Kind.BATCH_NORM, Kind.INSTANCE_NORM)
    bounded = activations.get(layer.activation).bounded or layer.activation in activations.PERIODIC
    return not (taken_away or bounded or layer.kind.is_recurrent or layer.uses & _EXCUSED)


def passed_on(layer: Layer, bias: WeightStats) -> tuple[float, float]:
    """What gets past the non-linearity, a ReLU stopping negative biases: its root mean square over units, and what
    would be that if all were like most of them, of which a few loud ones make no difference.
    """
    stops = layer.dead_below is not None and layer.norm_after is None
    passed = [max(0.0, each) if stops else abs(each) for each in bias.values] or [math.sqrt(bias.mean_square)]
    return math.sqrt(sum(each**2 for each in passed) / len(passed)), median(passed) / NORMAL_MEDIAN


def is_taken_away(model: Model, layer: Layer, bias: WeightStats) -> bool:
    """Whether its biases are all alike, and norms alone read them that take the mean of the units away."""
    behind = [each.kind for each in model.consumers(layer)]
    reaches = layer.norm_after is not None or layer.activation == "identity"
    centred = reaches and bool(behind) and all(kind in _CENTRING for kind in behind)
    return centred and bias.std < ALIKE * math.sqrt(bias.mean_square)
