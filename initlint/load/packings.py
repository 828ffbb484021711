"""Projections that one tensor packs: which rows make the queries, which the keys and which the values.

Names do not tell. Three equal blocks of a linear map's outputs are a packed projection if two of them meet in a product
under a softmax and the third is what that softmax weighs. Blocks that are cut head by head are no blocks of rows, and
blocks of unequal size are shared by several heads: such tensors stay whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from ..kinds import Kind
from .constants import Constants
from .cuts import Cut
from .dataflow import ATTENTIONS, PRODUCTS_OF_MATRICES, SOFTMAXES
from .graph import Graph, Node
from .logits import NEITHER, Weighting, of_product, summed
from .sizes import SizeReader
from .stored import Operation, Stored

BLOCKS = 3

_KEPT = frozenset({"Identity", "Cast", "Dropout", "Clip", "Add", "Sub", "Mul", "Div", "Neg"})
"""Operators behind which every entry is where it was."""

_MANY = 64
"""Labels of one value; an attention's logits have one, those that wander off through sums are of no use."""


@dataclass(frozen=True, slots=True)
class Block:
    """An equal block of the outputs of the operation at ``position``."""

    position: int
    number: int


Label = Block | Weighting
_NOTHING: frozenset[Label] = frozenset()


def packed(graph: Graph, constants: Constants, operations: list[Operation]) -> list[Operation]:
    """``operations`` with the parts of packed projections named."""
    found = {i: op for i, op in enumerate(operations) if _may_be_packed(op)}
    if not found or not _may_attend(graph):
        return operations
    parts = _Walk(graph, constants, operations, found).parts()
    by_tensor: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for i, op in enumerate(operations):
        by_tensor.setdefault(_tensor(constants, op.weight), set()).add(parts.get(i, ()))
    agreed = {key: names.pop() for key, names in by_tensor.items() if len(names) == 1}
    return [_with_parts(op, agreed.get(_tensor(constants, op.weight), ())) for op in operations]


def _may_attend(graph: Graph) -> bool:
    """Whether there is an attention, or the softmax and the product that make one."""
    kinds = {node.op for node in graph.nodes}
    if not kinds.isdisjoint(ATTENTIONS):
        return True
    return not kinds.isdisjoint(SOFTMAXES) and any(
        node.op in PRODUCTS_OF_MATRICES and _live_operands(graph, node) == 2 for node in graph.nodes
    )


def _live_operands(graph: Graph, node: Node) -> int:
    return sum(value in graph.live for value in dict.fromkeys(node.inputs))


def _tensor(constants: Constants, stored: Stored) -> tuple[str, ...]:
    return constants.roots(stored.value) or (stored.value,)


def _may_be_packed(op: Operation) -> bool:
    """A square one is left whole: its shape does not tell whether rows or columns are units."""
    view, axis = op.weight.view, 1 if op.kind is Kind.CONV else -1
    fits = op.kind in (Kind.LINEAR, Kind.CONV) and view.groups == 1 and op.unit_axis == axis and not op.is_attention
    return fits and view.units % BLOCKS == 0 and view.units != view.fan_in and not op.weight.parts


def _with_parts(op: Operation, parts: tuple[str, ...]) -> Operation:
    if not parts or op.weight.parts:
        return op
    bias = op.bias
    if bias is not None and bias.view.groups * bias.view.units == op.weight.view.units:
        bias = replace(bias, parts=parts)
    return replace(op, weight=replace(op.weight, parts=parts), bias=bias)


