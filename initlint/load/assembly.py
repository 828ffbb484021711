"""Putting a graph's weighted operations together as the neutral Model: names, addresses, links."""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod

import numpy as np

from ..kinds import Role
from ..model import FoldedNorm, Layer, Model, NotChecked, Tensor, View
from ..probe.taps import SoftmaxTap, Tap, tap_of
from . import graph as flat
from . import learnt, norms
from .blocks import blocks
from .constants import Constants
from .dataflow import ATTENTIONS, Dataflow, Flow
from .elementwise import Regions
from .factors import factor_sites
from .folded import find_folded_norms
from .folding import Array, is_float
from .linking import called_again, factors, linked, tied
from .makers import Makers
from .members import members
from .naming import (
    QUANTISED,
    Addresses,
    is_generated,
    is_generated_node,
    is_own_layer,
    layer_of,
    role_name,
    without_call_number,
)
from .packings import packed
from .softmaxes import softmax_taps
from .stored import Operation, Stored
from .weighted import Finder


@dataclass(frozen=True)
class Assembled:
    """The neutral model, where to measure, and where its tensors are."""

    model: Model
    taps: tuple[Tap, ...]
    roots: Mapping[str, tuple[str, ...]]
    """Stored or computed value name -> addresses of the tensors it holds."""
    stored_at: Mapping[str, Stored]
    softmaxes: tuple[SoftmaxTap, ...]


def assemble(
    graph: flat.Graph, constants: Constants, form: str, producer: str, not_checked: Iterable[NotChecked] = ()
) -> Assembled:
    """Read ``graph``; ``form`` and ``producer`` are the model's format and the program that made it."""
    graph.take_for_inputs(learnt.find(graph, constants))
    sites = norms.find(graph, constants)
    finder = Finder(graph, constants, sites)
    operations = packed(graph, constants, finder.operations())
    taken = {index for site in sites for index in site.absorbed}
    taken |= {index for op in operations for index in (op.node.index, *op.absorbed)}
    regions = Regions(graph, constants, frozenset(taken))
    dataflow = Dataflow(graph, constants, sites, regions, operations)
    return _Assembly(graph, constants, finder, operations, dataflow).assembled(form, producer, tuple(not_checked))


def pieces(stored: Stored, constants: Constants) -> Iterator[Array]:
    """Rows (n, fan_in) of a tensor's canonical view, in order, a piece at a time."""
    array = constants.array(stored.value)
    if array is None or not array.size:
        return
    for block in blocks(stored.rows(array), stored.view.fan_in, constants.release):
        yield block if stored.factor == 1.0 else block * block.dtype.type(stored.factor)


