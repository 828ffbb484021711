"""Where NaN or infinity first appears: the operation, and the stored tensors that brought it about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from onnx import NodeProto, TensorProto, numpy_helper

from .batch_norm import is_batch_norm
from .dataflow import Dataflow
from .graph_rewrite import ProbeGraph
from .payload import Array
from .plan import watching
from .setup import Setup
from .signals import NonFiniteOrigin

LINEAR = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "LSTM", "GRU", "RNN", "Gather", "Attention"})
"""Weighted operations: what lies before one of them is another layer's business."""

_ACTIVATIONS = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Sigmoid", "HardSigmoid", "Tanh", "Softplus", "Softsign"}
    | {"Gelu", "FastGelu", "QuickGelu", "HardSwish", "Mish", "Softmax", "LogSoftmax", "Clip", "Sin", "Cos", "Swish"}
)
_POLES = frozenset({"Div", "Reciprocal", "Log", "Pow", "Atanh", "Tan"})
"""Operations that reach infinity from ordinary values."""

_MAX_STEPS = 200
"""Operations looked at on the way back from the culprit to its tensors."""


class State(Enum):
    FINITE = "finite"
    INF = "inf"
    NAN = "nan"


@dataclass(frozen=True, slots=True)
class Culprit:
    """The operation that turned finite values into others. ``node`` is None where a fed value was not finite itself."""

    node: NodeProto | None
    value: str
    kind: str


@dataclass
class Search:
    """One graph and the states of its values in one run."""

    graph: ProbeGraph
    flow: Dataflow
    states: Mapping[str, State]
    live: frozenset[str]
    """Values that depend on an input."""
    roots: Mapping[str, tuple[str, ...]]
    trainable: frozenset[str]
    """Addresses of tensors that are meant to be finite; others may be masks."""

    def culprit(self, target: str) -> Culprit:
        """Follow non-finite values back from ``target`` to where they began."""
        value, blame = target, None
        while True:
            state = self.states.get(value, State.FINITE)
            index = self.flow.producer.get(value)
            if index is None:
                return blame or Culprit(None, value, state.value)
            node = self.flow.nodes[index]
            tainted = [name for name in self._reads(node) if self._state(name) is not State.FINITE]
            same = [name for name in tainted if self._state(name) is state]
            if state is State.NAN and tainted and not same:
                if all(self._is_mask(name) for name in tainted):
                    masked = node.op_type in ("Softmax", "LogSoftmax")  # a row of it holds nothing else
                    return Culprit(node, value, "masked" if masked else State.NAN.value)
                tainted = [name for name in tainted if not self._is_mask(name)]
            earlier = same or tainted
            if not earlier:
                return Culprit(node, value, _kind(node, state))
            value = min(earlier, key=lambda name: self.flow.producer.get(name, -1))
            if self.flow.producer.get(value) is None:
                return Culprit(node if value in self.roots else None, value, self._state(value).value)

    def tensors(self, culprit: Culprit) -> tuple[str, ...]:
        """Addresses that reach the culprit without passing another weighted operation or an activation."""
        if culprit.kind == "masked":  # whatever the weights are
            return ()
        if culprit.value in self.roots and culprit.value not in self.flow.producer:
            return self.roots[culprit.value]
        found: dict[str, None] = {}
        waiting = [culprit.node] if culprit.node is not None else []
        seen: set[int] = set()
        while waiting and len(seen) < _MAX_STEPS:
            node = waiting.pop(0)
            constants = [name for name in self._reads(node) if name not in self.live]
            for name in constants:
                found.update(dict.fromkeys(self._stored(name)))
            weighted = node.op_type in LINEAR and any(self._stored(name) for name in constants)
            if weighted or (node.op_type in _ACTIVATIONS and node is not culprit.node):
                continue
            for name in self._reads(node):
                index = self.flow.producer.get(name)
                if name in self.live and index is not None and index not in seen:
                    seen.add(index)
                    waiting.append(self.flow.nodes[index])
        return tuple(found)

    def _state(self, name: str) -> State:
        return self.states.get(name, State.FINITE)

    def _is_mask(self, name: str) -> bool:
        """An infinity that is meant: it comes from constants that are no weights."""
        return self._state(name) is State.INF and not any(
            self.trainable.intersection(self._stored(source)) for source in self._infinite_sources(name)
        )

    def _infinite_sources(self, name: str) -> Iterable[str]:
        """Constants that an infinite value comes from."""
        waiting, seen = [name], {name}
        while waiting:
            value = waiting.pop()
            index = self.flow.producer.get(value)
            if index is None or value not in self.live:
                yield value
                continue
            sources = [read for read in self._reads(self.flow.nodes[index]) if self._state(read) is not State.FINITE]
            if not sources:  # it became infinite on its way: nobody meant that
                yield from self._reads(self.flow.nodes[index])
            for read in sources:
                if read not in seen:
                    seen.add(read)
                    waiting.append(read)

    def _reads(self, node: NodeProto) -> list[str]:
        if is_batch_norm(node):
            return list(node.input[:3])
        return self.flow.reads[self.flow.producer[next(name for name in node.output if name)]]

    def _stored(self, name: str) -> tuple[str, ...]:
        """Addresses of the stored tensors behind a constant value."""
        if name in self.roots:
            return self.roots[name]
        found: dict[str, None] = {}
        for index in sorted(self.flow.upstream([name])):
            for read in self.flow.reads[index]:
                found.update(dict.fromkeys(self.roots.get(read, ())))
        return tuple(found)


