"""Loops over layers written out round by round.

JAX and Flax keep the weights of equal layers in one stack and scan over it (``lax.scan``, ``nn.scan``): every round of
a Scan or Loop takes the next matrix. Within the body that matrix has no values of its own; written out, each round
reads its own piece of the stack, and is a layer like any other. Loops over time, whose rounds share their weights,
stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from . import graph as flat
from . import wiring
from .constants import Constants
from .folding import is_float
from .protos import keep
from .writing import PER_AXIS, Writer, attributes_of, input_of

MAX_NODES = 50_000
"""Written out; more than the largest public graphs have, and a tenth of what a file may amount to (``functions``)."""

_SCANS_WITHOUT_BATCH = 9
"""The opset from which on Scan has no batch axis of its own."""

_STACK = 3
"""Axes of a stack of matrices."""

_PICKS = frozenset({"Gather", "GatherND", "Slice"})


def unroll(proto: ModelProto, base_dir: Path | None) -> None:
    """Rewrite ``proto``: loops of the main graph that take another matrix in every round are gone."""
    budget = MAX_NODES
    while (found := _first(proto, base_dir, budget)) is not None:
        position, loop = found
        nodes = list(proto.graph.node)
        budget -= loop.size
        written = loop.written(position)
        proto.graph.initializer.extend([*loop.stored, *loop.to.constants])
        keep(proto.graph.node, [*nodes[:position], *written, *nodes[position + 1 :]])


def _first(proto: ModelProto, base_dir: Path | None, budget: int) -> tuple[int, _Loop] | None:
    if not any(node.op_type in ("Scan", "Loop") for node in proto.graph.node):
        return None
    whole = flat.build(proto)
    constants = Constants(whole, base_dir)
    for position, node in enumerate(proto.graph.node):
        if node.op_type not in ("Scan", "Loop") or (node.op_type == "Scan" and whole.opset < _SCANS_WITHOUT_BATCH):
            continue
        taken = {name for each in wiring.graphs(proto.graph) for name in _names(each)}
        loop = _Loop(node, constants, Writer(whole.opset, taken))
        if loop.rounds and loop.takes_other_matrices and loop.size <= budget:
            return position, loop
    return None


def _names(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from (*node.input, *node.output)
    yield from (each.name for each in (*graph.initializer, *graph.input, *graph.output))


@dataclass(eq=False)
class _Loop:
    """A Scan or Loop of the main graph."""

    node: NodeProto
    constants: Constants
    to: Writer

    def __post_init__(self) -> None:
        self.given = attributes_of(self.node)
        self.body: GraphProto = self.given["body"]
        self.scans = self.node.op_type == "Scan"
        counted = 0 if self.scans else 2  # a Loop's body is told its round and its condition first
        self.slices = self.given.get("num_scan_inputs", 0)
        self.states = [value.name for value in self.body.input[counted : len(self.body.input) - self.slices]]
        self.sliced = [value.name for value in self.body.input[len(self.body.input) - self.slices :]]
        self.starts = list(self.node.input[counted : counted + len(self.states)])
        self.stacks = list(self.node.input[len(self.states) :]) if self.scans else []
        made = [value.name for value in self.body.output[0 if self.scans else 1 :]]
        self.results, self.collected = made[: len(self.states)], made[len(self.states) :]
        self.stored: list[TensorProto] = []  # the body's own tensors, which all rounds share

    # -- whether ----------------------------------------------------------------------------------------------------

    @cached_property
    def rounds(self) -> int:
        """How many there are; 0 where the data decide, or the node contradicts itself."""
        if len(self.starts) != len(self.states) or len(self.results) != len(self.states):
            return 0
        if self.scans:
            shapes = [(self._shape(value), self._axis("input", slot)) for slot, value in enumerate(self.stacks)]
            lengths = {shape[axis] for shape, axis in shapes if shape and -len(shape) <= axis < len(shape)}
            return lengths.pop() if len(lengths) == 1 and len(self.stacks) == self.slices else 0
        count = self.constants.scalar(input_of(self.node, 0)) if input_of(self.node, 0) else None
        return int(count) if count is not None and 0 < count <= MAX_NODES and self._goes_on() else 0

    def _goes_on(self) -> bool:
        """Whether nothing ends a Loop but its count."""
        start, handed = input_of(self.node, 1), self.body.output[0].name
        makers = {each.output[0]: each for each in self.body.node if each.output}
        while (maker := makers.get(handed)) is not None and maker.op_type == "Identity":
            handed = maker.input[0]
        if maker is not None and maker.op_type == "Constant" and maker.attribute[0].HasField("t"):
            kept = bool(numpy_helper.to_array(maker.attribute[0].t).all())
        else:
            kept = handed == self.body.input[1].name or self.constants.scalar(handed) == 1.0
        return kept and (not start or self.constants.scalar(start) == 1.0)

    @property
    def size(self) -> int:
        """Nodes when written out."""
        return self.rounds * sum(len(each.node) for each in wiring.graphs(self.body))

    @cached_property
    def takes_other_matrices(self) -> bool:
        """Whether a stored stack is scanned, or cut by what only the number of the round decides."""
        if any(self._is_stack(value) for value in self.stacks):
            return True
        counted = self._counted()
        return any(
            node.op_type in _PICKS
            and self._is_stack(node.input[0])
            and any(value in counted for value in node.input[1:])
            for node in self.body.node
        )

    def _counted(self) -> set[str]:
        """Values of the body that differ between rounds, and that the number of the round alone decides."""
        fixed = [result for result, start in zip(self.states, self.starts, strict=True) if self.constants.known(start)]
        known = self.constants.known
        scanned = [formal for formal, value in zip(self.sliced, self.stacks, strict=True) if known(value)]
        while True:
            counted = {self.body.input[0].name} if not self.scans else set()
            counted |= {*fixed, *scanned}
            own = {each.name for each in self.body.initializer}
            for node in self.body.node:
                if node.input and all(not v or v in counted or v in own or known(v) for v in node.input):
                    counted.update(node.output)
                elif node.op_type == "Constant":
                    own.update(node.output)
            ends = dict(zip(self.states, self.results, strict=True))
            if (left := [each for each in fixed if ends[each] in counted]) == fixed:
                return counted
            fixed = left

    def _shape(self, value: str) -> tuple[int, ...]:
        spec = self.constants.spec(value) if self.constants.known(value) else None
        return spec.shape if spec is not None else ()

    def _is_stack(self, value: str) -> bool:
        spec = self.constants.spec(value) if self.constants.known(value) else None
        return spec is not None and spec.ndim >= _STACK and is_float(spec.dtype)

    def _axis(self, side: str, slot: int) -> int:
        axes = self.given.get(f"scan_{side}_axes", [])
        return int(axes[slot]) if slot < len(axes) else 0

    def _is_backward(self, side: str, slot: int) -> bool:
        directions = self.given.get(f"scan_{side}_directions", [])
        return slot < len(directions) and directions[slot] == 1

    # -- written out ------------------------------------------------------------------------------------------------

    def written(self, position: int) -> list[NodeProto]:
        """The nodes that stand for the loop, which is the node at ``position``."""
        within = flat.inside("", self.node, position, "body")
        while any(name.startswith(within) for name in self.to.taken):
            within = f"_{within}"
        shared = self._shared(within)
        states, rows = self.starts, list[list[str]]()
        for number in range(self.rounds):
            names = shared | dict(zip(self.states, states, strict=True)) | self._handed(number)
            for node in self.body.node:
                if node.op_type != "Constant":
                    self.to.nodes.append(_round_of(node, names, f"{within}{number}/", number))
            states = [names.get(result, result) for result in self.results]
            rows.append([names.get(result, result) for result in self.collected])
        for value, output in zip(states, self.node.output, strict=False):
            if output:
                self.to.op("Identity", [value], output)
        for slot, output in enumerate(self.node.output[len(self.states) :]):
            if output:
                self._collect([row[slot] for row in rows], output, slot)
        return self.to.nodes

    def _shared(self, within: str) -> dict[str, str]:
        """New names of the body's tensors, which are stored once."""
        names = {}
        for tensor in self.body.initializer:
            names[tensor.name] = f"{within}{tensor.name}"
            self.stored.append(type(tensor).FromString(tensor.SerializeToString()))
            self.stored[-1].name = names[tensor.name]
        for node in self.body.node:
            if node.op_type == "Constant":
                names[node.output[0]] = f"{within}{node.output[0]}"
                self.to.nodes.append(_renamed(node, {}, names))
        return names

    def _handed(self, number: int) -> dict[str, str]:
        """What the body reads of the round's number, and of what is scanned."""
        if not self.scans:
            count, go = (value.name for value in self.body.input[:2])
            return {count: self.to.constant(np.int64(number)), go: self.to.constant(np.bool_(True))}
        handed = {}
        for slot, (formal, stack) in enumerate(zip(self.sliced, self.stacks, strict=True)):
            place = self.rounds - 1 - number if self._is_backward("input", slot) else number
            index = self.to.constant(np.int64(place))
            handed[formal] = self.to.op("Gather", [stack, index], axis=self._axis("input", slot))
        return handed

    def _collect(self, values: list[str], output: str, slot: int) -> None:
        axis = self._axis("output", slot)
        ordered = values[::-1] if self._is_backward("output", slot) else values
        if self.to.opset >= PER_AXIS:
            axes = self.to.ints(axis)
            rows = [self.to.op("Unsqueeze", [value, axes]) for value in ordered]
        else:
            rows = [self.to.op("Unsqueeze", [value], axes=[axis]) for value in ordered]
        self.to.op("Concat", rows, output, axis=axis)


