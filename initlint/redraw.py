"""How the book would initialise a layer: what fixes suggest, and what the twin of a suspicious model is made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

from . import activations
from .fixes import Edit, Fill, Reinit, Several
from .kinds import Role, Source, Use
from .model import Layer, Model, Tensor
from .stats import WeightStats

NO_STATS: Mapping[str, WeightStats] = MappingProxyType({})
TABLE_STD = 0.02
"""Radford et al. 2018 (GPT), section 4.1: embeddings, and every other weight, from N(0, 0.02^2)."""
STEEP = 2.0
"""What is steeper than this is no rectifier's scale but a frequency, or a temperature."""
SHIFTS = (Role.BIAS, Role.RECURRENT_BIAS, Role.SHIFT)
RUNNING = {"running_mean": Role.RUNNING_MEAN, "running_var": Role.RUNNING_VARIANCE}
"""PyTorch's names: a module that was probed on batch statistics shows no other sign of what the buffers are for."""
CERTAIN = 0.9
"""How sure it has to be that values are drawn by a scheme: one case in ten of another one costs another sane draw."""
REPEATED = (
    "pytorch_default",
    "he_normal",
    "he_uniform",
    "lecun_normal",
    "xavier_normal",
    "xavier_uniform",
    "orthogonal",
)
"""Schemes that PyTorch has a function for."""
FAR = 10.0
"""A scale, a temperature or a token is far above order one beyond a decade."""


def redrawn(model: Model, layers: Iterable[Layer], stats: Mapping[str, WeightStats] = NO_STATS) -> Several | None:
    """A fix that draws the weights of ``layers`` anew; None where there are none to draw.

    Biases are left as they are, but for those whose rms, by ``stats``, exceeds the 1 that fresh weights give.
    """
    drawn = list(layers)
    edits = [edit for layer in drawn for edit in _weights(model, layer)]
    biases = [layer.bias.address for layer in drawn if layer.bias is not None and layer.bias.address in stats]
    edits += [Fill(address, 0.0) for address in biases if edits and stats[address].mean_square > 1.0]
    return Several(tuple(dict.fromkeys(edits))) if edits else None


def twin(model: Model, layers: Iterable[Layer], by_the_book: bool = True) -> tuple[Edit, ...]:
    """Everything in ``layers`` drawn anew, biases zero, norms at one and zero.

    Weights as ``recommended`` has it; or all as PyTorch's default, which is right where many quiet layers add up.
    """
    edits = [edit for layer in layers for edit in (*_weights(model, layer, by_the_book), *_constants(layer))]
    return tuple(dict.fromkeys(edits))


def fresh(model: Model, tensor: Tensor) -> Edit:
    """How a single tensor starts by the book: weights and tables drawn, gains and variances one, the rest zero."""
    layer = model.owner(tensor.address)
    if layer is not None and tensor.role in (Role.WEIGHT, Role.RECURRENT_WEIGHT, Role.TABLE):
        return recommended(model, layer, tensor)
    return Fill(tensor.address, 1.0 if named_role(tensor) in (Role.GAIN, Role.RUNNING_VARIANCE) else 0.0)


def again(model: Model, tensor: Tensor, stats: WeightStats | None) -> Edit:
    """Another draw by the scheme that the values show; ``fresh`` where they show none."""
    edit = fresh(model, tensor)
    if not isinstance(edit, Reinit) or stats is None or stats.scheme_confidence < CERTAIN:
        return edit
    name, _, fan = stats.scheme.partition("(")
    if name == "normal" or (tensor.parts and name in REPEATED):  # of the fans of the whole, which no part has
        return Reinit(tensor.address, "normal", float(f"{stats.std:.3g}"))
    return Reinit(tensor.address, name) if name in REPEATED and fan in ("", "fan_in)") else edit


def named_role(tensor: Tensor) -> Role:
    """What ``tensor`` does; by its name, where only the name tells running statistics from any other buffer."""
    return tensor.role if tensor.trainable else RUNNING.get(tensor.address.rpartition(".")[2], tensor.role)


def fresh_at(model: Model, tensor: Tensor, address: str) -> Edit:
    """The same for a packed part of ``tensor``, or for all of it."""
    return replace(fresh(model, tensor), tensor=address)


