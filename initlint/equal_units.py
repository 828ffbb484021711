"""What becomes of layers whose units start equal: which neighbours, biases and norms tell them apart, or blow it up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from .kinds import Kind
from .model import Layer, Model, Tensor
from .stats import WeightStats

Stats = Mapping[str, WeightStats]

DROWNS = 5.0
"""drawn.md: of nets with two constant layers and drawn biases all train at 2 times these, none at 10 times."""

SOME = 0.25
"""Of a layer's units: as many as a group of four has; a few do not take the variance of all to nothing."""


def is_constant(stats: Stats, tensor: Tensor) -> bool:
    """One number throughout, in each packed part at least; zeros are another matter."""
    known = [stats.get(address) for address in tensor.part_addresses]
    return all(s is not None and s.count > 1 and s.constant and not s.all_zero for s in known)


def constant_neighbour(model: Model, stats: Stats, layer: Layer, tensor: Tensor) -> str:
    """Name of a layer next to it (or of its own other half, in a recurrence) whose weights are constant too."""
    if layer.recurrent is not None:
        other = layer.recurrent if tensor is layer.weight else layer.weight
        if is_constant(stats, other):
            return other.address
    near = (*model.maps_after(layer), *model.maps_before(layer))
    if any(each.bypassed for each in (layer, *near)):
        return ""  # shortcuts carry what tells the units apart: trainability.md, residual
    for each in near:
        if each.kind is not Kind.EMBEDDING and is_constant(stats, each.weight):
            return each.name
    return ""


def biases_tell_apart(stats: Stats, layer: Layer, constant: float) -> bool:
    """Whether the biases of units that all weigh their inputs by ``constant`` count beside what these share."""
    bias = stats.get(layer.bias.address) if layer.bias is not None else None
    return bias is not None and DROWNS * bias.std > abs(constant) * math.sqrt(layer.fan_in or 1)


def is_one_row(stats: Stats, tensor: Tensor) -> bool:
    """Whether all of its units are equal."""
    found = stats.get(tensor.address)
    return found is not None and tensor.view.units > 1 and found.duplicate_units >= tensor.view.units - 1


def divided_by_nothing(model: Model, stats: Stats, layers: Iterable[Layer]) -> bool:
    """Whether a norm divides by what equal units of a layer do not differ by, or units without weights not vary by: the
    first step ends that."""
    read = (layer for layer in layers if model.read_by_norms(layer))
    known = ((layer.weight.view.units, stats.get(layer.weight.address)) for layer in read)
    return any(s is not None and max(s.duplicate_units, s.zero_units) >= SOME * units for units, s in known)
