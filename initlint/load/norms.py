"""Normalisations: the operators, and the arithmetic that exporters write instead.

A decomposed norm is found at its root: Sqrt(mean(d^2) + eps) dividing d. Where d is x minus its own mean it is a layer,
instance or batch norm by the axes of the mean; else an RMS norm.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..model import Kind
from .constants import Constants
from .graph import Graph, Node
from .naming import is_generated

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


@dataclass(frozen=True)
class NormSite:
    """One normalisation: reads ``source``, its result (gain and shift applied) is ``value``."""

    kind: Kind
    source: str
    value: str
    node: Node
    """The node whose output is ``value``."""
    gain: str = ""
    shift: str = ""
    mean: str = ""
    variance: str = ""
    absorbed: frozenset[int] = frozenset()
    """Indices of all nodes that belong to it."""
    is_sum: bool = False


def find(graph: Graph, constants: Constants) -> list[NormSite]:
    """All normalisations in execution order."""
    sites = [site for node in graph.nodes for site in _operator_site(graph, constants, node)]
    sites += [site for node in graph.nodes for site in _decomposed_site(graph, constants, node)]
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
    return _with_affine(graph, constants, bare)


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


def _decomposed_site(graph: Graph, constants: Constants, node: Node) -> list[NormSite]:
    """``node`` divides something by the root of its mean square, or multiplies by the reciprocal of that."""
    if node.op not in ("Div", "Mul") or len(node.inputs) != 2:
        return []
    pairs = [(0, 1)] if node.op == "Div" else [(0, 1), (1, 0)]
    for data, scale in pairs:
        found = _mean_square(graph, constants, node.inputs[scale], inverse=node.op == "Mul")
        if found is None:
            continue
        squared, axes, nodes = found
        numerator = node.inputs[data]
        source, kind, more = _centre(graph, constants, numerator, squared, axes)
        if not source or source not in graph.live:
            continue
        site = NormSite(kind, source, node.outputs[0], node, absorbed=frozenset({node.index, *nodes, *more}))
        return [_with_affine(graph, constants, site)]
    return []


_HANDED_ON = frozenset({"Cast", "Identity", "Expand", "Max", "Clip", "CastLike", "Unsqueeze"})


def _mean_square(
    graph: Graph, constants: Constants, name: str, inverse: bool
) -> tuple[str, tuple[int, ...] | None, set[int]] | None:
    """(d, axes, nodes) where ``name`` is sqrt(mean(d^2) + eps), or its reciprocal if ``inverse``."""
    nodes: set[int] = set()
    rooted = False
    for _ in range(8):
        node = graph.producer.get(name)
        if node is None:
            return None
        nodes.add(node.index)
        if node.op in _HANDED_ON or (node.op == "Add" and rooted):
            name = _live_input(graph, node)
        elif node.op == "Reciprocal" and inverse:
            inverse, name = False, node.input(0)
        elif node.op == "Div" and inverse and constants.scalar(node.input(0)) == 1.0:
            inverse, name = False, node.input(1)
        elif node.op == "Sqrt" and not rooted:
            rooted, name = True, node.input(0)
        elif node.op == "Pow" and not rooted and constants.scalar(node.input(1)) == (-0.5 if inverse else 0.5):
            rooted, inverse, name = True, False, node.input(0)
        elif node.op in ("ReduceL2", "ReduceMean", "ReduceSumSquare") and not inverse:
            return _squared(graph, constants, node, nodes, rooted)
        else:
            return None
    return None


def _live_input(graph: Graph, node: Node) -> str:
    return next((value for value in node.inputs if value in graph.live), "")


def _squared(
    graph: Graph, constants: Constants, node: Node, nodes: set[int], rooted: bool
) -> tuple[str, tuple[int, ...] | None, set[int]] | None:
    axes = reduce_axes(constants, node)
    if node.op == "ReduceL2":
        return None if rooted else (node.input(0), axes, nodes)
    if not rooted:
        return None
    if node.op == "ReduceSumSquare":
        return node.input(0), axes, nodes
    square = graph.producer.get(node.input(0))
    if square is None:
        return None
    is_power = square.op == "Pow" and constants.scalar(square.input(1)) == 2.0
    is_product = square.op == "Mul" and square.input(0) == square.input(1)
    if not is_power and not is_product:
        return None
    return square.input(0), axes, nodes | {square.index}


def reduce_axes(constants: Constants, node: Node) -> tuple[int, ...] | None:
    """Axes of a Reduce node in either spelling; None where all or unknown."""
    if node.input(1):
        return constants.ints(node.input(1))
    return node.integers("axes") or None


def _centre(
    graph: Graph, constants: Constants, numerator: str, squared: str, axes: tuple[int, ...] | None
) -> tuple[str, Kind, set[int]]:
    """(source, kind, nodes): what is normalised, and whether its mean is taken off first."""
    above = _skip_casts(graph, numerator)
    below = _skip_casts(graph, squared)
    centred = _is_centred(graph, below)
    if centred is not None:
        source, nodes = centred
        top = _is_centred(graph, above)
        if top is None or top[0] != source:
            return "", Kind.RMS_NORM, set()
        return source, _kind_by_axes(axes), nodes | top[1]
    return (above, Kind.RMS_NORM, set()) if above == below else ("", Kind.RMS_NORM, set())


def _skip_casts(graph: Graph, name: str) -> str:
    node = graph.producer.get(name)
    while node is not None and node.op in ("Cast", "Identity", "CastLike"):
        name = node.input(0)
        node = graph.producer.get(name)
    return name


def _is_centred(graph: Graph, name: str) -> tuple[str, set[int]] | None:
    node = graph.producer.get(name)
    if node is None or node.op != "Sub":
        return None
    source = _skip_casts(graph, node.input(0))
    mean = graph.producer.get(_skip_casts(graph, node.input(1)))
    if mean is None or mean.op != "ReduceMean" or _skip_casts(graph, mean.input(0)) != source:
        return None
    return source, {node.index, mean.index}


def _kind_by_axes(axes: tuple[int, ...] | None) -> Kind:
    if axes is None or len(axes) == 1 or axes[-1] == -1:
        return Kind.BATCH_NORM if axes == (0,) else Kind.LAYER_NORM
    if axes[0] == 0:
        return Kind.BATCH_NORM
    return Kind.INSTANCE_NORM if min(axes) >= 2 else Kind.LAYER_NORM


def _with_affine(graph: Graph, constants: Constants, site: NormSite) -> NormSite:
    """Absorb the constant gain (Mul) and shift (Add) behind a norm that has none of its own."""
    gain = shift = ""
    value, node, absorbed = site.value, site.node, set(site.absorbed)
    pending: set[int] = set()
    current = value
    for _ in range(8):
        users = [user for user, _ in graph.readers(current)]
        if current in graph.outputs or len(users) != 1:
            break
        user = users[0]
        operand = next((v for v in user.inputs if v and v != current), "")
        vector = bool(operand) and constants.known(operand) and constants.scalar(operand) is None
        pending.add(user.index)
        current = user.outputs[0]
        if user.op == "Mul" and vector and not gain and not shift:
            gain = operand
        elif user.op == "Add" and vector and not shift and _same_size(constants, operand, gain):
            shift = operand
        elif user.op in ("Reshape", "Cast", "CastLike", "Identity"):
            continue
        else:
            break
        value, node = current, user
        absorbed |= pending
    if not gain:
        return site
    return NormSite(site.kind, site.source, value, node, gain, shift, absorbed=frozenset(absorbed), is_sum=site.is_sum)


def _same_size(constants: Constants, one: str, other: str) -> bool:
    a, b = constants.spec(one), constants.spec(other)
    return a is not None and b is not None and a.size == b.size