class _Assembly:
    """Gives operations their names and puts them together as a Model."""

    def __init__(
        self,
        graph: flat.Graph,
        constants: Constants,
        finder: Finder,
        operations: list[Operation],
        dataflow: Dataflow,
    ) -> None:
        self._graph, self._constants = graph, constants
        self._finder, self._operations, self._dataflow = finder, operations, dataflow
        self._tensor_of: dict[tuple[Hashable, Role, bool], Tensor] = {}
        self._stored: dict[str, Stored] = {}
        self._pieces: dict[str, str] = {}
        self._scopes = {op.node.scope for op in operations}
        self._members = [members(op, constants) for op in operations]
        self._user_of = {id(op.weight): op for together in reversed(self._members) for op in reversed(together)}
        self._addresses, self._names = Addresses(), Addresses()

    def assembled(self, form: str, producer: str, not_checked: tuple[NotChecked, ...]) -> Assembled:
        layers, taps, names = self._layers()
        tensors: dict[str, Tensor] = {}
        for tensor in (own for layer in layers for own in layer.tensors):
            tensors.setdefault(tensor.address, tensor)
        roots: dict[str, list[str]] = {}
        for at, stored in self._stored.items():
            for value in {stored.value, *self._constants.roots(stored.value)}:
                roots.setdefault(value, []).append(at)
        sites = tuple(factor_sites(self._graph, self._constants, self._dataflow))
        for other in (others := self._other_tensors(roots.keys() - self._mixed(), {site.root for site in sites})):
            roots.setdefault(self._stored[other.address].value, []).append(other.address)
        made = Makers(self._graph, self._constants, self._stored)
        model = Model(
            format=form,
            layers=tuple(layers),
            tensors=(*tensors.values(), *others),
            parameters=self._parameter_count(tensors.values()),
            not_checked=(*not_checked, *self._finder.not_checked, *self._drawn(), *self._unknown_operators()),
            folded_norms=self._folded(layers, producer),
            factors=tuple(factors(sites, roots, names)),
            producer=producer,
            pieces=self._pieces,
            makers=made.of,
            leaves=tuple(made.leaves.values()),
            tied=tied(layers),
        )
        held = {value: tuple(addresses) for value, addresses in roots.items()}
        softmaxes = softmax_taps(self._graph, self._dataflow, names, partial(self._held, roots))
        return Assembled(model, taps, held, self._stored | made.stored, tuple(softmaxes))

    def _held(self, roots: Mapping[str, Sequence[str]], value: str) -> Iterator[str]:
        return (at for root in self._constants.roots(value) for at in roots.get(root, ()))

    # -- layers --------------------------------------------------------------------------------------------------

    def _layers(self) -> tuple[list[Layer], tuple[Tap, ...], list[tuple[str, ...]]]:
        """The layers, where to measure, and by operation the names of the layers that it belongs to."""
        names: list[tuple[str, ...]] = []
        built: dict[str, Layer] = {}
        taps: dict[str, Tap] = {}
        identity: dict[tuple[str, ...], str] = {}
        flows = [self._dataflow.flow(i) for i in range(len(self._operations))]
        for together, flow in zip(self._members, flows, strict=True):
            own = []
            for op in together:
                tensors = self._tensors(op)
                addresses = (tensor.address for tensor in tensors.values() if tensor is not None)
                key = (op.kind, without_call_number(op.node.scope), *addresses, op.segment)
                if key in identity:
                    name = identity[key]
                    built[name] = called_again(built[name], flow)
                else:
                    name = self._names.unique(self._layer_name(op, tensors["weight"]))
                    identity[key] = name
                    built[name] = self._layer(name, op, flow, tensors)
                own.append(name)
                if not op.node.inner and op.units != (0, 0):
                    again = (*taps[name].again, taps[name].value) if name in taps else ()
                    taps[name] = tap_of(built[name], op.output, op.unit_axis, again, op.units)
            names.append(tuple(own))
        return linked(built, names, flows), tuple(taps.values()), names

    def _layer(self, name: str, op: Operation, flow: Flow, tensors: Mapping[str, Tensor | None]) -> Layer:
        weight = tensors["weight"]
        assert weight is not None
        return Layer(
            name=name,
            kind=op.kind,
            weight=weight,
            bias=tensors["bias"],
            recurrent=tensors["recurrent"],
            recurrent_bias=tensors["recurrent_bias"],
            others=tuple(t for role, t in tensors.items() if role.startswith("other") and t is not None),
            fan_in=op.fan_in,
            fan_out=op.fan_out,
            activation=flow.activation,
            activation_reads=flow.activation_reads,
            gate=flow.gate,
            gate_reads=flow.gate_reads,
            input_activation=flow.input_activation,
            input_values=flow.input_link.values,
            input_known=flow.input_link.known,
            input_source=flow.input_source,
            norm_after=flow.norm_after,
            bias_removed=flow.bias_removed,
            uses=frozenset(flow.uses),
            bypassed=flow.bypassed,
            shuffles_units=flow.shuffles_units and not weight.parts,
            multiplies_itself=flow.multiplies_itself,
            learnt_input=flow.learnt_input,
            reads_inputs=flow.reads_inputs,
            segment=op.segment,
        )

    def _tensors(self, op: Operation) -> dict[str, Tensor | None]:
        stored: dict[str, Stored | None] = {
            "weight": op.weight,
            "bias": op.bias,
            "recurrent": op.recurrent,
            "recurrent_bias": op.recurrent_bias,
        }
        stored.update((f"other{i}", each) for i, each in enumerate(op.others))
        return {role: None if s is None else self._tensor(op, s) for role, s in stored.items()}

    def _tensor(self, op: Operation, stored: Stored) -> Tensor:
        roots = self._constants.roots(stored.value)
        piece = self._constants.piece(stored.value, prod(stored.shape)) if len(roots) == 1 else stored.value
        key = (piece, stored.role, op.segment == "reverse")
        if key not in self._tensor_of and (tied := self._tied_tensor(op, stored, piece)) is not None:
            self._tensor_of[key] = replace(tied, role=stored.role)
        if key not in self._tensor_of:
            place = "" if piece in (stored.value, *roots) else self._constants.place(stored.value)
            address = self._addresses.unique(f"{self._address(op, stored, roots).removesuffix(QUANTISED)}{place}")
            array = self._constants.spec(stored.value)
            dtype = "float32" if array is None else array.dtype.name
            trainable = not stored.fixed and not self._is_fixed(roots)
            computed, repeats = self._constants.is_computed(stored.value), self._constants.repeats(stored.value)
            self._tensor_of[key] = Tensor(
                address, stored.shape, dtype, stored.role, stored.view, trainable, stored.parts, computed, repeats
            )
            self._stored[address] = stored
            if place:
                self._pieces[address] = place
        return self._tensor_of[key]

    def _is_fixed(self, roots: tuple[str, ...]) -> bool:
        """Nothing that it is made of is trained; numbers and generated values do not count."""
        named = [root for root in roots if not is_generated(root) or self._constants.is_stray(root)]
        return bool(named) and all(self._constants.is_fixed(root) for root in named)

    def _tied_tensor(self, op: Operation, stored: Stored, root: Hashable) -> Tensor | None:
        """The table that also serves as a head, or the other way round."""
        if op.kind.is_recurrent or stored.role not in (Role.WEIGHT, Role.TABLE):
            return None
        other = Role.TABLE if stored.role is Role.WEIGHT else Role.WEIGHT
        tensor = self._tensor_of.get((root, other, False))
        return tensor if tensor is not None and tensor.view == stored.view and tensor.shape == stored.shape else None

    def _address(self, op: Operation, stored: Stored, roots: tuple[str, ...]) -> str:
        suffix = stored.suffix.format(self._recurrence_number(op)) if stored.suffix else role_name(stored.role)
        named = [root for root in roots if not is_generated(root) and root not in self._graph.producer]
        if op.kind.is_recurrent:
            exact = [root for root in named if root.endswith(stored.suffix.format("")[:9]) and self._fits(root, stored)]
            direction = [r for r in exact if r.endswith("_reverse") == stored.suffix.endswith("_reverse")]
            if len(direction) == 1:
                return direction[0]
        elif len(named) == 1:
            return self._first_name(op, named[0], f"{op.node.scope}.{suffix}")
        elif len(named) > 1:
            owners = {layer_of(root) for root in named}
            if len(owners) == 1 and (owner := owners.pop()):
                return f"{owner}.{role_name(stored.role)}"
            return self._main(named, stored)
        scope = op.node.scope
        if not scope and named:
            packed = layer_of(named[0]) or named[0]
            return f"{packed}.{suffix}" if op.kind.is_recurrent else named[0]
        if not scope:  # a ConstantOfShape or Constant node's result has a name of its own, often a telling one
            generated = [root for root in roots if not is_generated(root)]
            if generated:
                return generated[0]
            scope = op.node.name or op.node.outputs[0]
        return f"{scope}.{suffix}"

    def _main(self, named: Sequence[str], stored: Stored) -> str:
        """Of the parameters it is made of the one of its size (the W of W + B A), trained if possible; else the largest
        that is trained."""
        specs = {root: spec for root in named if (spec := self._constants.spec(root)) is not None}
        trained = [root for root in named if not self._constants.is_fixed(root)]
        matrices = (root for root in (*trained, *named) if root in specs and specs[root].ndim > 1)
        fitting = (root for root in matrices if specs[root].size == prod(stored.shape))
        return next(fitting, max(trained or named, key=lambda root: specs[root].size if root in specs else 0))

    def _first_name(self, op: Operation, root: str, own: str) -> str:
        """The newer exporter keeps the last name of a tied tensor; PyTorch calls it by the first: by its first user."""
        scope, owner = op.node.scope, layer_of(root)
        if op.node.name.startswith("/") and without_call_number(scope) == owner:
            return root  # a later call of the same module; the first one may have read nothing of the inputs
        if not scope or not owner or scope == owner or f"{owner}.".startswith(f"{scope}."):
            return root
        return own if owner in self._readers_of.get(root, ()) and own not in self._graph.initializers else root

    @cached_property
    def _readers_of(self) -> dict[str, set[str]]:
        """Stored value -> modules in which an operation reads it as its weight or table."""
        readers: dict[str, set[str]] = {}
        for op in self._operations:
            for root in self._constants.roots(op.weight.value):
                readers.setdefault(root, set()).add(without_call_number(op.node.scope))
        return readers

    def _fits(self, root: str, stored: Stored) -> bool:
        spec = self._constants.spec(root)
        return spec is not None and spec.size == prod(stored.shape)

    def _recurrence_number(self, op: Operation) -> int:
        """Stacked recurrences of one module are l0, l1, ... in execution order."""
        if not op.kind.is_recurrent or not op.node.scope:
            return 0
        nodes = dict.fromkeys(
            each.node.index for each in self._operations if each.kind is op.kind and each.node.scope == op.node.scope
        )
        return list(nodes).index(op.node.index)

    def _layer_name(self, op: Operation, weight: Tensor | None) -> str:
        address = weight.address if weight else ""
        name = layer_of(address)
        if op.kind.is_recurrent and name:
            tail = address.rpartition(".")[2].removeprefix("weight_ih_")
            return name if tail == "l0" else f"{name}.{tail}"
        if name and is_own_layer(address) and self._first_user(address) is op:
            return address
        scope = op.node.scope
        if scope != name and any(layer_of(alias) == scope for alias in self._constants.aliases(address)):
            return scope  # tied: the module that runs holds it by another name
        if scope and name and scope != name and (self._first_user(address) is not op or name in self._scopes):
            return scope  # tied, or merged by an exporter that stores equal tensors once
        made_up = is_generated(address) or address.startswith(f"{op.node.name}.")
        own = address if is_generated_node(op.node.name, op.node.op) and not made_up else ""
        return name or scope or own or op.node.name or address

    def _first_user(self, address: str) -> Operation | None:
        stored = self._stored.get(address)
        return self._user_of.get(id(stored))

    # -- the rest ------------------------------------------------------------------------------------------------

    def _mixed(self) -> set[str]:
        """Parameters that arithmetic mixes with others into a weight, as A and B of W + B A: each may be stuck."""
        mixed = set()
        for address, stored in self._stored.items():
            named = [root for root in self._constants.roots(stored.value) if not is_generated(root)]
            if len(named) > 1 and self._constants.is_computed(stored.value):
                mixed |= {root for root in named if root != address and not self._constants.is_fixed(root)}
        return mixed - {stored.value for stored in self._stored.values()} - self._stored.keys()

    def _other_tensors(self, owned: Container[str], gates: Container[str]) -> list[Tensor]:
        """Floating-point tensors that no layer owns: positions, tokens, scales, masks; single numbers if trained."""
        others = []
        for name in self._graph.initializers:
            spec = self._constants.spec(name)
            if name in owned or spec is None or not spec.size or not is_float(spec.dtype):
                continue
            trainable = self._constants.is_own(name) and not self._constants.is_fixed(name)
            felt = any(node.op not in flat.COMPARISONS for node in self._constants.readers(name))  # has a gradient
            if spec.size == 1 and not (trainable and felt) and name not in gates:  # of the graph's own
                continue
            stored = Stored(name, Role.OTHER, spec.shape, View(1, spec.size, 1), np.atleast_1d)
            address = self._addresses.unique(name)
            self._stored[address] = stored
            others.append(Tensor(address, stored.shape, spec.dtype.name, Role.OTHER, stored.view, trainable))
        return others

    @staticmethod
    def _parameter_count(tensors: Iterable[Tensor]) -> int:
        return sum(tensor.size for tensor in tensors if tensor.trainable)

    def _drawn(self) -> Iterator[NotChecked]:
        for address, stored in self._stored.items():
            if self._constants.is_drawn(stored.value):
                yield NotChecked(address, "it is drawn anew at every run, so there are no values to look at")

    def _unknown_operators(self) -> Iterator[NotChecked]:
        """Weights that go into an operator initlint does not know."""
        known = set(self._stored)
        owned = {stored.value for stored in self._stored.values()}
        own = {id(op.node) for op in self._operations}
        for node in self._graph.nodes:
            if "::" not in node.op and node.op not in _WEIGHTED_BUT_UNKNOWN:
                continue
            if node.op.startswith("initlint::") or node.op in _WITHOUT_WEIGHTS or id(node) in own:
                continue
            for value in node.inputs:
                if not value or not self._constants.known(value) or value in owned - known:
                    continue
                array = self._constants.spec(value)
                if array is not None and array.ndim >= 2 and array.dtype.kind not in "OSUb":
                    stored = value in self._graph.initializers
                    at = value if stored else node.scope or value
                    if stored or not is_generated(at):  # what arithmetic makes has no name that a user knows
                        yield NotChecked(at, f"operator {node.op!r} is not known to initlint")

    def _folded(self, layers: list[Layer], producer: str) -> tuple[FoldedNorm, ...]:
        by_weight = {layer.weight.address: layer for layer in layers}
        pairs = []
        for op in (op for together in self._members for op in together):
            if op.kind.is_map:
                key = self._tensor(op, op.weight).address
                if key in by_weight:
                    pairs.append((by_weight[key], op))
        return find_folded_norms(pairs, self._constants, self._graph, producer)


_WEIGHTED_BUT_UNKNOWN = frozenset(
    {"MatMulInteger", "ConvInteger", "DeformConv", "Scan", "TfIdfVectorizer", "StringNormalizer"}
)
"""ONNX operators that take weights in a form that is not judged yet."""

_WITHOUT_WEIGHTS = frozenset({*ATTENTIONS, "com.microsoft::RotaryEmbedding", "com.microsoft::QuantizeLinear"})
"""Operators outside ONNX's own domain whose constants are masks, angles or scales."""
