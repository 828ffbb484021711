"""Gates that are shut, and what of the signal is left behind them.

A gate is a layer whose output, behind a function that ends at zero (a sigmoid, a softplus, an exponential), multiplies
something: then neither what it multiplies nor the gate itself gets more of the gradient than it lets through. What is
left is measured where all of the signal passes next: at a layer without a way around it, at a norm, at the outputs. A
skip connection, a carry gate or a second open gate shows there, whatever the wiring in between.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from . import activations
from .fixes import Edit, Fill
from .kinds import Kind, Use
from .model import Layer, Model, Tensor
from .probe.signals import LayerSignal, Signals
from .redraw import fresh
from .stats import WeightStats

SHUT = 0.05
"""A unit that lets less through for all but 2 % of the inputs (two standard deviations) counts as shut. Highway nets
start at 0.05 to 0.12 (biases of -3 to -2; Srivastava et al. 2015, arXiv:1505.00387, section 4.1)."""

PACKED = 0.2
"""The least share of units that are shut: one projection of four may be the gate, as of an LSTM written by hand."""

WHOLE = 0.9
"""Of the units: what the others let through trains, and moves what is in front of all of them."""


HOLDING = {Kind.LSTM: {"i": -1.0, "o": -1.0}, Kind.GRU: {"z": 1.0}}
"""Parts of a recurrent bias that hold back what comes in, and the sign with which they do."""

REMEMBERED = 1e-5
"""What takes in less per step, and forgets as little, is meant for sequences of more than 10^5 steps, which nobody has:
chrono initialisation takes in one over the number of steps (Tallec & Ollivier 2018, arXiv:1804.11188, section 2)."""


@dataclass(frozen=True)
class Gate:
    """A layer that is a gate and shut, a recurrence with one, or a learned factor."""

    at: Tensor | str
    """What is to blame."""
    openness: float
    """What the median of the units that are shut lets through."""
    edits: tuple[Edit, ...]
    """What would open it."""
    consumers: tuple[str, ...]
    """The next layers behind it."""
    within: str = ""
    """The recurrence inside which it is."""
    alone: bool = True
    """It gets no gradient but through what it multiplies."""
    whole: bool = True
    """Hardly a unit of it is open."""

    def is_before(self, model: Model, layer: Layer) -> bool:
        """Whether what it lets through gets to ``layer``, or comes out of it."""
        ahead = any(name == layer.name or model.is_upstream(name, layer.name) for name in self.consumers)
        return ahead or self.within == layer.name


@dataclass(frozen=True)
class Held:
    """Gates one behind or beside the other, and what is left behind the last one."""

    gates: tuple[Gate, ...]
    left: float
    """Spread over different inputs behind them over that in front, or over 1 where that is larger."""
    behind: str
    """The layer before which ``left`` was measured; empty for the outputs."""

    @property
    def openness(self) -> float:
        return min(gate.openness for gate in self.gates)

    @cached_property
    def first(self) -> Gate:
        """The first one that is about as shut as the worst (half as far on a log scale)."""
        return next(gate for gate in self.gates if gate.openness <= math.sqrt(self.openness))


def shut(model: Model, signals: Signals, stats: Mapping[str, WeightStats]) -> list[Gate]:
    """All gates that start shut."""
    return [*_layers(model, signals, stats), *_factors(model, stats)]


def held_back(model: Model, signals: Signals, stats: Mapping[str, WeightStats], gates: Sequence[Gate]) -> Held | None:
    """What the shut ``gates`` leave of all of the signal; None without any, or where something leads around them."""
    if not gates:
        return None
    held: Held | None = None
    before: Layer | None = None
    for layer in model.layers:
        arrives = _arrives(layer, signals, stats)
        if layer.bypassed or arrives is None or (before is not None and not model.is_upstream(before.name, layer.name)):
            continue
        mine = [gate for gate in gates if _lies_between(model, gate, before, layer)]
        signal = signals.layers[layer.name]
        if layer.kind.is_norm:
            passed = (*(held.gates if held is not None else ()), *mine)
            held = Held(passed, _certain(arrives, signal, passed), layer.name) if passed else None
        elif mine:
            left = _certain(arrives / _reference(before, signals), signal, mine)
            held = _further(held, mine, left, layer.name)
        before = layer
    if before is None or Use.OUTPUT not in before.uses:
        mine = [gate for gate in gates if _lies_between(model, gate, before, None)]
        loudest = max(signals.outputs.values(), key=lambda each: each.std, default=None)
        if mine and loudest is not None and math.isfinite(loudest.std) and not _gives_probabilities(model):
            left = _certain(loudest.std / _reference(before, signals), loudest, mine)
            held = _further(held, mine, left, "")
    return held if held is not None and held.left <= math.sqrt(held.openness) else None


def _further(held: Held | None, gates: Sequence[Gate], left: float, behind: str) -> Held:
    passed, so_far = (held.gates, held.left) if held is not None else ((), 1.0)
    return Held((*passed, *gates), so_far * min(1.0, left), behind)


def _gives_probabilities(model: Model) -> bool:
    """The outputs are products of probabilities, as of an object times that of its class: a prior may make them small,
    and the logarithm in their loss takes the factor back."""
    last = [layer for layer in model.layers if Use.PRODUCT in layer.uses and not layer.consumers]
    return all(layer.gate or layer.activation == "softmax" for layer in last)


def _certain(left: float, signal: LayerSignal, gates: Sequence[Gate]) -> float:
    """``left``, or what the gates let through where no more than rounding is left of the signal."""
    return min(left, *(gate.openness for gate in gates)) if signal.is_rounding else left


def _lies_between(model: Model, gate: Gate, before: Layer | None, after: Layer | None) -> bool:
    """Behind ``before`` and in front of ``after``, or of the outputs."""
    ahead = before is not None and gate.is_before(model, before)
    return not ahead and (after is None or gate.is_before(model, after))


def _reference(before: Layer | None, signals: Signals) -> float:
    """What enters; a loud signal is no scale that later layers would have to keep."""
    known = signals.layers[before.name].std if before is not None else signals.input_rms or 1.0
    return min(1.0, known) if known > 0.0 else 1.0


def _arrives(layer: Layer, signals: Signals, stats: Mapping[str, WeightStats]) -> float | None:
    """Spread over different inputs of what enters a map, or of what a norm or a recurrence makes of it.

    None where it does not show: the layer was not measured, is zero, or a norm behind it makes up for its scale.
    """
    signal, weight = signals.layers.get(layer.name), stats.get(layer.weight.address)
    if signal is None or weight is None or not math.isfinite(signal.std) or not 0.0 < weight.mean_square < math.inf:
        return None
    if layer.kind.is_recurrent:
        return signal.std
    if layer.kind.is_norm:
        return signal.std / math.sqrt(weight.mean_square)
    if layer.kind.is_map and layer.norm_after is None:
        return signal.std / math.sqrt((layer.fan_in or 1) * weight.mean_square)
    return None


# -- gates -----------------------------------------------------------------------------------------------------------


def _layers(model: Model, signals: Signals, stats: Mapping[str, WeightStats]) -> Iterator[Gate]:
    for layer in model.layers:
        gate = _recurrent(layer, stats) if layer.kind in HOLDING else _layer(model, layer, signals, stats)
        if gate is not None:
            yield gate


def _layer(model: Model, layer: Layer, signals: Signals, stats: Mapping[str, WeightStats]) -> Gate | None:
    signal = signals.layers.get(layer.name)
    if signal is None or Use.PRODUCT not in layer.uses or not layer.gate or not layer.gate_reads.known:
        return None
    means = _shut(layer, signal)
    if not means or len(means) < PACKED * len(signal.unit_mean):
        return None
    function, reads = activations.get(layer.gate), layer.gate_reads
    at, edit = _blame(model, layer, median(means), stats)
    openness = median(function(reads(mean)) for mean in means)
    whole = len(means) >= WHOLE * len(signal.unit_mean)
    return Gate(at, openness, (edit,), layer.consumers, alone=Use.OUTPUT not in layer.uses, whole=whole)


def _factors(model: Model, stats: Mapping[str, WeightStats]) -> Iterator[Gate]:
    for factor in (each for each in model.factors if each.function in activations.ENDING_AT_ZERO):
        found, function = stats.get(factor.address), activations.get(factor.function)
        shut = [let for value in (found.values if found is not None else ()) if (let := function(value)) < SHUT]
        if found is not None and shut and len(shut) >= PACKED * len(found.values):
            yield Gate(factor.address, median(shut), (Fill(factor.address, 0.0),), factor.consumers)


def _shut(layer: Layer, signal: LayerSignal) -> list[float]:
    """Mean values of the units that are shut."""
    function, reads = activations.get(layer.gate), layer.gate_reads
    units = zip(signal.unit_mean, signal.unit_std, strict=True)
    spread = 2.0 * abs(reads.factor)
    return [m for m, s in units if math.isfinite(m) and math.isfinite(s) and function(reads(m) + spread * s) < SHUT]


def _blame(model: Model, layer: Layer, mean: float, stats: Mapping[str, WeightStats]) -> tuple[Tensor, Edit]:
    """The bias where it is most of what holds the units down, else the weight."""
    bias = stats.get(layer.bias.address) if layer.bias is not None else None
    factor = layer.gate_reads.factor
    lowest = min((factor * each for each in (bias.values or [bias.min])), default=0.0) if bias is not None else 0.0
    if layer.bias is not None and bias is not None and lowest <= 0.5 * factor * mean:
        return layer.bias, Fill(layer.bias.address, 0.0)
    return layer.weight, fresh(model, layer.weight)


def _recurrent(layer: Layer, stats: Mapping[str, WeightStats]) -> Gate | None:
    """By its biases alone: what is inside a fused recurrence does not show."""
    found: list[tuple[float, tuple[Fill, ...], str]] = []
    for part, sign in HOLDING[layer.kind].items():
        held = {address: sign * mean for address, mean in _means(layer, part, stats).items()}
        openness = activations.get("sigmoid")(-sum(held.values()))
        if held and openness < (REMEMBERED if part != "o" and _remembers(layer, openness, stats) else SHUT):
            worst = max(held, key=lambda address: held[address])
            edits = tuple(Fill(address, 0.0) for address, value in held.items() if address == worst or value > 1.0)
            found.append((openness, edits, worst))
    if not found:
        return None
    openness = min(each[0] for each in found)
    at = next(each[2] for each in found if each[0] <= math.sqrt(openness))
    edits = tuple(dict.fromkeys((*(edit for each in found for edit in each[1]), *_filled_as_well(layer, stats))))
    return Gate(at, openness, edits, layer.consumers, within=layer.name, alone=False)


def _filled_as_well(layer: Layer, stats: Mapping[str, WeightStats]) -> Iterator[Fill]:
    """Its other biases below -1: one line fills them all, and a cell that stays shut behind open gates learns nothing.

    Those of gates that are meant to remember are above.
    """
    for bias in (layer.bias, layer.recurrent_bias):
        for address in bias.part_addresses if bias is not None else ():
            if address in stats and stats[address].mean < -1.0:
                yield Fill(address, 0.0)


def _means(layer: Layer, part: str, stats: Mapping[str, WeightStats]) -> dict[str, float]:
    """Of one gate's biases, by address."""
    biases = (layer.bias, layer.recurrent_bias)
    known = (f"{bias.address}[{part}]" for bias in biases if bias is not None)
    return {address: stats[address].mean for address in known if address in stats}


def _remembers(layer: Layer, taken: float, stats: Mapping[str, WeightStats]) -> bool:
    """What a step takes in adds up: it forgets not much more (ten times) than it takes. A GRU forgets what it takes."""
    forgotten = activations.get("sigmoid")(-sum(_means(layer, "f", stats).values()))
    return layer.kind is Kind.GRU or forgotten < 10.0 * taken
