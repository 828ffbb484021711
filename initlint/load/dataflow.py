"""Walks over the graph: which layer feeds which, through what, and where an output ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from ..activations import ENDING_AT_ZERO, SAME, Affine
from ..kinds import Kind, Source, Use
from .constants import Constants
from .dominators import Dominators
from .elementwise import Regions
from .entries import Entries
from .graph import LINK, Graph, Node, carried
from .links import UNKNOWN, Link, Links
from .norm_sites import NormSite
from .readings import Readings
from .shuffles import Shuffles, slopes_of
from .stored import Operation

_FIRST_INPUT = frozenset(
    {
        "Identity", "Cast", "CastLike", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Dropout", "Slice",
        "Split", "Pad", "Expand", "Tile", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool",
        "GlobalLpPool", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "Resize", "Upsample", "DepthToSpace",
        "SpaceToDepth", "LRN", "Trilu", "Neg", "MaxRoiPool", "QuantizeLinear", "DequantizeLinear", "Gather",
        "GatherElements", "GatherND", "CumSum", "Compress", "ReverseSequence", "Clip", "SplitToSequence", "SequenceAt",
        "AffineGrid", "Col2Im",
    }
)  # fmt: skip
"""Operators that hand their first input on: moved, pooled, rescaled, but not combined with other data."""

_MERGES = frozenset({"Concat", "SequenceConstruct", "SequenceInsert", "ConcatFromSequence", LINK, "Where", "ScatterND",
                     "ScatterElements", "Max", "Min"})  # fmt: skip
"""Operators that put several values side by side."""

_SUMS = frozenset({"Add", "Sub", "Sum", "Mean", "com.microsoft::SkipLayerNormalization",
                   "com.microsoft::SkipSimplifiedLayerNormalization"})  # fmt: skip
_PRODUCTS = frozenset({"Mul", "Div", "MatMul", "Einsum", "Gemm", "Pow", "com.microsoft::FusedMatMul"})
ATTENTIONS = {"Attention": 3, "com.microsoft::MultiHeadAttention": 5, "com.microsoft::GroupQueryAttention": 10}
"""Operators that read queries, keys and values, and the position of the mask that is added to the logits."""
PRODUCTS_OF_MATRICES = frozenset({"MatMul", "Einsum", "Gemm", "com.microsoft::FusedMatMul"})
SOFTMAXES = {"Softmax": "softmax", "LogSoftmax": "log-softmax", "Hardmax": "softmax"}

_COORDINATES = {
    "GridSample": (1,), "DeformConv": (2, 3), "com.microsoft::DeformConv": (2, 3), "RoiAlign": (1, 2), "TopK": (0, 1),
    "ArgMax": (0,), "ArgMin": (0,), "NonMaxSuppression": (0, 1), "Gather": (1,), "GatherElements": (1,),
    "GatherND": (1,), "ScatterND": (1,), "ScatterElements": (1,), "OneHot": (0,), "Where": (0,), "AffineGrid": (0,),
    "CumSum": (1,), "Round": (0,), "Floor": (0,), "Ceil": (0,),
}  # fmt: skip
"""Inputs that place or choose data instead of carrying it."""

_REARRANGED = frozenset(
    {"Identity", "Cast", "CastLike", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Dropout"}
)
"""Operators that leave a constant per unit one; padding does not."""

MAX_FEEDS = 512
"""A residual stream is fed by every branch before; of more than so many the latest are kept."""

_MAX_WALK = 4000
"""Values that one walk visits; a walk ends at the next layer, so real ones stay below a hundred."""


@dataclass
class Flow:
    """What walks found for one operation."""

    activation: str = "identity"
    activation_reads: Affine = SAME
    gate: str = ""
    gate_reads: Affine = SAME
    input_activation: str = "identity"
    input_link: Link = UNKNOWN
    input_source: Source = Source.MIXED
    norm_after: Kind | None = None
    bias_removed: bool = False
    uses: set[Use] = field(default_factory=set)
    producers: list[int] = field(default_factory=list)
    bypassed: bool = False
    shuffles_units: bool = False
    multiplies_itself: bool = False
    learnt_input: bool = False
    reads_inputs: bool = False
    position: int = 0


class Dataflow:
    """Answers for one graph; operations are known by their position in ``operations``."""

    def __init__(
        self,
        graph: Graph,
        constants: Constants,
        norms: list[NormSite],
        regions: Regions,
        operations: list[Operation],
    ) -> None:
        self._graph = graph
        self._constants = constants
        self._regions = regions
        self._operations = operations
        self._norm_of_source: dict[str, list[NormSite]] = {}
        for site in norms:
            self._norm_of_source.setdefault(site.source, []).append(site)
        self._norm_of_value = {site.value: site for site in norms}
        self._norm_nodes = {index for site in norms for index in site.absorbed}
        self._op_of_value = {value: i for i, op in enumerate(operations) for value in op.outputs}
        self._op_nodes = {index: i for i, op in enumerate(operations) for index in (op.node.index, *op.absorbed)}
        self._links = Links(graph, constants, regions, {*self._op_of_value, *self._norm_of_value})
        self._readings = Readings(graph, constants, regions)
        self._shuffles = Shuffles(graph, constants, regions, self._norm_of_source, slopes_of(operations))
        entries = Entries(graph, constants, regions, frozenset(self._op_nodes)).found()
        self._entries = frozenset(entries or graph.learnt)
        self._dominators = Dominators(graph, self._entries)

    def flow(self, position: int) -> Flow:
        op = self._operations[position]
        flow = Flow(position=position)
        self._forwards(op, flow)
        if op.fused:
            flow.activation = op.fused
        self._backwards(op, flow)
        flow.producers = sorted(self._feeding(position))
        flow.bypassed = not self._dominators.dominates_output(op.node)
        flow.learnt_input = bool(op.inputs) and self._graph.fed.isdisjoint(op.inputs)
        flow.reads_inputs = not self._untouched.isdisjoint(op.inputs)
        return flow

    # -- forwards ------------------------------------------------------------------------------------------------

    def _forwards(self, op: Operation, flow: Flow) -> None:
        if op.is_attention:
            flow.uses |= {Use.PRODUCT, Use.SOFTMAX}
            return
        flow.norm_after = self._norm_reading(op.output)
        flow.bias_removed = self._bias_removed(op)
        flow.shuffles_units = self._shuffles.of(op)
        pending = deque((value, False) for value in op.outputs)
        seen: set[tuple[str, bool]] = set(pending)
        reads = dict.fromkeys(op.outputs, SAME)
        named = False
        while pending and len(seen) < _MAX_WALK:
            value, behind_product = pending.popleft()
            if value in self._graph.outputs and not behind_product:
                flow.uses.add(Use.OUTPUT)
            regions = self._regions.starting.get(value, [])
            if regions and not named and not behind_product:
                flow.activation, flow.activation_reads, named = regions[0].name, reads[value], True
            if not (flow.gate or behind_product):
                flow.gate = next((each.name for each in regions if each.name in ENDING_AT_ZERO), "")
                flow.gate_reads = reads[value] if flow.gate else SAME
            for step in self._steps(value, flow, behind_product):
                if step not in seen:
                    seen.add(step)
                    pending.append(step)
                    reads.setdefault(step[0], self._readings.behind(value, step[0], reads[value]))

    def _steps(self, value: str, flow: Flow, behind_product: bool) -> Iterator[tuple[str, bool]]:
        inside: set[int] = set()
        for region in self._regions.starting.get(value, []):
            inside |= region.nodes
            yield region.end, behind_product
        for site in self._norm_of_source.get(value, []):
            if behind_product:
                continue
            if site.is_sum:
                flow.uses.add(Use.SUM)
            else:
                yield site.value, behind_product
        for user, slot in self._graph.readers(value):
            if user.index in inside or user.index in self._norm_nodes:
                continue
            yield from self._step(user, slot, flow, behind_product)

    def _step(self, user: Node, slot: int, flow: Flow, behind_product: bool) -> Iterator[tuple[str, bool]]:
        out = [(value, behind_product) for value in user.outputs if value]
        if user.op in SOFTMAXES:
            flow.uses.add(Use.SOFTMAX)
            if flow.activation == "identity" and not behind_product:
                flow.activation = SOFTMAXES[user.op]
            if not behind_product:
                yield from out
        elif behind_product and (user.index in self._op_nodes or user.op in ATTENTIONS or user.op == "MatMul"):
            return  # looking for a softmax only
        elif user.index in self._op_nodes:
            self._meet_operation(user, slot, flow)
            if self._operations[self._op_nodes[user.index]].kind is Kind.PRELU:
                flow.activation = "prelu" if flow.activation == "identity" else flow.activation
        elif slot in _COORDINATES.get(user.op, ()):
            flow.uses.add(Use.COORDINATE)
        elif user.op in ATTENTIONS:
            self._meet_attention(user, slot, flow)
        elif user.op in _SUMS or user.op in _PRODUCTS:
            if self._is_combined(user):
                if behind_product:
                    yield from out if user.op in _SUMS else []
                    return
                flow.uses.add(Use.SUM if user.op in _SUMS else Use.PRODUCT)
                if user.op not in _SUMS:
                    flow.multiplies_itself |= user.op != "Div" and not flow.gate and self._meets_itself(user, flow)
                    yield from ((value, True) for value, _ in out)
            else:
                yield from out
        elif (user.op in _FIRST_INPUT and slot == 0) or user.op in _MERGES or user.op in _ELEMENTWISE:
            yield from out

    def _meets_itself(self, product: Node, flow: Flow) -> bool:
        """Two factors of the product come straight from the operation whose flow this is, as from a packed q, k, v.

        Gates are left out, which are not zero where what goes in is, as shares that are divided by their sum.
        """
        factors = {value for value in product.inputs if value in self._graph.live}
        return sum(flow.position in self._feeds.get(value, _NOTHING) for value in factors) > 1

    def _meet_attention(self, user: Node, slot: int, flow: Flow) -> None:
        """Queries and keys become logits in a product, values are weighted; a mask is added to the logits."""
        if slot == ATTENTIONS[user.op]:
            flow.uses |= {Use.SUM, Use.SOFTMAX}
            flow.activation = "softmax" if flow.activation == "identity" else flow.activation
        else:
            flow.multiplies_itself |= self._meets_itself(user, flow)
            flow.uses |= {Use.PRODUCT, Use.SOFTMAX} if slot < 2 else {Use.PRODUCT}

    @staticmethod
    def _meet_operation(user: Node, slot: int, flow: Flow) -> None:
        if user.op in ("LSTM", "GRU", "RNN") and slot > 4:
            flow.uses.add(Use.SUM)  # an initial state
        else:
            flow.uses.add(Use.LAYER)

    def _is_combined(self, node: Node) -> bool:
        """Two or more operands carry data; x * x counts as one."""
        return len({value for value in node.inputs if value in self._graph.live}) > 1

    def _norm_reading(self, value: str) -> Kind | None:
        """The norm that is the only reader of ``value``, through moves and constant factors."""
        for _ in range(32):
            sites = self._norm_of_source.get(value, [])
            users = {u.index: u for u, _ in self._graph.readers(value)}
            if sites:
                others = [u for u in users.values() if not any(u.index in site.absorbed for site in sites)]
                return None if others or value in self._graph.outputs or sites[0].is_sum else sites[0].kind
            if len(users) != 1 or value in self._graph.outputs or value in self._regions.starting:
                return None
            user = next(iter(users.values()))
            if user.index in self._op_nodes or user.index in self._norm_nodes or self._is_combined(user):
                return None
            if user.op not in _SUMS | _PRODUCTS | _FIRST_INPUT:
                return None
            value = user.outputs[0]
        return None

    def _bias_removed(self, op: Operation) -> bool:
        """A batch or instance norm over the very units of ``op`` is its output's only reader: none pads or masks it."""
        value = op.output
        while value not in self._graph.outputs and len(readers := self._graph.readers(value)) == 1:
            if sites := self._norm_of_source.get(value, []):
                sizes = (self._constants.spec(name) for name in (sites[0].gain, *sites[0].node.inputs[1:]) if name)
                units = op.weight.view.groups * op.weight.view.units
                return sites[0].kind in (Kind.BATCH_NORM, Kind.INSTANCE_NORM) and any(
                    size is not None and size.size == units for size in sizes
                )
            if readers[0][0].op not in _REARRANGED:
                return False
            value = readers[0][0].outputs[0]
        return False

    # -- backwards -----------------------------------------------------------------------------------------------

    def _backwards(self, op: Operation, flow: Flow) -> None:
        sources = {self._source(value) for value in op.inputs if value}
        if len(sources) == 1:
            flow.input_source, flow.input_activation = sources.pop()
            flow.input_link = self._links.before(next(value for value in op.inputs if value))

    def _source(self, value: str) -> tuple[Source, str]:
        for _ in range(64):
            if value in self._regions.ending:
                return Source.ACTIVATION, self._regions.ending[value].name
            if value in self._norm_of_value:
                return Source.NORM, "identity"
            if value in self._op_of_value:
                prelu = self._operations[self._op_of_value[value]].kind is Kind.PRELU
                return (Source.ACTIVATION, "prelu") if prelu else (Source.LAYER, "identity")
            node = self._graph.producer.get(value)
            if node is None:
                return Source.INPUT, "identity"
            if node.op in SOFTMAXES:
                return Source.ACTIVATION, SOFTMAXES[node.op]
            sources = [v for v in dict.fromkeys(node.inputs) if v in self._graph.live]
            if len(sources) == 1 and (node.op in _FIRST_INPUT | _MERGES | _SUMS | _PRODUCTS):
                value = sources[0]
            elif node.op in _SUMS:
                return Source.SUM, "identity"
            elif node.op in _PRODUCTS or node.op in ATTENTIONS:
                return Source.PRODUCT, "identity"
            elif node.op in ("Concat", LINK) and sources:
                found = {self._source(v) for v in sources[:16]}
                return found.pop() if len(found) == 1 else (Source.MIXED, "identity")
            elif node.op in _FIRST_INPUT and sources:
                value = sources[0]
            else:
                return Source.MIXED, "identity"
        return Source.MIXED, "identity"

    def _feeding(self, position: int) -> frozenset[int]:
        """Positions of the operations that reach this one without passing another one."""
        return self.feeding(self._operations[position].inputs) - {position}

    def feeding(self, values: Iterable[str]) -> frozenset[int]:
        """Positions of the operations that reach one of ``values`` without passing another one."""
        return _NOTHING.union(*(self._feeds.get(value, _NOTHING) for value in values))

    def is_operation(self, node: Node) -> bool:
        return node.index in self._op_nodes

    def position(self, node: Node) -> int | None:
        """Which operation the node belongs to; None where it has no weights."""
        return self._op_nodes.get(node.index)

    @cached_property
    def _untouched(self) -> frozenset[str]:
        """Values that something of the inputs reaches past all operations."""
        reached = set(self._entries)
        for node in self._graph.nodes:
            if node.index not in self._op_nodes and node.op not in ("Shape", "Size"):
                reached.update(node.outputs if any(value in reached for value in carried(node)) else ())
        return frozenset(reached)

    @cached_property
    def _feeds(self) -> dict[str, frozenset[int]]:
        """For every value the operations that feed it directly."""
        feeds: dict[str, frozenset[int]] = {}
        own: dict[str, frozenset[int]] = {}
        for i, op in enumerate(self._operations):
            for value in op.outputs:
                own[value] = own.get(value, _NOTHING) | {i}
        for node in self._graph.nodes:
            known = {feeds[value] for value in node.inputs if value in feeds}
            met = known.pop() if len(known) == 1 else _latest(_NOTHING.union(*known))
            for value in node.outputs:
                if value in own:
                    feeds[value] = own[value]
                elif value and value in self._graph.live:
                    feeds[value] = met
        return feeds


_ELEMENTWISE = frozenset({"Relu", "Sigmoid", "Tanh", "Exp", "Log", "Sqrt", "Erf", "Abs", "Softplus", "Reciprocal"})
"""Non-linearities left over by ``Regions`` (in front of a fork): looked through."""


_NOTHING: frozenset[int] = frozenset()


def _latest(positions: frozenset[int]) -> frozenset[int]:
    return positions if len(positions) <= MAX_FEEDS else frozenset(sorted(positions)[-MAX_FEEDS:])
