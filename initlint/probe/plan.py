"""A probe graph with its measuring points written in, and how to read what they return."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from . import batch_norm, moments, softmax_rows
from .dataflow import Dataflow, reads
from .emit import Emitter
from .graph_rewrite import ProbeGraph, serialise
from .moments import Moments
from .payload import Array
from .reductions import Place, Reductions
from .shapes import Known
from .taps import SoftmaxTap

Point = tuple[Place, tuple[float, float] | None]
"""What is measured: a place, and the flat interval of the non-linearity behind it."""


@dataclass
class Readout:
    """Names of the graph outputs that hold one point's results."""

    raw: str
    shape: str | tuple[int, ...]
    """The output that holds the value's shape, or the shape where it is known beforehand."""
    outside: str = ""
    factor: str = ""
    """Where set, ``raw`` is of the input of a batch norm with this factor and shift."""
    shift: str = ""
    finite: str = ""


@dataclass
class Plan:
    """An instrumented graph."""

    graph: ProbeGraph
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    readouts: dict[Point, Readout] = field(default_factory=dict)
    norms: list[batch_norm.Norm] = field(default_factory=list)
    norm_shapes: dict[str, str] = field(default_factory=dict)
    """By the norm's output value: the graph output that holds its input's shape."""
    scales: dict[Place, str] = field(default_factory=dict)
    """Inputs that take one factor per unit, in a plan for a closer look."""
    apart: dict[str, list[str]] = field(default_factory=dict)
    """By value: the graph outputs that hold its mean variance over the samples, for every axis they may lie along."""
    rows: dict[SoftmaxTap, str] = field(default_factory=dict)
    """The graph outputs that hold rows of logits."""
    directions: dict[str, str] = field(default_factory=dict)
    """By value: the input that takes a direction in which it changes."""
    sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """By input that takes a direction: its shape, where that never changes; some operators insist on one."""
    extra: list[str] = field(default_factory=list)

    @property
    def outputs(self) -> list[str]:
        names: dict[str, None] = dict.fromkeys(self.norm_shapes.values())
        for readout in self.readouts.values():
            for name in (readout.raw, readout.shape, readout.outside, readout.factor, readout.shift, readout.finite):
                if name and isinstance(name, str):
                    names[name] = None
        apart = (name for names in self.apart.values() for name in names)
        return [*names, *self.rows.values(), *apart, *self.extra]

    def model(self, feeds: Iterable[ValueInfoProto]) -> bytes:
        """The serialised model, with only the nodes that its outputs need."""
        flow = Dataflow(self.nodes)
        needed = flow.upstream(self.outputs)
        nodes = [node for index, node in enumerate(self.nodes) if index in needed]
        read = {name for node in nodes for name in reads(node)} | set(self.outputs)
        scales = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * len(place.factor_shape))
            for place, name in self.scales.items()
        ]
        directions = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, self.sizes.get(name))
            for name in self.directions.values()
        ]
        inputs = [value for value in (*feeds, *scales, *directions) if value.name in read]
        graph = replace(self.graph, small=self.graph.small | {tensor.name: tensor for tensor in self.constants})
        return serialise(graph, nodes, inputs, self.outputs)

    def read(self, results: Mapping[str, Any], scales: Mapping[Place, Array] | None = None) -> dict[Point, Moments]:
        """Statistics of every point from the results of one run."""
        return {
            point: self._read(point[0], readout, results, (scales or {}).get(point[0]))
            for point, readout in self.readouts.items()
        }

    def _read(self, place: Place, out: Readout, results: Mapping[str, Any], scale: Array | None) -> Moments:
        shape = tuple(results[out.shape]) if isinstance(out.shape, str) else out.shape
        count = prod(map(int, shape)) // max(place.units(shape), 1)
        length = place.square_length(shape)
        if out.factor:
            found = moments.decode_affine(results[out.raw], count, length, results[out.factor], results[out.shift])
        else:
            found = moments.decode(results[out.raw], count, length, None if scale is None else scale.astype(np.float64))
        if out.finite:
            found = moments.with_finite_share(found, results[out.finite])
        return replace(found, outside=results[out.outside].reshape(-1).astype(np.float64)) if out.outside else found

    def norm_samples(self, results: Mapping[str, Any]) -> dict[batch_norm.Norm, int]:
        """Values per channel that every batch norm had."""
        found = {}
        for norm in self.norms:
            shape = results[self.norm_shapes[norm.output]]
            found[norm] = int(np.prod(shape)) // max(int(shape[1]), 1) if len(shape) > 1 else int(np.prod(shape))
        return found


