"""Weights that start at zero on purpose: what the first step wakes up, by where their output goes."""

from __future__ import annotations

from collections.abc import Mapping

from .deadlock import uses_at_the_end
from .kinds import Role, Use
from .model import Layer, Model, Tensor
from .stats import WeightStats

_IDIOMS = {
    Use.SUM: "it joins a sum, as the end of a residual branch or a shift does",
    Use.PRODUCT: "it is one factor of a product, as a gate is",
    Use.SOFTMAX: "it gives logits of a softmax, which start out uniform",
    Use.COORDINATE: "it gives offsets or coordinates, which start at the identity",
    Use.OUTPUT: "it is a head, which gets its gradient from the loss",
}


def zero_on_purpose(model: Model, layer: Layer, tensor: Tensor, stats: Mapping[str, WeightStats]) -> str:
    """As what ``tensor`` of ``layer`` starts at zero; empty where nobody does that."""
    uses = uses_at_the_end(model, layer, stats)
    idiom = next((text for use, text in _IDIOMS.items() if use in uses), "")
    if idiom and (Use.LAYER not in uses or layer.bypassed or Use.OUTPUT in layer.uses):
        return idiom
    if tensor.role is Role.RECURRENT_WEIGHT:
        return "the recurrence starts without memory and learns it"
    joins = tensor.role is Role.TABLE and layer.bypassed
    return "it joins another input, as a table of positions does" if joins else ""
