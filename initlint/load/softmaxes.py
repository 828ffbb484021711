"""Where a graph has a softmax, what its logits are made of, and whether its result leaves the graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from ..probe.taps import SoftmaxTap
from .dataflow import ATTENTIONS, PRODUCTS_OF_MATRICES, Dataflow
from .graph import Graph, Node

_WALK = 64
"""Nodes between the factors of an attention's logits and its softmax: scales, masks, reshapes; real ones have ten."""

_MOVES = frozenset({"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Log", "Dropout"})

_PER_AXIS = 13
"""From this opset on a softmax runs over one axis; before, over all axes from the given one on."""


def softmax_taps(
    graph: Graph, dataflow: Dataflow, names: Sequence[tuple[str, ...]], held: Callable[[str], Iterable[str]]
) -> Iterator[SoftmaxTap]:
    """Every softmax of the main graph whose logits depend on the inputs; ``names`` are those of the operations.

    ``held`` gives the addresses of the tensors that a stored or computed constant is made of.
    """
    places: dict[str, int] = {}
    for node in graph.nodes:
        fused = node.op in ATTENTIONS
        if node.inner or not (fused or node.op in ("Softmax", "LogSoftmax")) or not node.outputs:
            continue
        logits = node.inputs[:2] if fused else node.inputs[:1]
        if graph.fed.isdisjoint(logits):  # learnt queries are the same for every input
            continue
        place = node.scope or node.name or node.outputs[0]
        places[place] = places.get(place, 0) + 1
        yield SoftmaxTap(
            name=place if places[place] == 1 else f"{place} ({places[place]})",
            value="" if fused else logits[0],
            result=node.outputs[0],
            axis=_axis(node, graph),
            flattens=0 < graph.opset < _PER_AXIS,
            layers=tuple(dict.fromkeys(name for i in sorted(dataflow.feeding(logits)) for name in names[i])),
            attention=fused or _is_product(graph, dataflow, logits[0]),
            at_output=not fused and _leaves(graph, node),
            joining=tuple(dict.fromkeys(at for value in _joining(graph, dataflow, node) for at in held(value))),
        )


def _axis(node: Node, graph: Graph) -> int:
    return node.integer("axis", -1 if graph.opset == 0 or graph.opset >= _PER_AXIS else 1)


def axis_of(node: Node, graph: Graph) -> int | None:
    """The one axis that a softmax runs over; None where it may run over several."""
    axis = _axis(node, graph)
    return axis if axis == -1 or not 0 < graph.opset < _PER_AXIS else None


def _is_product(graph: Graph, dataflow: Dataflow, value: str) -> bool:
    """Whether a product of two live tensors, as of queries and keys, is a term of ``value``."""
    pending, seen = [value], {value}
    while pending and len(seen) < _WALK:
        node = graph.producer.get(pending.pop())
        if node is None or dataflow.is_operation(node):
            continue
        operands = {each for each in node.inputs if each in graph.live}
        if node.op in PRODUCTS_OF_MATRICES and len(operands) > 1:
            return True
        pending.extend(operands - seen)
        seen |= operands
    return False


def _joining(graph: Graph, dataflow: Dataflow, softmax: Node) -> Iterator[str]:
    """Constants that something on the way from the operations to the logits reads: scales, biases by position."""
    pending, seen = [softmax], {id(softmax)}
    while pending and len(seen) < _WALK:
        node = pending.pop(0)
        yield from (each for each in node.inputs if each and each not in graph.live)
        for value in node.inputs:
            maker = graph.producer.get(value) if value in graph.live else None
            if maker is not None and id(maker) not in seen and not dataflow.is_operation(maker):
                seen.add(id(maker))
                pending.append(maker)


def _leaves(graph: Graph, node: Node) -> bool:
    value = node.outputs[0]
    for _ in range(_WALK):
        if value in graph.outputs:
            return True
        readers = [user for user, slot in graph.readers(value) if slot == 0 and user.op in _MOVES]
        if not readers:
            return False
        value = readers[0].outputs[0]
    return False
