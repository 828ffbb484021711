"""Learnt inputs: constants that are data to the layers they go through, as a Perceiver's latents and a table of places.

A map of parameters by parameters makes either a weight (hypernetworks, low-rank factors, weight norm) or an activation
(queries, prompts, position biases). Which of the two shows at both ends. It is made by a layer: by a weight that has a
bias, or in the module that owns the weight and not what it multiplies. And it ends as data: joined with data, attended
to or by, an output; not as a bias, a gain or what data are multiplied by. What is not proven data stays a constant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Flag

from .attended import Attended
from .constants import SOURCES, Constants
from .dataflow import ATTENTIONS, PRODUCTS_OF_MATRICES
from .graph import LINK, Graph, Node, carried
from .naming import is_generated, without_call_number
from .recurrences import RECURRENCE
from .sizes import SizeReader

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_RECURRENT = frozenset({"LSTM", "GRU", "RNN", RECURRENCE})
_MAPS = PRODUCTS_OF_MATRICES | _CONVOLUTIONS | _RECURRENT
_NORMS = frozenset(
    {
        "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization",
        "SimplifiedLayerNormalization", "com.microsoft::SimplifiedLayerNormalization",
    }
)  # fmt: skip
_MOVES = frozenset(
    {"Identity", "Cast", "CastLike", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Slice",
     "Split", "Tile"}
)  # fmt: skip
_JOINS = frozenset(
    {"Add", "Sub", "Sum", "Mean", "Concat", "Where", "Max", "Min", "ScatterND", "ScatterElements", "GridSample", LINK}
)
_LOOKUPS = frozenset({"Gather", "GatherElements", "GatherND"})
"""Data that look something up in a stack of matrices choose a weight."""

_INITIAL_STATES = 5
"""A recurrent operator's inputs from this one on are states, those before its weights."""

_ALL_ZERO = 2**20
"""Entries up to which a constant is looked at for being nothing but zeros."""


class Use(Flag):
    """How what is constant meets data, in one place or another."""

    NONE = 0
    DATA = 1
    WEIGHT = 2


@dataclass(frozen=True)
class _Site:
    """A node whose operands are all constant, as the layer that it may be."""

    node: Node
    data: str
    """The operand that would be the data; empty where no layer's way of multiplying is seen."""
    weights: tuple[str, ...] = ()
    root: str = ""
    """The stored weight; empty of norms and of what is computed."""


def find(graph: Graph, constants: Constants) -> frozenset[str]:
    """Values to be taken for inputs."""
    nodes = [node for node in graph.nodes if node.op in _MAPS or node.op in _NORMS]
    idle = [node for node in nodes if not node.inner and graph.fed.isdisjoint(node.inputs)]
    return _Search(graph, constants, idle, nodes).seeds() if idle else frozenset()


