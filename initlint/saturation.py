"""What carries the units in front of a bounded non-linearity out to where it is flat."""

from __future__ import annotations

import math
from collections.abc import Mapping

from .fixes import Edit, Fill
from .model import Layer, Model, Tensor
from .probe.signals import LayerSignal
from .redraw import fresh
from .stats import WeightStats


def held_flat(
    model: Model, stats: Mapping[str, WeightStats], layer: Layer, signal: LayerSignal, far: float
) -> tuple[Tensor, Edit]:
    """The bias where its rms is beyond ``far`` and larger than what depends on the input, else the weight; its fix."""
    bias = stats.get(layer.bias.address) if layer.bias is not None else None
    if layer.bias is not None and bias is not None:
        rms = math.sqrt(bias.mean_square)
        if rms > far and rms > signal.std:
            return layer.bias, Fill(layer.bias.address, 0.0)
    if layer.kind.is_norm:
        return layer.weight, Fill(layer.weight.address, 1.0)
    return layer.weight, fresh(model, layer.weight)