def _kind(node: NodeProto, state: State) -> str:
    if state is State.NAN:
        # Sums of finite products are NaN only where partial sums were plus and minus infinity.
        return "overflow" if node.op_type in LINEAR else "nan"
    return "inf" if node.op_type in _POLES else "overflow"


def operation(culprit: Culprit) -> str:
    """The culprit in words: "Div at /norm/Div"."""
    if culprit.node is None:
        return f"input {culprit.value}"
    return f"{culprit.node.op_type} at {culprit.node.name or culprit.value}"


def find(
    setup: Setup,
    suspects: Iterable[tuple[str, str]],
    sound: frozenset[str],
    roots: Mapping[str, tuple[str, ...]],
    trainable: frozenset[str],
) -> NonFiniteOrigin | None:
    """The origin of what is not finite in ``suspects``: pairs (value, layer), layers being empty for outputs.

    ``sound`` are values known to be finite: nothing behind them is looked at. None where a second run does not show
    it again, or where the values' types are not known.
    """
    flow = Dataflow(setup.graph.nodes)
    layer_of = dict(reversed([*suspects]))
    first = min(layer_of, key=lambda value: (not layer_of[value], flow.producer.get(value, -1)))
    states = _states(setup, flow, first, sound)
    if first not in states:
        return None
    search = Search(setup.graph, flow, states, frozenset(flow.downstream(setup.graph.inputs)), roots, trainable)
    culprit = search.culprit(first)
    return NonFiniteOrigin(layer_of[first], operation(culprit), search.tensors(culprit), culprit.kind)


def _states(setup: Setup, flow: Dataflow, target: str, sound: frozenset[str]) -> dict[str, State]:
    """States of everything upstream of ``target`` that is not finite, in the first run that shows it there."""
    watched = []
    for index in sorted(flow.upstream([target], sound)):
        for output in flow.nodes[index].output:
            fact = setup.known.get(output)
            if fact is not None and fact.elem_type == TensorProto.FLOAT and 0 not in (fact.shape or ()):
                watched.append(output)
    plan, named = watching(setup.graph, watched)
    session = setup.load(plan)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in setup.graph.small.values()}
    found: dict[str, State] = {}
    for run in range(setup.attempt.runs):
        feeds = setup.feeds(run)
        results = session.run(feeds)
        found = {name: _state_of(array) for name, array in {**stored, **feeds}.items() if array.dtype.kind == "f"}
        for value, (finite, number) in named.items():
            if results[finite] < 1:
                found[value] = State.INF if results[number] >= 1 else State.NAN
        found = {name: state for name, state in found.items() if state is not State.FINITE}
        if target in found:
            break
    return found


def _state_of(array: Array) -> State:
    if np.isfinite(array).all():
        return State.FINITE
    return State.NAN if np.isnan(array).any() else State.INF