@dataclass
class _Search:
    graph: Graph
    constants: Constants
    idle: list[Node]
    maps: list[Node]
    """Every map and norm, those of the inputs too."""
    _sites: dict[int, _Site] = field(default_factory=dict)
    _uses: dict[str, Use] = field(default_factory=dict)
    _attended: Attended = field(init=False)

    def __post_init__(self) -> None:
        self._attended = Attended(self.graph)

    def seeds(self) -> frozenset[str]:
        self._sites = {node.index: self._site(node) for node in self.idle}
        if not any(site.data for site in self._sites.values()):
            return frozenset()
        called = self._called_on_data()
        made = self._attended.made_by(self._sites[node.index].node for node in self.idle if self._is_layer(node))
        self._follow(called, made)
        sources = {i: self._sources(site.data) for i, site in self._sites.items() if site.data}
        weights = (i for i in sources if self._use(i, called) & Use.WEIGHT)
        shared = {origin for i in weights for origin in self._origins(i, sources[i])}
        return frozenset(self._accepted(sources, shared, called))

    def _is_layer(self, node: Node) -> bool:
        return bool(self._sites[node.index].data)

    # -- how it is made --------------------------------------------------------------------------------------------

    def _site(self, node: Node) -> _Site:
        if node.op in _NORMS:
            return _Site(node, node.input(0), node.inputs[1:])
        if node.op in _CONVOLUTIONS | _RECURRENT:
            return self._checked(node, 0, 1, node.op in _RECURRENT or bool(node.input(2)))
        biased = node.op == "Gemm" and self._is_stored(node.input(2))
        if biased or self._is_biased(node):
            return self._checked(node, 0, 1, True)
        if len(node.inputs) > 1:
            for data, weight in ((0, 1), (1, 0)):
                site = self._checked(node, data, weight, False)
                if site.data:
                    return site
        return _Site(node, "")

    def _checked(self, node: Node, data: int, weight: int, biased: bool) -> _Site:
        root = self._stored(node.input(weight))
        others = tuple(value for slot, value in enumerate(node.inputs) if slot != data)
        layer = biased or (root and self._is_called(node, root, self._stored(node.input(data))))
        return _Site(node, node.input(data) if layer else "", others, root)

    def _is_called(self, node: Node, weight: str, data: str) -> bool:
        """The node runs in the module that owns the weight, and not what the weight is applied to."""
        scope = without_call_number(node.scope)
        owners = {_owner(name) for name in (weight, *self.constants.aliases(weight))}
        return bool(scope) and scope in owners and (not data or _owner(data) != scope)

    def _is_biased(self, node: Node) -> bool:
        """A stored vector is added to the product, along its last axis."""
        if node.op != "MatMul":
            return False
        readers = self.graph.readers(node.outputs[0])
        if len(readers) != 1 or readers[0][0].op != "Add":
            return False
        adder, slot = readers[0]
        other, weight = adder.input(1 - slot), self.constants.spec(node.input(1))
        vector = self.constants.spec(other) if self._is_stored(other) else None
        return vector is not None and weight is not None and vector.ndim == 1 and vector.size == weight.shape[-1] > 1

    def _is_stored(self, value: str) -> bool:
        return bool(value and self._stored(value))

    def _stored(self, value: str) -> str:
        """The stored tensor that was only moved to become ``value``; empty where there is none."""
        value = self._unmoved(value)
        known = value not in self.graph.producer and value in self.graph.initializers
        spec = self.constants.spec(value) if known else None
        return value if spec is not None and spec.size > 1 else ""

    def _unmoved(self, value: str) -> str:
        """What was moved to become ``value``."""
        while (node := self.graph.producer.get(value)) is not None and node.op in _MOVES:
            value = node.input(0)
        return value

    def _called_on_data(self) -> frozenset[str]:
        """Stored weights that other nodes apply to data: the same layers, called on constants too."""
        called = [node for node in self.maps if not self.graph.fed.isdisjoint(node.inputs)]
        constant = (value for node in called for value in node.inputs if value not in self.graph.fed)
        return frozenset(root for value in constant if (root := self._stored(value)))

    # -- where it goes ---------------------------------------------------------------------------------------------

    def _follow(self, called: frozenset[str], made: frozenset[str]) -> None:
        """Fill in how every constant is used, from the outputs backwards."""
        self._uses = dict.fromkeys(self.graph.outputs, Use.DATA)
        sizes = _Sizes(self.graph, self.constants)
        for node in reversed(self.graph.nodes):
            if any(value in self.graph.fed for value in node.outputs):
                for slot, value in enumerate(node.inputs):
                    if value and value not in self.graph.fed:
                        self._add(value, self._met(node, slot, value in made, sizes))
                continue
            if node.op in ("Shape", "Size"):
                continue
            use = Use.NONE
            for value in node.outputs:
                use |= self._uses.get(value, Use.NONE)
            site = self._sites.get(node.index)
            if site is not None and site.data:
                self._add(site.data, Use.DATA if site.root in called else use)
                for value in site.weights:
                    self._add(value, Use.WEIGHT)
            elif use:
                for value in carried(node):
                    self._add(value, use)

    def _add(self, value: str, use: Use) -> None:
        if use:
            self._uses[value] = self._uses.get(value, Use.NONE) | use

    def _met(self, node: Node, slot: int, made: bool, sizes: _Sizes) -> Use:
        """What it is to data at ``node``, where they come together."""
        op = node.op
        if op in _CONVOLUTIONS or op in _NORMS:
            return Use.DATA if slot == 0 else Use.WEIGHT
        if op in _RECURRENT:
            return Use.WEIGHT if 0 < slot < _INITIAL_STATES else Use.DATA
        if op in ATTENTIONS or op in _JOINS:
            return Use.DATA
        if op in PRODUCTS_OF_MATRICES:
            if op == "Gemm" and slot == 2:
                return Use.WEIGHT
            return Use.DATA if made or self._attended.at(node) else Use.WEIGHT
        if op in ("Mul", "Div", "Pow"):
            return Use.DATA if made or sizes.is_scaled(node, slot) else Use.WEIGHT
        return (
            Use.WEIGHT
            if op == "PRelu" or (op in _LOOKUPS and not made and sizes.axes(node.inputs[slot]) > 2)
            else Use.NONE
        )

    def _use(self, index: int, called: frozenset[str]) -> Use:
        site = self._sites[index]
        if site.root in called:
            return Use.DATA
        use = Use.NONE
        for value in site.node.outputs:
            use |= self._uses.get(value, Use.NONE)
        return use

    # -- where it comes from ---------------------------------------------------------------------------------------

    def _accepted(
        self, sources: dict[int, frozenset[str]], shared: set[tuple[str, str]], called: frozenset[str]
    ) -> Iterator[str]:
        taken = {*called, *self._tables()}
        for index, own in sources.items():
            known = self._sites[index].root in called
            alive = self._use(index, called) == Use.DATA and (known or shared.isdisjoint(self._origins(index, own)))
            if alive and self._is_nothing(self._sites[index].data):
                yield from self._attended_to(self._sites[index].node.outputs)
            elif alive and taken.isdisjoint(own):
                yield from own

    def _attended_to(self, values: Iterable[str]) -> Iterator[str]:
        """Those that other constants are multiplied by: as values, which beside live weights would be matrices."""
        for value in values:
            idle = [node for node, _ in self.graph.readers(value) if self.graph.fed.isdisjoint(node.outputs)]
            if any(node.op in PRODUCTS_OF_MATRICES for node in idle):
                yield value
            yield from self._attended_to(out for node in idle if node.op in _MOVES for out in node.outputs)

    def _origins(self, index: int, sources: frozenset[str]) -> set[tuple[str, str]]:
        """By place: what makes a weight and a bias side by side of one embedding is a hypernetwork, both of it."""
        place = without_call_number(self._sites[index].node.scope).rpartition(".")[0]
        return {(self._stored(source) or source, place) for source in sources}

    def _tables(self) -> Iterator[str]:
        """Stored tables in which the data look something up."""
        for node in self.graph.nodes:
            if (
                node.op in _LOOKUPS
                and not self.graph.fed.isdisjoint(node.inputs[1:])
                and self._is_stored(node.input(0))
            ):
                yield self._stored(node.input(0))

    def _is_nothing(self, value: str) -> bool:
        """Zeros that nothing trains, as decoders are started with: no weight is felt behind them."""
        source = self._unmoved(value)
        if (maker := self.graph.producer.get(source)) is not None and maker.attribute("zero"):
            return True
        spec, roots = self.constants.spec(value), self.constants.roots(value)
        if spec is None or spec.size > _ALL_ZERO or any(self._is_trained(root) for root in roots):
            return False
        array = self.constants.array(value)
        return array is not None and not array.any()

    def _is_trained(self, root: str) -> bool:
        return not is_generated(root) and not self.constants.is_fixed(root)

    def _sources(self, value: str) -> frozenset[str]:
        """Where what comes to ``value`` as data starts, looked for behind other layers."""
        found: set[str] = set()
        pending, seen = [value], {value}
        while pending:
            value = pending.pop()
            node = self.graph.producer.get(value)
            site = self._sites.get(node.index) if node is not None else None
            if node is None or node.op in SOURCES:
                found.add(value)
                continue
            if site is not None and site.data:
                steps = [site.data]
            elif node.op in _MOVES | _LOOKUPS:
                steps = [] if self._stored(node.input(0)) else [node.input(0)]
            else:
                steps = self._operands(node)
            found.update(() if steps else (value,))
            pending += [step for step in steps if step not in seen]
            seen.update(steps)
        trained = frozenset(value for value in found if any(map(self._is_trained, self._roots([value]))))
        return trained or frozenset(found)

    def _operands(self, node: Node) -> list[str]:
        """What is computed of parameters; else the only thing that is stored."""
        values = [value for value in dict.fromkeys(carried(node)) if value]
        makers = {value: self.graph.producer.get(value) for value in values}
        computed = [value for value, maker in makers.items() if maker is not None and maker.op not in SOURCES]
        stored = [value for value in values if self._stored(value)]
        if computed and (not stored or any(map(self._is_trained, self._roots(computed)))):
            return computed
        return stored if len(stored) == 1 and not computed else []

    def _roots(self, values: Iterable[str]) -> Iterator[str]:
        return (root for value in values for root in self.constants.roots(value))


