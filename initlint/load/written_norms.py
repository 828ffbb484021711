"""Normalisations written as arithmetic: a division by the root of a second moment, in any of its spellings.

The moment is a mean of squares, a sum, a Euclidean norm, a variance or a standard deviation, or E[x^2] - E[x]^2; an
epsilon and constant factors may stand anywhere. Where x loses its own mean as well, it is a layer, instance or batch
norm by the axes of the mean; else an RMS norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..kinds import Kind
from .constants import Constants
from .graph import Graph, Node
from .norm_sites import NormSite
from .steps import DEVIATION, VARIANCE

_LONGEST = 16
"""Operators between a division and the moment; real ones have up to eight."""
_LARGEST_EPSILON = 0.1
"""Ten times the largest in use. x / (1 + |x|) squashes instead."""

_CASTS = frozenset({"Cast", "Identity", "CastLike"})
_HANDED_ON = _CASTS | {"Expand", "Max", "Clip", "Relu", "Unsqueeze", "Reshape"}


@dataclass(frozen=True)
class _Moment:
    """The mean square of ``of``, or of its distance from its mean."""

    of: str
    centred: bool
    axes: tuple[int, ...] | None
    nodes: frozenset[int]


def site(graph: Graph, constants: Constants, node: Node) -> NormSite | None:
    """``node`` divides something by the root of its second moment, or multiplies by the reciprocal of that."""
    if node.op not in ("Div", "Mul") or len(node.inputs) != 2:
        return None
    pairs = [(0, 1)] if node.op == "Div" else [(0, 1), (1, 0)]
    for data, scale in pairs:
        moment = _rooted_moment(graph, constants, node.inputs[scale], inverse=node.op == "Mul")
        if moment is None:
            continue
        found = _normalised(graph, constants, node, node.inputs[data], moment)
        if found is not None and found.source in graph.live:
            return with_affine(graph, constants, found)
    return None


def _rooted_moment(graph: Graph, constants: Constants, name: str, inverse: bool) -> _Moment | None:
    """What ``name`` is the root of, or the reciprocal of the root if ``inverse``, but for constant factors."""
    nodes: set[int] = set()
    rooted = False
    for _ in range(_LONGEST):
        node = graph.producer.get(name)
        if node is None:
            return None
        nodes.add(node.index)
        if not inverse and (moment := _moment(graph, constants, node, rooted)) is not None:
            return replace(moment, nodes=moment.nodes | nodes)
        carrying = _live_inputs(graph, node)
        if len(carrying) != 1:
            return None
        name = carrying[0]
        if node.op == "Sqrt" and not rooted:
            rooted = True
        elif node.op == "Pow" and not rooted and constants.scalar(node.input(1)) == (-0.5 if inverse else 0.5):
            rooted, inverse = True, False
        elif inverse and (node.op == "Reciprocal" or (node.op == "Div" and name == node.input(1))):
            inverse = False
        elif not (node.op in _HANDED_ON or _is_factor(node, name) or _adds_epsilon(constants, node, name)):
            return None
    return None


def _is_factor(node: Node, name: str) -> bool:
    return node.op == "Mul" or (node.op == "Div" and name == node.input(0))


def _adds_epsilon(constants: Constants, node: Node, name: str) -> bool:
    if node.op != "Add":
        return False
    epsilon = constants.scalar(next((value for value in node.inputs if value != name), ""))
    return epsilon is None or abs(epsilon) <= _LARGEST_EPSILON


def _moment(graph: Graph, constants: Constants, node: Node, rooted: bool) -> _Moment | None:
    axes = reduce_axes(constants, node)
    if node.op == ("ReduceSumSquare" if rooted else "ReduceL2"):
        return _of_square(graph, node.input(0), axes, frozenset())
    if node.op == (VARIANCE if rooted else DEVIATION):
        return _Moment(_without(graph, node.input(0), _CASTS), True, axes, frozenset())
    if not rooted:
        return None
    if node.op in ("ReduceMean", "ReduceSum"):
        squared = _squared(graph, constants, node.input(0))
        return _of_square(graph, squared[0], axes, squared[1]) if squared is not None else None
    return _difference(graph, constants, node) if node.op == "Sub" else None


def _of_square(graph: Graph, name: str, axes: tuple[int, ...] | None, nodes: frozenset[int]) -> _Moment:
    """Of the square of a distance from the mean it is the variance."""
    of = _without(graph, name, _CASTS)
    centred = _centred(graph, of)
    return _Moment(of, False, axes, nodes) if centred is None else _Moment(centred[0], True, axes, nodes | centred[1])


def _squared(graph: Graph, constants: Constants, name: str) -> tuple[str, frozenset[int]] | None:
    """(x, the square's nodes) where ``name`` is x * x, whether or not x was computed once, or x^2."""
    node = graph.producer.get(_without(graph, name, _CASTS))
    if node is None:
        return None
    if node.op == "Pow" and constants.scalar(node.input(1)) == 2.0:
        return node.input(0), frozenset({node.index})
    if node.op != "Mul":
        return None
    one, other = (_without(graph, value, _CASTS) for value in node.inputs)
    twice = (_centred(graph, one), _centred(graph, other))
    if one == other:
        return one, frozenset({node.index})
    if twice[0] is None or twice[1] is None or twice[0][0] != twice[1][0]:
        return None
    return one, frozenset({node.index}) | twice[1][1]


def _difference(graph: Graph, constants: Constants, node: Node) -> _Moment | None:
    """E[x^2] - E[x]^2."""
    mean = graph.producer.get(_without(graph, node.input(0), _CASTS))
    squared = _squared(graph, constants, node.input(1))
    if mean is None or squared is None or mean.op != "ReduceMean":
        return None
    of, source = _squared(graph, constants, mean.input(0)), _mean_of(graph, squared[0])
    if of is None or source is None or _without(graph, of[0], _CASTS) != source[0]:
        return None
    nodes = frozenset({node.index, mean.index}) | of[1] | squared[1] | source[1]
    return _Moment(source[0], True, reduce_axes(constants, mean), nodes)


def _normalised(graph: Graph, constants: Constants, root: Node, numerator: str, moment: _Moment) -> NormSite | None:
    """``root`` as a norm, if its numerator is what the moment is of: but for its mean, a gain and constant factors."""
    name, nodes, gain = numerator, {root.index, *moment.nodes}, ""
    for _ in range(_LONGEST):
        name = _without(graph, name, _CASTS)
        centred = _centred(graph, name) if moment.centred else None
        if centred is not None and centred[0] == moment.of:
            kind = _kind_by_axes(moment.axes)
            absorbed = frozenset(nodes) | centred[1]
            return NormSite(kind, moment.of, root.outputs[0], root, gain, absorbed=absorbed)
        if name == moment.of:
            return NormSite(Kind.RMS_NORM, name, root.outputs[0], root, gain, absorbed=frozenset(nodes))
        node = graph.producer.get(name)
        if node is None or node.op != "Mul" or len(carrying := _live_inputs(graph, node)) != 1:
            return None
        operand = next(value for value in node.inputs if value != carrying[0])
        if _is_vector(constants, operand):
            if gain:
                return None
            gain = operand
        nodes.add(node.index)
        name = carrying[0]
    return None


def _centred(graph: Graph, name: str) -> tuple[str, frozenset[int]] | None:
    """(x, nodes) where ``name`` is x minus its mean."""
    node = graph.producer.get(name)
    if node is None or node.op != "Sub":
        return None
    source, mean = _without(graph, node.input(0), _CASTS), _mean_of(graph, node.input(1))
    return (source, mean[1] | {node.index}) if mean is not None and mean[0] == source else None


def _mean_of(graph: Graph, name: str) -> tuple[str, frozenset[int]] | None:
    """(x, nodes) where ``name`` is a mean of x, also the one that a variance gives along with itself."""
    value = _without(graph, name, _CASTS | {"Expand", "Reshape", "Unsqueeze"})
    node = graph.producer.get(value)
    if node is None:
        return None
    beside = node.op in (VARIANCE, DEVIATION) and len(node.outputs) > 1 and value == node.outputs[1]
    if node.op != "ReduceMean" and not beside:
        return None
    return _without(graph, node.input(0), _CASTS), frozenset({node.index})


def reduce_axes(constants: Constants, node: Node) -> tuple[int, ...] | None:
    """Axes of a Reduce node in either spelling; None where all or unknown."""
    if node.input(1):
        return constants.ints(node.input(1))
    return node.integers("axes") or None


def _kind_by_axes(axes: tuple[int, ...] | None) -> Kind:
    if axes is None or len(axes) == 1 or axes[-1] == -1:
        return Kind.BATCH_NORM if axes == (0,) else Kind.LAYER_NORM
    if axes[0] == 0:
        return Kind.BATCH_NORM
    return Kind.INSTANCE_NORM if min(axes) >= 2 else Kind.LAYER_NORM


def _without(graph: Graph, name: str, operators: frozenset[str]) -> str:
    """Up through operators that leave the values alone."""
    node = graph.producer.get(name)
    while node is not None and node.op in operators:
        name = node.input(0)
        node = graph.producer.get(name)
    return name


def _live_inputs(graph: Graph, node: Node) -> list[str]:
    return [value for value in dict.fromkeys(node.inputs) if value in graph.live]


def _is_vector(constants: Constants, operand: str) -> bool:
    return bool(operand) and constants.known(operand) and constants.scalar(operand) is None


def with_affine(graph: Graph, constants: Constants, site: NormSite) -> NormSite:
    """Absorb the constant gain (Mul) and shift (Add) behind a norm that has none of its own."""
    gain, shift, value, node, absorbed = site.gain, "", site.value, site.node, set(site.absorbed)
    pending: set[int] = set()
    for user, operand in _behind(graph, value):
        pending.add(user.index)
        vector = _is_vector(constants, operand)
        if user.op == "Mul" and vector and not gain and not shift:
            gain = operand
        elif user.op == "Add" and vector and not shift and _same_size(constants, operand, gain):
            shift = operand
        elif user.op in _CASTS or user.op == "Reshape" or (user.op in ("Mul", "Div") and operand and not vector):
            continue
        else:
            break
        value, node = user.outputs[0], user
        absorbed |= pending
    if not gain:
        return site
    return replace(site, value=value, node=node, gain=gain, shift=shift, absorbed=frozenset(absorbed))


def _behind(graph: Graph, value: str) -> Iterator[tuple[Node, str]]:
    """(only reader, what else it reads), one after the other."""
    for _ in range(8):
        users = [user for user, _ in graph.readers(value)]
        if value in graph.outputs or len(users) != 1:
            return
        operand = next((each for each in users[0].inputs if each and each != value), "")
        if operand in graph.live:
            return
        yield users[0], operand
        value = users[0].outputs[0]


def _same_size(constants: Constants, shift: str, gain: str) -> bool:
    one, other = constants.spec(shift), constants.spec(gain)
    return one is not None and other is not None and one.size == other.size