class _Walk:
    """One pass over the graph, in order: what every value holds of the operations that may be packed."""

    def __init__(
        self, graph: Graph, constants: Constants, operations: list[Operation], found: dict[int, Operation]
    ) -> None:
        self._graph, self._constants, self._found = graph, constants, found
        self._sizes = SizeReader(graph, constants)
        self._starts = {op.output: i for i, op in found.items()}
        self._ends = {op.node.index for op in operations if not op.kind.is_norm}
        self._cuts: dict[str, Cut] = {}
        self._sequences: dict[str, list[Cut | None]] = {}
        self._labels: dict[str, frozenset[Label]] = {}
        self._factors: dict[int, tuple[frozenset[Label], frozenset[Label]]] = {}
        self._weighed: dict[int, frozenset[Label]] = {}
        self._keys: dict[int, set[int]] = {}
        self._broken: set[int] = set()

    def parts(self) -> dict[int, tuple[str, ...]]:
        """By operation: the names of its blocks in order."""
        for node in self._graph.nodes:
            self._sizes.see(node)
            self._visit(node)
        roles: dict[int, set[tuple[int, ...]]] = {}
        for product, values in self._weighed.items():
            left, right = self._factors[product]
            met = (left, right, values) if self._keys[product] == {1} else (right, left, values)
            blocks = [block for labels in met for block in labels if isinstance(block, Block)]
            positions = {block.position for block in blocks}
            numbers = tuple(block.number for block in blocks)
            clean = len(blocks) == BLOCKS and len(positions) == 1 and len(set(numbers)) == BLOCKS
            if clean and all(len(labels) == 1 for labels in met) and self._keys[product] in ({0}, {1}):
                roles.setdefault(blocks[0].position, set()).add(numbers)
            else:
                self._broken |= positions
        return {
            i: tuple(name for _, name in sorted(zip(next(iter(orders)), ("q", "k", "v"), strict=True)))
            for i, orders in roles.items()
            if len(orders) == 1 and i not in self._broken
        }

    def _visit(self, node: Node) -> None:
        if any(value in self._starts for value in node.outputs):
            self._begin(node)
        elif node.index in self._ends:
            return
        elif node.op in ATTENTIONS:
            self._meet(node.index, *(self._of(node.input(slot)) for slot in range(2)))
            self._weigh(node.index, self._of(node.input(2)), 1)
        elif node.op in PRODUCTS_OF_MATRICES and _live_operands(self._graph, node) == 2:
            self._multiply(node)
        elif node.op == "SequenceAt" and node.input(0) in self._sequences:
            self._member(node)
        elif (cut := self._cuts.get(node.input(0))) is not None:
            self._follow(node, cut)
        else:
            self._hand_on(node)

    def _begin(self, node: Node) -> None:
        value = next(value for value in node.outputs if value in self._starts)
        position = self._starts[value]
        op = self._found[position]
        sizes = self._sizes.of(value)
        if op.kind is Kind.CONV:
            sizes = sizes or (0,) * len(op.weight.shape)
        if sizes and len(sizes) >= 2 and sizes[op.unit_axis] in (0, op.weight.view.units):
            self._note(value, Cut.whole(position, op.weight.view.units, sizes, op.unit_axis))

    def _note(self, value: str, cut: Cut | None) -> None:
        """A block is a block whatever becomes of its entries; what is larger is followed until it is cut."""
        if cut is None:
            return
        told = self._sizes.known.get(value, cut.sizes)
        if len(told) != len(cut.sizes) or any(
            own and other and own != other for own, other in zip(cut.sizes, told, strict=True)
        ):
            return  # broadcast against something larger
        self._sizes.known[value] = tuple(own or other for own, other in zip(cut.sizes, told, strict=True))
        if cut.left * BLOCKS > cut.units:
            self._cuts[value] = cut
        elif (number := cut.block(BLOCKS)) is not None:
            self._labels[value] = frozenset({Block(cut.position, number)})
        else:
            self._broken.add(cut.position)

    # -- labels --------------------------------------------------------------------------------------------------

    def _of(self, value: str) -> frozenset[Label]:
        return self._labels.get(value, _NOTHING)

    def _hand_on(self, node: Node) -> None:
        if self._graph.live.isdisjoint(node.outputs):
            return  # a shape carries nothing of the value whose shape it is
        after = self._sizes.of(node.outputs[0])
        labels = frozenset(
            each.through(node, self._graph, self._sizes.of(value), after) if isinstance(each, Weighting) else each
            for value in node.inputs
            for each in self._of(value)
        )
        if labels and len(labels) <= _MANY:
            for value in node.outputs:
                self._labels[value] = labels

    def _multiply(self, node: Node) -> None:
        """Queries with keys make logits; what a softmax made of these weighs the values."""
        left, right = (self._of(value) for value in node.inputs[:2])
        weighings = [
            (slot, each)
            for slot, labels in enumerate((left, right))
            for each in labels
            if isinstance(each, Weighting) and each.normalised
        ]
        for slot, each in weighings:
            axis = summed(node, slot)
            along = each.keys if axis is not None and each.owner(axis, None) == each.keys else NEITHER
            self._weigh(each.product, _blocks(left | right), along)
        if not weighings and _blocks(left) and _blocks(right):
            self._meet(node.index, left, right)
            self._labels[node.outputs[0]] = frozenset({Weighting(node.index, of_product(node))})

    def _meet(self, product: int, left: frozenset[Label], right: frozenset[Label]) -> None:
        self._factors[product] = (_blocks(left), _blocks(right))

    def _weigh(self, product: int, values: frozenset[Label], keys: int) -> None:
        """The factor ``keys`` of the product has an entry for every one of the values."""
        self._weighed[product] = self._weighed.get(product, _NOTHING) | _blocks(values)
        self._keys.setdefault(product, set()).add(keys)

    # -- cuts ----------------------------------------------------------------------------------------------------

    def _follow(self, node: Node, cut: Cut) -> None:
        if node.op == "Split":
            for value, piece in zip(node.outputs, self._pieces(node, cut, len(node.outputs)), strict=False):
                self._note(value, piece)
        elif node.op == "SplitToSequence":
            self._sequences[node.outputs[0]] = self._pieces(node, cut, 0)
        elif len(node.outputs) == 1:
            self._note(node.outputs[0], self._moved(node, cut))

    def _moved(self, node: Node, cut: Cut) -> Cut | None:
        if node.op in _KEPT and _live_operands(self._graph, node) == 1:
            return cut
        if node.op in ("Reshape", "Squeeze", "Unsqueeze", "Flatten"):
            sizes = self._sizes.of(node.outputs[0])
            return cut.reshaped(sizes) if sizes is not None else None
        if node.op == "Transpose":
            return cut.transposed(node.integers("perm"))
        if node.op == "Slice":
            return self._sliced(node, cut)
        if node.op == "Gather":
            places = self._operand(node, "", 1)
            return (
                _entry(cut, node.integer("axis", 0), places[0]) if places and self._is_single(node.input(1)) else None
            )
        return None

    def _is_single(self, value: str) -> bool:
        numbers = self._sizes.numbers(value)
        return numbers is not None and numbers.ndim == 0

    def _pieces(self, node: Node, cut: Cut, count: int) -> list[Cut | None]:
        """What a split gives: ``count`` pieces, or single entries, where it names no sizes."""
        axis = node.integer("axis", 0)
        if not -len(cut.axes) <= axis < len(cut.axes):
            return []
        size, place = cut.sizes[axis], axis % len(cut.axes)
        heights = self._operand(node, "split", 1)
        if heights is None or any(height < 0 for height in heights):
            return []
        drops = node.integer("drops", 0) or (not heights and not count and not node.integer("keepdims", 1))
        if len(heights) == 1 and not count and size:  # one size for all pieces
            heights = heights * (size // heights[0]) if heights[0] > 0 and size % heights[0] == 0 else ()
        elif not heights and size:
            height = -(-size // count) if count else 1
            heights = tuple(min(height, size - start) for start in range(0, size, height))
        pieces: list[Cut | None] = []
        for start, height in zip(accumulate((0, *heights)), heights, strict=False):
            piece = cut.sliced(place, start, height)
            pieces.append(piece.dropped(place) if piece is not None and drops else piece)
        return pieces

    def _member(self, node: Node) -> None:
        pieces, number = self._sequences[node.input(0)], self._constants.ints(node.input(1))
        if number is not None and len(number) == 1 and -len(pieces) <= number[0] < len(pieces):
            self._note(node.outputs[0], pieces[number[0]])

    def _sliced(self, node: Node, cut: Cut) -> Cut | None:
        given = [self._operand(node, name, slot) for slot, name in enumerate(("starts", "ends", "axes", "steps"), 1)]
        if any(each is None for each in given):
            return None
        starts, ends, axes, steps = (each or () for each in given)
        axes = axes or tuple(range(len(starts)))
        if not starts or not len(starts) == len(ends) == len(axes) or any(step != 1 for step in steps):
            return None
        current: Cut | None = cut
        for start, end, axis in zip(starts, ends, axes, strict=True):
            if current is None or not -len(cut.axes) <= axis < len(cut.axes):
                return None
            size = cut.sizes[axis]
            first, last = (min(max(each + size if each < 0 else each, 0), size) for each in (start, end))
            current = current.sliced(axis % len(cut.axes), first, max(last - first, 0) if size else 0)
        if current is not None and node.integer("drops", 0) and len(axes) == 1:
            current = current.dropped(axes[0] % len(cut.axes))
        return current

    def _operand(self, node: Node, name: str, slot: int) -> tuple[int, ...] | None:
        """An attribute in older files; computed from sizes in some. None where it is given but not known."""
        if not node.input(slot):
            return node.integers(name)
        numbers = self._sizes.numbers(node.input(slot))
        if numbers is None or not np.isfinite(numbers).all():
            return None
        return tuple(int(number) for number in numbers.reshape(-1))


def _blocks(labels: Iterable[Label]) -> frozenset[Label]:
    return frozenset(label for label in labels if isinstance(label, Block))


def _entry(cut: Cut, axis: int, place: int) -> Cut | None:
    if not -len(cut.axes) <= axis < len(cut.axes):
        return None
    axis %= len(cut.axes)
    size = cut.sizes[axis]
    place = place + size if place < 0 else place
    one = cut.sliced(axis, place, 1) if place >= 0 else None
    return None if one is None else one.dropped(axis)
