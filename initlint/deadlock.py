"""Zero weights that can never change: what structure alone proves.

The gradient of a weight is the product of what comes in and what comes back. A zero layer wakes up if its input and the
slope behind it are not zero; it never does behind a ReLU that it holds at zero, nor in a product of two zeros.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import activations
from .kinds import Kind, Use
from .model import Layer, Model
from .stats import WeightStats

Stats = Mapping[str, WeightStats]


def stuck_at_zero(model: Model, layer: Layer, stats: Stats) -> str:
    """Why the zero weight of ``layer`` can never get a gradient; empty where that is not certain."""
    if not layer.kind.is_map:
        return ""
    if not model.has_dataflow:
        return (
            "so is every other weight, and this one reads, or feeds, another" if _all_zero(model, layer, stats) else ""
        )
    if layer.uses == {Use.LAYER} and _constant_output_is_dead(model, layer, stats):
        return f"the {layer.activation} behind it stays off, where its slope is zero"
    after, before = model.maps_after(layer), model.maps_before(layer)
    if after and all(_is_zero_pair(layer, each, stats) for each in after):
        return f"{after[0].name} behind it is zero too, so neither ever gets a gradient"
    if before and all(_is_zero_pair(each, layer, stats) for each in before):
        return f"{before[0].name} before it is zero too, so neither ever gets a gradient"
    return ""


def zeros_in_a_row(model: Model, stats: Stats) -> Mapping[str, int]:
    """Names of the zero maps, tables and recurrences that wait for each other, with their number on the way of all.

    Counted is on the way from the inputs to an output that passes fewest: behind a shortcut there are none. They need
    not be next to each other. A head waits for nothing, nor does a map that norms alone read: they make the first trace
    of a signal as large as any. One tensor in two places grows in both at once.
    """
    if not model.has_dataflow:
        return {}
    shared = {each for pair in model.tied for each in pair}
    own = {each.name: int(_waits(model, each, stats) and shared.isdisjoint(_names(each))) for each in model.layers}
    passed: dict[str, int] = {}
    nearest: dict[str, list[str]] = {}
    for number, layer in enumerate(model.layers):
        ways = [way for each in model.producers(layer) if (way := _way(model, each, number, passed))]
        before = min((max(passed[name] for name in way) for way in ways), default=0)
        if layer.reads_inputs or not layer.learnt_input:
            before = 0 if layer.reads_inputs else before
            passed[layer.name] = before + own[layer.name]
            nearest[layer.name] = [name for way in ways for name in way if passed[name] == before > 0]
    ends = [each.name for each in model.layers if Use.OUTPUT in each.uses and each.name in passed]
    fewest = min((passed[name] for name in ends), default=0)
    pending, found = [name for name in ends if passed[name] == fewest], set[str]()
    while pending and fewest > 1:
        name = pending.pop()
        pending += [each for each in nearest[name] if each not in found]
        found.add(name)
    return {name: fewest for name in found if own[name] and Use.OUTPUT not in model.layer(name).uses}


def _way(model: Model, producer: Layer, end: int, passed: Mapping[str, int]) -> list[str]:
    """The layers that give what the layer at ``end`` reads of ``producer``: itself, as far as it is known by now.

    One that is applied again and again, as a graph's adjacency is, hands on what it read last.
    """
    earlier = {each.name for each in model.layers[:end]} if producer.calls > 1 else set()
    last = [name for name in producer.producers if name in earlier and name in passed and name != producer.name]
    return last or [producer.name for name in (producer.name,) if name in passed]


def all_maps_zero(model: Model, stats: Stats) -> bool:
    """Of several in a row, be there ways around them: then nothing but the heads can learn at first."""
    maps = [each for each in model.layers if each.kind.is_map]
    return len(maps) > 1 and all(_is_zero(each.weight.address, stats) for each in maps)


def _waits(model: Model, layer: Layer, stats: Stats) -> bool:
    counts = layer.kind.is_map or layer.kind.is_recurrent or layer.kind is Kind.EMBEDDING
    at_once = Use.OUTPUT in layer.uses or model.read_by_norms(layer)
    return counts and _is_zero(layer.weight.address, stats) and not at_once


def _names(layer: Layer) -> tuple[str, str]:
    return layer.name, layer.weight.address


def uses_at_the_end(model: Model, layer: Layer, stats: Stats) -> frozenset[Use]:
    """What becomes of its output, looked for behind fixed maps, and a sum behind learned ones that are not zero.

    If what leads around it joins that sum, it gets its gradient at once, as the end of a branch does: AdaLoRA's A * E,
    with E at zero and B behind it (Zhang et al. 2023, arXiv:2303.10512, section 3.1).
    """
    uses, seen = model.final_uses(layer), {layer.name}
    while layer.bypassed and layer.uses == {Use.LAYER} and layer.activation == "identity":
        behind = list(model.consumers(layer))
        if len(behind) != 1 or not behind[0].kind.is_map or behind[0].name in seen:
            return uses
        layer = behind[0]
        if _is_zero(layer.weight.address, stats):
            return uses
        seen.add(layer.name)
    return uses | {Use.SUM} if layer.bypassed and Use.SUM in layer.uses else uses


def _constant_output_is_dead(model: Model, layer: Layer, stats: Stats) -> bool:
    """With zero weights the output is the bias, or behind a norm the norm's shift; is it where the slope is zero?"""
    edge, offset = layer.dead_below, layer.bias
    if layer.norm_after is not None:
        norms = [each for each in model.consumers(layer) if each.kind.is_norm]
        offset = norms[0].bias if len(norms) == 1 else None
    highest = stats[offset.address].max if offset is not None and offset.address in stats else 0.0
    return edge is not None and highest <= edge


def _all_zero(model: Model, layer: Layer, stats: Stats) -> bool:
    """All maps are zero, and shapes say that ``layer`` and its neighbour in the file lie one behind the other."""
    maps = [each for each in model.layers if each.kind.is_map or each.kind.is_recurrent]
    if not all(_is_zero(each.weight.address, stats) for each in maps):
        return False
    position = maps.index(layer)
    pairs = (maps[max(position - 1, 0) : position + 1], maps[position : position + 2])
    return any(_in_series(*pair) for pair in pairs if len(pair) == 2)


def _in_series(first: Layer, second: Layer) -> bool:
    """The second reads as many values as the first gives, and not as many as the first reads: they are no two heads."""
    plain = all(each.kind in (Kind.LINEAR, Kind.CONV) for each in (first, second))
    return plain and first.weight.shape[0] == second.weight.shape[1] != first.weight.shape[1]


def _is_zero_pair(first: Layer, second: Layer, stats: Stats) -> bool:
    """``first`` feeds only ``second``, both are zero, and nothing between them makes a constant of the zero."""
    if (
        first.uses != {Use.LAYER}
        or second.name not in first.consumers
        or not (first.kind.is_map and second.kind.is_map)
    ):
        return False
    biases = [first.bias.address] if first.bias is not None else []
    zeros = all(_is_zero(address, stats) for address in (first.weight.address, second.weight.address, *biases))
    return zeros and activations.get(first.activation)(0.0) == 0.0


def _is_zero(address: str, stats: Stats) -> bool:
    return address in stats and stats[address].all_zero