def measuring(
    graph: ProbeGraph,
    points: Iterable[Point],
    known: Mapping[str, Known],
    softmaxes: Iterable[SoftmaxTap] = (),
    apart: Mapping[str, tuple[int, ...]] = MappingProxyType({}),
) -> Plan:
    """The plan of a first run: every statistic, each right behind the node that writes its value.

    ``apart`` are, by value, the axes along which samples may lie (see ``taps.sample_axes``).
    """
    plan, writer = _begin(graph, known)
    waiting: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        waiting[point[0].value].append(point)
    behind: dict[str, batch_norm.Norm] = {}
    logits = {tap.value: tap for tap in softmaxes if tap.value}

    def measure(value: str) -> None:
        for place, flat in waiting.pop(value, ()):
            plan.readouts[place, flat] = _readout(writer, place, flat, _shape(writer, value, known), behind.get(value))
        if value in apart:
            plan.apart[value] = [writer.variance_along(value, axis) for axis in apart[value]]
        tap, fact = logits.pop(value, None), known.get(value)
        if tap is not None and (rows := softmax_rows.write(writer.emit, tap, None if fact is None else fact.shape)):
            plan.rows[tap] = rows

    _write(plan, writer, behind, measure)
    return plan


def closer_look(graph: ProbeGraph, points: Iterable[Point], known: Mapping[str, Known]) -> Plan:
    """The plan of a second run: ``points`` scaled to order 1, and their share of finite values."""
    plan, writer = _begin(graph, known)
    waiting: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        waiting[point[0].value].append(point)
        plan.scales.setdefault(point[0], writer.emit.name("scale"))

    def measure(value: str) -> None:
        for place, flat in waiting.pop(value, ()):
            readout = Readout(writer.raw(place, plan.scales[place]), _shape(writer, value, known))
            readout.finite = writer.share_finite(place)
            if flat is not None:
                readout.outside = writer.share_outside(place, *flat)
            plan.readouts[place, flat] = readout

    _write(plan, writer, {}, measure)
    return plan


def scouting(graph: ProbeGraph, values: Iterable[str]) -> tuple[Plan, dict[str, str]]:
    """The plan of a run that only asks for the shapes of ``values``; and which output answers for which value."""
    plan, writer = _begin(graph, {})
    named = {value: writer.shape(value) for value in values}
    plan.nodes = [*batch_norm.in_inference_mode(graph.nodes), *writer.emit.take()]
    plan.extra = list(named.values())
    return plan, named


def watching(graph: ProbeGraph, values: Iterable[str]) -> tuple[Plan, dict[str, tuple[str, str]]]:
    """The plan of a run that asks whether ``values`` are finite, and whether they are numbers (infinity included).

    Returns the two outputs per value; each is 1 where the answer is yes for all elements, else 0.
    """
    plan, writer = _begin(graph, {})
    named: dict[str, tuple[str, str]] = {}
    wanted = set(values)

    def measure(value: str) -> None:
        if value in wanted:
            named[value] = writer.all_finite(value)
            plan.extra.extend(named[value])

    _write(plan, writer, {}, measure)
    return plan, named


def _begin(graph: ProbeGraph, known: Mapping[str, Known]) -> tuple[Plan, Reductions]:
    floats = frozenset(name for name, fact in known.items() if fact.elem_type == TensorProto.FLOAT)
    return Plan(graph), Reductions(Emitter(graph.prefix, graph.opset), floats)


def _shape(writer: Reductions, value: str, known: Mapping[str, Known]) -> str | tuple[int, ...]:
    """The value's shape, or an output that will hold it: every node of a large graph costs time to load."""
    static = known[value].static if value in known else None
    return writer.shape(value) if static is None else static


def _readout(
    writer: Reductions,
    place: Place,
    flat: tuple[float, float] | None,
    shape: str | tuple[int, ...],
    norm: batch_norm.Norm | None,
) -> Readout:
    if norm is not None and place.axis == 1:
        inner = Place(norm.input, 1, place.rank)
        readout = Readout(writer.raw_once(inner), shape, "", norm.factor, norm.shift)
    else:
        readout = Readout(writer.raw_once(place), shape)
    if flat is not None:
        readout.outside = writer.share_outside(place, *flat)
    return readout


def _write(plan: Plan, writer: Reductions, behind: dict[str, batch_norm.Norm], measure: Any) -> None:
    emit = writer.emit
    written = {output for node in plan.graph.nodes for output in node.output}
    for name in sorted(plan.graph.known - written):
        measure(name)
    plan.nodes += emit.take()
    for node in plan.graph.nodes:
        if batch_norm.is_batch_norm(node):
            norm = batch_norm.write(node, writer)
            behind[norm.output] = norm
            plan.norms.append(norm)
            plan.norm_shapes[norm.output] = emit.op("Shape", norm.input)
        else:
            emit.nodes.append(node)
        for output in node.output:
            measure(output)
        plan.nodes += emit.take()
    plan.constants = emit.constants