def recommended(model: Model, layer: Layer, tensor: Tensor | None = None) -> Reinit:
    """How to draw a weight of ``layer`` (its main one by default).

    Recurrent weights are orthogonal (Saxe et al. 2014). In front of a bounded non-linearity Xavier's variance keeps
    the signal where the slope is, times 1 over the slope at zero (1 for tanh, 4 for the sigmoid; Glorot & Bengio
    2010, section 4.2.1), gates and outputs apart. In front of a steep sine w0 divides He's bound, but in the first
    layer, which has its own (Sitzmann et al. 2020, section 3.2), and Xavier's in front of whatever else is steep.
    Everything else gets He's, which makes up for rectifiers (He et al. 2015, equation 10). What joins a sum without a
    normalisation is divided by the root of the number of such sums, so that they add up to the scale of one (Radford
    et al. 2019, section 2.3); one that is called n times adds the same direction each time, and is divided by n, as
    the steps of an integration are (Chen et al. 2018, arXiv:1806.07366, equation 1).
    """
    tensor = tensor or layer.weight
    if tensor.role is Role.TABLE:
        return Reinit(tensor.address, "normal", TABLE_STD)
    if tensor.role is Role.RECURRENT_WEIGHT:
        return Reinit(tensor.address, "orthogonal")
    if layer.kind.is_recurrent:
        return Reinit(tensor.address, "xavier_normal")
    behind = activations.get(layer.activation)
    if behind.bounded:
        alone = not layer.uses & {Use.PRODUCT, Use.OUTPUT}
        slope = behind.slope(0.0) * _steeper(model, layer)
        return Reinit(tensor.address, "xavier_normal", round(1 / max(slope, 0.1), 2) if alone else 1.0)
    if Use.SUM in layer.uses and layer.bypassed and layer.norm_after is None:
        sums = sum(Use.SUM in each.uses and each.bypassed and each.norm_after is None for each in model.layers)
        return Reinit(tensor.address, "xavier_normal", round(1 / (math.sqrt(sums) * layer.calls), 3))
    if (steeper := _steeper(model, layer)) > STEEP:
        if layer.activation in activations.PERIODIC and layer.fan_in:
            first = layer.input_source is Source.INPUT  # it turns coordinates into waves of up to w0 / 2 pi periods
            std = 1 / (layer.fan_in * math.sqrt(3)) if first else math.sqrt(2 / layer.fan_in) / steeper
            return Reinit(tensor.address, "normal", float(f"{std:.2g}"))
        return Reinit(tensor.address, "xavier_normal", float(f"{1 / steeper:.2g}"))
    return Reinit(tensor.address, "he_normal")


def _steeper(model: Model, layer: Layer) -> float:
    """How many times as steep at zero as its name says what stands behind ``layer`` is, as a sine of 30 z."""
    named = activations.get(layer.activation).slope(0.0)
    readers = [each for each in map(model.layer, layer.consumers) if each.producers == (layer.name,)]
    slopes = [each.input_function.slope(0.0) for each in readers if each.input_activation == layer.activation]
    return slopes[0] / named if slopes and named > 0.0 else 1.0


def tamed(model: Model, stats: Mapping[str, WeightStats]) -> tuple[Edit, ...]:
    """Of order one, what no map owns (a scale, a slope, a token) and is far above it; small is meant (LayerScale)."""
    free = (tensor for tensor in model.tensors if tensor.role not in SHIFTS)
    edits = (tame(model, tensor, stats.get(tensor.address)) for tensor in free)
    return tuple(edit for edit in edits if edit is not None)


def tame(model: Model, tensor: Tensor, found: WeightStats | None, far: float = FAR) -> Edit | None:
    """The same for one tensor, a bias included; None where it is of usual size, a map's weight, or cannot be set."""
    if found is None or not is_far(model, tensor, found, far):
        return None
    if tensor.role in SHIFTS:
        return Fill(tensor.address, 0.0)
    if found.min != found.max:
        return Reinit(tensor.address, "normal", 1.0)
    return Fill(tensor.address, math.copysign(1.0, found.mean))


def tame_all(model: Model, stats: Mapping[str, WeightStats], addresses: Iterable[str], far: float) -> Several | None:
    """One fix for those of ``addresses`` that are ``far`` above order one; None where none is."""
    tensors = [tensor for each in addresses if (tensor := model.tensor(each)) is not None]
    edits = [edit for each in tensors if (edit := tame(model, each, stats.get(each.address), far)) is not None]
    return Several(tuple(edits)) if edits else None


def is_far(model: Model, tensor: Tensor, found: WeightStats | None, far: float = FAR) -> bool:
    """Whether a bias, or what no map owns, is ``far`` above order one."""
    free = tensor.trainable and tensor.role in (Role.OTHER, Role.SLOPE, *SHIFTS)
    return free and found is not None and found.mean_square > far**2 and tensor.address not in model.uneditable


def _weights(model: Model, layer: Layer, by_the_book: bool = True) -> Iterator[Edit]:
    if layer.kind.is_map or layer.kind.is_recurrent:
        for tensor in (layer.weight, layer.recurrent):
            if tensor is not None and tensor.trainable and not model.is_sealed(tensor.address):
                plain = by_the_book or tensor.role is not Role.WEIGHT
                yield recommended(model, layer, tensor) if plain else Reinit(tensor.address, "pytorch_default")


def _constants(layer: Layer) -> Iterator[Edit]:
    if layer.kind.is_norm:
        yield Fill(layer.weight.address, 1.0)
    for tensor in (layer.bias, layer.recurrent_bias):
        if tensor is not None and tensor.trainable:
            yield Fill(tensor.address, 0.0)
