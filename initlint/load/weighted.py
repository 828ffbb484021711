"""Weighted operations of an ONNX graph: which node computes what with which stored tensor, in which layout."""

from __future__ import annotations

from collections.abc import Iterator

from ..kinds import Kind, Role
from ..model import NotChecked, View
from .constants import Constants
from .folding import is_float
from .graph import Graph, Node
from .linear_maps import HANDLERS
from .norm_sites import NormSite
from .reader import WeightReader
from .recurrences import RECURRENCE, eager_recurrence, recurrences
from .stored import Operation, Stored


class Finder:
    """Finds the weighted operations of a graph; what it cannot judge lands in ``not_checked``."""

    def __init__(self, graph: Graph, constants: Constants, norms: list[NormSite]) -> None:
        self._graph = graph
        self._constants = constants
        self._norms = norms
        self._reader = WeightReader(graph, constants)

    @property
    def not_checked(self) -> tuple[NotChecked, ...]:
        return tuple(dict.fromkeys(self._reader.not_checked))

    def operations(self) -> list[Operation]:
        """In execution order."""
        found: list[Operation] = []
        absorbed = {index for site in self._norms for index in site.absorbed}
        nodes = [node for node in self._graph.nodes if node.index not in absorbed]
        for site in self._norms:
            found += self._norm(site)
        for node in nodes:
            found += self._found_in(node)
        used = {root for op in found for root in self._roots_of(op)}
        for node in nodes:
            if node.op in ("Gather", "GatherND"):
                found += self._table(node, used)
        return sorted(found, key=lambda op: op.node.index)

    def _found_in(self, node: Node) -> list[Operation]:
        try:
            if node.op in HANDLERS:
                return list(HANDLERS[node.op](self._reader, node))
            if node.op in ("LSTM", "GRU", "RNN"):
                return list(recurrences(self._reader, node))
            if node.op == RECURRENCE:
                return list(eager_recurrence(self._reader, node))
            return list(self._prelu(node)) if node.op == "PRelu" else []
        except (ArithmeticError, LookupError, TypeError, ValueError):
            reason = f"operator {node.op!r} contradicts itself or its weights"
            self._reader.not_checked.append(NotChecked(node.name or node.outputs[0], reason))
            return []

    def _roots_of(self, op: Operation) -> Iterator[str]:
        for stored in (op.weight, op.bias, op.recurrent, op.recurrent_bias, *op.others):
            if stored is not None:
                yield from self._constants.roots(stored.value)

    def _table(self, node: Node, used: set[str]) -> Iterator[Operation]:
        """A float matrix looked up by rows: an embedding, positions included, unless a weight was cut out of it."""
        name = node.input(0)
        if not self._constants.known(name) or not self._takes_rows(node):
            return
        array = self._reader.weight(name)
        if array is not None and array.ndim > 2 and self._reader.is_live(node.input(1)) and is_float(array.dtype):
            reason = "the data choose which of its matrices is used, as a router chooses an expert"
            self._reader.not_checked += [NotChecked(root, reason) for root in self._constants.roots(name)]
        if array is None or array.ndim != 2 or min(array.shape) < 1:
            return
        if not is_float(array.dtype):  # rows of integers, whose scale is not known here
            return
        indices = self._constants.spec(node.input(1))
        if indices is not None and (indices.ndim == 0 or set(self._constants.roots(name)) & used):
            return
        rows, width = array.shape
        weight = Stored(name, Role.TABLE, (rows, width), View(1, rows, width))
        source = (node.input(1),) if self._reader.is_live(node.input(1)) else ()
        yield Operation(
            Kind.EMBEDDING, node, source, node.outputs[0], -1, weight, fan_out=width, outputs=(node.outputs[0],)
        )

    def _takes_rows(self, node: Node) -> bool:
        """The newer exporter writes ``table[indices]`` as GatherND by one index, made of one tensor of indices."""
        if node.op == "Gather":
            return node.integer("axis", 0) == 0
        joined = self._graph.producer.get(node.input(1))
        return (
            node.integer("batch_dims", 0) == 0
            and joined is not None
            and (joined.op == "Unsqueeze" or (joined.op == "Concat" and len(joined.inputs) == 1))
        )

    def _prelu(self, node: Node) -> Iterator[Operation]:
        array = self._reader.weight(node.input(1))
        if array is None or not self._reader.is_live(node.input(0)):
            return
        slope = self._reader.vector(node.input(1), Role.SLOPE, array.size)
        if slope is not None:
            yield Operation(Kind.PRELU, node, (node.input(0),), node.outputs[0], 1, slope, outputs=(node.outputs[0],))

    def _norm(self, site: NormSite) -> Iterator[Operation]:
        array = self._reader.weight(site.gain) if site.gain else None
        if array is None:
            return
        size = array.size
        gain = self._reader.vector(site.gain, Role.GAIN, size)
        shift = self._reader.vector(site.shift, Role.SHIFT, size) if site.shift else None
        others = [
            stored
            for name, role, suffix in (
                (site.mean, Role.RUNNING_MEAN, "running_mean"),
                (site.variance, Role.RUNNING_VARIANCE, "running_var"),
            )
            if name and (stored := self._reader.vector(name, role, size, suffix, fixed=True)) is not None
        ]
        last = site.kind in (Kind.LAYER_NORM, Kind.RMS_NORM)
        if gain is not None:
            yield Operation(
                site.kind,
                site.node,
                (site.source,),
                site.value,
                -1 if last else 1,
                gain,
                shift,
                others=tuple(others),
                absorbed=site.absorbed,
                outputs=(site.value,),
            )