def _owner(name: str) -> str:
    """The module that holds a parameter."""
    return name.rpartition(".")[0].removesuffix(".parametrizations.weight")


class _Sizes:
    """Which of two factors is the larger one, where sizes are told."""

    def __init__(self, graph: Graph, constants: Constants) -> None:
        self._graph, self._constants = graph, constants
        self._read: SizeReader | None = None

    def is_scaled(self, node: Node, slot: int) -> bool:
        """The other factor is repeated to fit: it is the gain."""
        if len(node.inputs) != 2:
            return False
        own, other = self._of(node.inputs[slot]), self._of(node.inputs[1 - slot])
        if own is None or other is None:
            return False
        padded = (1,) * (len(own) - len(other)) + other
        return any(one != 1 == of for one, of in zip(reversed(own), reversed(padded), strict=False))

    def axes(self, value: str) -> int:
        """How many axes the constant has; of an unknown one as many as a stack of matrices."""
        sizes = self._of(value)
        return 3 if sizes is None else len(sizes)

    def _of(self, value: str) -> tuple[int, ...] | None:
        spec = self._constants.spec(value) if value not in self._graph.fed else None
        if spec is not None:
            return spec.shape
        if self._read is None:
            self._read = SizeReader(self._graph, self._constants)
            for node in self._graph.nodes:
                self._read.see(node)
        return self._read.of(value)