def _round_of(node: NodeProto, names: dict[str, str], prefix: str, number: int) -> NodeProto:
    """A copy of one of the body's nodes, whose outputs ``names`` learns."""
    inputs = dict(names)
    names.update({value: f"{prefix}{value}" for value in node.output if value})
    copy = _renamed(node, inputs, names)
    copy.name = f"{node.name}_{number}" if node.name else ""
    return copy


def _renamed(node: NodeProto, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    del copy.input[:]
    copy.input.extend(inputs.get(value, value) for value in node.input)
    del copy.output[:]
    copy.output.extend(outputs.get(value, value) for value in node.output)
    for attribute in copy.attribute:
        _rename_bodies(attribute, inputs)
    return copy


def _rename_bodies(attribute: AttributeProto, names: Mapping[str, str]) -> None:
    """Bodies within read what lies around them under its new names; their own names hide those."""
    held: Iterable[GraphProto] = [attribute.g] if attribute.HasField("g") else attribute.graphs
    for graph in held:
        own = {each.name for each in (*graph.input, *graph.initializer)}
        own |= {value for node in graph.node for value in node.output}
        left = {old: new for old, new in names.items() if old not in own}
        for node in graph.node:
            for slot, value in enumerate(node.input):
                node.input[slot] = left.get(value, value)
            for inner in node.attribute:
                _rename_bodies(inner, left)
        for value in graph.output:
            value.name = left.get(value.name, value.name)
