"""Normalisations: the operators, and what is written as arithmetic instead."""

from __future__ import annotations

from ..kinds import Kind
from . import written_norms
from .constants import Constants
from .graph import Graph, Node
from .naming import is_generated
from .norm_sites import NormSite

_OPERATORS = {
    "BatchNormalization": Kind.BATCH_NORM,
    "InstanceNormalization": Kind.INSTANCE_NORM,
    "LayerNormalization": Kind.LAYER_NORM,
    "GroupNormalization": Kind.GROUP_NORM,
    "RMSNormalization": Kind.RMS_NORM,
    "SimplifiedLayerNormalization": Kind.RMS_NORM,
    "com.microsoft::SimplifiedLayerNormalization": Kind.RMS_NORM,
    "com.microsoft::LayerNormalization": Kind.LAYER_NORM,
    "com.microsoft::GroupNorm": Kind.GROUP_NORM,
    "MeanVarianceNormalization": Kind.INSTANCE_NORM,
    "LpNormalization": Kind.RMS_NORM,
}

_SKIP_OPERATORS = {
    "com.microsoft::SkipLayerNormalization": Kind.LAYER_NORM,
    "com.microsoft::SkipSimplifiedLayerNormalization": Kind.RMS_NORM,
}
"""A residual sum and a norm in one: inputs x, skip, gain, shift."""


def find(graph: Graph, constants: Constants) -> list[NormSite]:
    """All normalisations in execution order."""
    sites = [site for node in graph.nodes for site in _operator_site(graph, constants, node)]
    written = (written_norms.site(graph, constants, node) for node in graph.nodes)
    sites += [site for site in written if site is not None]
    return sorted(sites, key=lambda site: site.node.index)


def _operator_site(graph: Graph, constants: Constants, node: Node) -> list[NormSite]:
    if node.op in _SKIP_OPERATORS:
        gain, shift = node.input(2), node.input(3) if "Simplified" not in node.op else ""
        kind = _SKIP_OPERATORS[node.op]
        return [NormSite(kind, node.input(0), node.outputs[0], node, gain, shift, absorbed=_only(node), is_sum=True)]
    kind_or_none = _OPERATORS.get(node.op)
    if kind_or_none is None or node.input(0) not in graph.live:
        return []
    if kind_or_none is Kind.BATCH_NORM:
        gain, shift, mean, variance = (node.input(i) for i in range(1, 5))
        site = NormSite(kind_or_none, node.input(0), node.outputs[0], node, gain, shift, mean, variance, _only(node))
        return [_without_gain(graph, constants, site) if _is_filler(graph, constants, gain) else site]
    gain, shift = node.input(1), node.input(2)
    site = NormSite(kind_or_none, node.input(0), node.outputs[0], node, gain, shift, absorbed=_only(node))
    if kind_or_none is Kind.INSTANCE_NORM and _is_group_norm(graph, node):
        site = NormSite(Kind.GROUP_NORM, site.source, site.value, node, gain, shift, absorbed=site.absorbed)
    return [site if gain and not _is_filler(graph, constants, gain) else _without_gain(graph, constants, site)]


def _without_gain(graph: Graph, constants: Constants, site: NormSite) -> NormSite:
    bare = NormSite(site.kind, site.source, site.value, site.node, absorbed=site.absorbed)
    return written_norms.with_affine(graph, constants, bare)


def _only(node: Node) -> frozenset[int]:
    return frozenset({node.index})


def _is_group_norm(graph: Graph, node: Node) -> bool:
    """Exporters write a group norm as Reshape(groups), InstanceNormalization, Reshape back."""
    before = graph.producer.get(node.input(0))
    after = [user for user, _ in graph.readers(node.outputs[0])]
    return before is not None and before.op == "Reshape" and len(after) == 1 and after[0].op == "Reshape"


def _is_filler(graph: Graph, constants: Constants, gain: str) -> bool:
    """Ones that the exporter wrote because the operator demands a gain, not a parameter."""
    node = graph.producer.get(gain)
    while node is not None and node.op in ("Expand", "Cast", "CastLike"):  # ones in the shape of the data
        gain = node.input(0)
        node = graph.producer.get(gain)
    array = constants.array(gain)
    if array is None or array.size == 0 or not bool((array == 1.0).all()):
        return False
    return all(root in graph.producer or is_generated(root) for root in constants.roots(gain))
