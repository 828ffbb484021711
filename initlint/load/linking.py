"""What layers have to do with each other: who feeds whom, who shares a tensor, which numbers scale them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from ..activations import UNKNOWN, Affine
from ..model import Factor, Layer
from .dataflow import Flow
from .factors import FactorSite


def called_again(layer: Layer, flow: Flow) -> Layer:
    """One more call of a shared layer: the union of what its outputs do."""
    return replace(
        layer,
        calls=layer.calls + 1,
        uses=layer.uses | frozenset(flow.uses),
        activation=layer.activation if layer.activation != "identity" else flow.activation,
        activation_reads=_reads(layer, flow),
        gate_reads=layer.gate_reads if layer.gate_reads == flow.gate_reads else UNKNOWN,
        norm_after=layer.norm_after if layer.norm_after is flow.norm_after else None,
        bias_removed=layer.bias_removed and flow.bias_removed,
        bypassed=layer.bypassed and flow.bypassed,
        learnt_input=layer.learnt_input and flow.learnt_input,
        reads_inputs=layer.reads_inputs or flow.reads_inputs,
    )


def _reads(layer: Layer, flow: Flow) -> Affine:
    """What the activation reads, of whichever call has one; two that differ are nobody's."""
    if layer.activation == "identity" or flow.activation == "identity":
        return flow.activation_reads if layer.activation == "identity" else layer.activation_reads
    return layer.activation_reads if layer.activation_reads == flow.activation_reads else UNKNOWN


def linked(layers: Mapping[str, Layer], names: Sequence[tuple[str, ...]], flows: list[Flow]) -> list[Layer]:
    """``layers`` with the names of those that feed them, and of those that they feed."""
    producers: dict[str, dict[str, None]] = {name: {} for name in layers}
    for own, flow in zip(names, flows, strict=True):
        for name in own:
            producers[name].update((each, None) for p in flow.producers for each in names[p] if each != name)
    consumers: dict[str, list[str]] = {}
    for name, own_producers in producers.items():
        for producer in own_producers:
            consumers.setdefault(producer, []).append(name)
    return [
        replace(layer, producers=tuple(producers[name]), consumers=tuple(consumers.get(name, ())))
        for name, layer in layers.items()
    ]


def factors(
    sites: Iterable[FactorSite], roots: Mapping[str, Sequence[str]], names: Sequence[tuple[str, ...]]
) -> Iterator[Factor]:
    for site in sites:
        for address in roots.get(site.root, ())[:1]:
            yield Factor(address, site.function, tuple(dict.fromkeys(name for i in site.readers for name in names[i])))


def tied(layers: list[Layer]) -> tuple[tuple[str, str], ...]:
    users: dict[str, list[str]] = {}
    for layer in layers:
        users.setdefault(layer.weight.address, []).append(layer.name)
    return tuple((name, address) for address, names in users.items() if len(names) > 1 for name in names)
