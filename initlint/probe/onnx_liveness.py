"""Which tensors of a graph can never learn, from tangents: a direction that moves no output has no gradient.

Asked are the tensors that start at zero, with what else is zero around them; whatever moves an output is live, and is
moved on by a step. That is repeated until nothing wakes up any more (``liveness`` does the same with gradient steps).
What is left is asked twice more: with units ajar that are off, and drawn anew, all at once. What moves an output then
was held by its zeros; what does not has no influence, whatever its values.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
from onnx import NodeProto

from ..kinds import Kind, Role
from ..model import Layer, Model, Tensor
from ..redraw import is_far
from ..stats import WeightStats
from .dataflow import Dataflow
from .graph_rewrite import replace_values
from .onnx_held import held_by_others
from .payload import Array
from .setup import Setup
from .signals import LayerSignal, Liveness
from .tangents import TangentRuns, Tangents, strength
from .weights import Weights, normal, rms

STEP = 1e-2
"""Of the weight's scale, as the steps along gradients."""
ROUNDS = 4
"""adaLN-Zero with a zero head, the longest chain of zeros in use, needs three."""
LIMIT = 12
BLOCKS = 32
"""Zero rows of one tensor are asked in so many blocks at most."""
SHADOW = 32
"""Weights around a stuck one that are asked as well."""

_ROUTING = frozenset({"TopK", "ArgMax", "NonZero", "Where", "GatherND", "If", "Loop", "Scan"})
"""Operators that choose by data which experts run, or whose bodies hold units that cannot be put ajar."""


@dataclass(frozen=True)
class Case:
    """Something that may be stuck: some rows of a tensor."""

    address: str
    """Of the tensor."""
    told: str
    """Address of the verdict: the tensor's, or that of a packed part."""
    rows: tuple[int, int] | None = None
    """From and to, in canonical rows; None for all."""
    indices: tuple[int, ...] = ()
    """Rows that start at zero, in a tensor that does not; of a block of them."""


@dataclass
class Search:
    """The fixpoint on one graph. ``weights`` hold what was moved."""

    setup: Setup
    weights: Weights
    fan_in: Mapping[str, int]
    chosen: Sequence[str]
    outputs: Sequence[str]
    """All of them, for the last look."""
    batches: Sequence[Mapping[str, Array]]
    pending: list[Case]
    unreached: set[Case] = field(default_factory=set)
    stuck: set[Case] = field(default_factory=set)
    unused: set[Case] = field(default_factory=set)
    rounds: int = 0
    finite: bool = True
    late: bool = False
    """It was given up: what is left would take longer than the whole answer may."""
    deadline: float = math.inf
    """On the monotonic clock."""
    names: list[str] = field(default_factory=list)
    trained: Set[str] = frozenset()
    """Addresses of all that is trained."""
    free: Collection[str] = ()
    """Addresses of computed weights that are parameters' names: these are moved in their place, as W is where W * mask
    is read. What is drawn anew is the weight itself."""

    def __post_init__(self) -> None:
        self._graph, self._whole = self.setup.graph, self.weights.value_of
        self.weights.value_of = {at: value for at, value in self._whole.items() if at not in self.free}

    def begin(self, beside: Collection[str] = ()) -> None:
        """Make inputs of what is asked, and of the addresses ``beside``, so that it can be moved."""
        names = self.weights.values_of([*(case.address for case in self.pending), *beside])
        for name in names:
            self.weights.overrides[name] = self.weights.array(name)
        graph = replace_values(self._graph, self.weights.overrides)
        setup = self.setup
        self.setup = Setup(graph, setup.feeder, setup.attempt, self.weights.overrides, setup.folder)
        self.setup.prepare()
        self.names = names

    def run(self) -> None:
        runs = TangentRuns(self.setup, self.names, self.chosen)
        quiet = 0
        while self.pending and self.finite and not self.late and self.rounds < LIMIT and quiet < ROUNDS:
            batch = self.batches[self.rounds % len(self.batches)]
            woken = set(self._movers(runs, self.pending, self.chosen, batch, self.rounds))
            for case in woken:
                self._move(case, self._direction(case, "step", self.rounds))
            self.pending = [case for case in self.pending if case not in woken]
            quiet = 0 if woken else quiet + 1
            self.rounds += 1
        if self.pending and self.finite and not self.late:
            self._look_again()

    def also(self, cases: Sequence[Case]) -> None:
        """Ask what is not zero itself, but may have nothing to learn from; at the values reached by now."""
        runs = TangentRuns(self.setup, self.weights.values_of(case.address for case in cases), self.chosen)
        left = list(cases)
        for number, batch in enumerate(self.batches):
            movers = set(self._movers(runs, left, self.chosen, batch, LIMIT + number))
            left = [case for case in left if case not in movers]
        self.stuck |= set(left)

    def ajar(self) -> TangentRuns:
        grows = not self.trained <= {case.address for case in self.pending}
        return TangentRuns(self.setup, self.names, self.outputs, ajar=True, grows=grows)

    def _look_again(self) -> None:
        runs = self.ajar()
        for batch in self.batches:
            self.unreached |= set(self._movers(runs, self.pending, self.outputs, batch, "ajar"))
        left = [case for case in self.pending if case not in self.unreached]
        if any(case.address in self.free for case in left):
            self.weights.value_of = self._whole
            self.begin()
            runs = self.ajar()
        for case in left:
            self._draw(case, "anew")
        for batch in self.batches:
            waiting = [case for case in left if case not in self.stuck]
            self.stuck |= set(self._movers(runs, waiting, self.outputs, batch, "redrawn"))
        inert = [case for case in left if case not in self.stuck]
        before = [self.outputs_of(runs, batch) for batch in self.batches] if inert else []
        for case in inert:
            self._draw(case, "once more")
        after = [self.outputs_of(runs, batch) for batch in self.batches] if inert else []
        if all(np.array_equal(a[name], b[name]) for a, b in zip(before, after, strict=True) for name in a):
            held = held_by_others(self, inert, after)
            self.stuck |= held
            self.unused |= set(inert) - held

    def _movers(
        self, runs: TangentRuns, cases: Sequence[Case], outputs: Sequence[str], batch: Mapping[str, Array], key: object
    ) -> Iterator[Case]:
        """Those of ``cases`` along which some output changes, found by halves."""
        if not cases or not runs.reached or self.late:
            return
        if monotonic() > self.deadline:
            self.late = True
            return
        size = strength(self._run(runs, self._directions(cases, key), batch), outputs)
        if not math.isfinite(size):
            self.finite = False
        elif size and len(cases) == 1:
            yield cases[0]
        elif size:
            half = len(cases) // 2
            yield from self._movers(runs, cases[:half], outputs, batch, key)
            yield from self._movers(runs, cases[half:], outputs, batch, key)

    def outputs_of(self, runs: TangentRuns, batch: Mapping[str, Array]) -> Mapping[str, Array]:
        return self._run(runs, {}, batch).outputs

    def movers(self, runs: TangentRuns, cases: Sequence[Case], batch: Mapping[str, Array], key: object) -> set[Case]:
        """Those of ``cases`` along which any output changes."""
        return set(self._movers(runs, cases, self.outputs, batch, key))

    def _run(self, runs: TangentRuns, directions: Mapping[str, Array], batch: Mapping[str, Array]) -> Tangents:
        return runs.run(directions, 0, {**batch, **self.weights.overrides})

    def _directions(self, cases: Sequence[Case], key: object) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for case in cases:
            for name, stored in self.weights.stored(case.address, self._direction(case, key), zero=True).items():
                found[name] = found[name] + stored if name in found else stored
        return found

    def _direction(self, case: Case, *key: object) -> Array:
        rows = self.weights.rows(case.address)
        drawn = normal(rows.shape, max(rms(rows), self._fresh_scale(case)), case.told, *key)
        kept = np.zeros_like(drawn)
        chosen = _rows_of(case)
        kept[chosen] = drawn[chosen]
        return kept

    def _fresh_scale(self, case: Case) -> float:
        return 1 / math.sqrt(self.fan_in.get(case.address, 1))

    def _move(self, case: Case, direction: Array) -> None:
        rows = self.weights.rows(case.address) + np.float32(STEP) * direction
        self.weights.overrides.update(self.weights.stored(case.address, rows))

    def _draw(self, case: Case, key: str) -> None:
        """In place of what is there, which may be so far out that nothing added to it would bring it back."""
        rows, chosen = self.weights.rows(case.address).copy(), _rows_of(case)
        rows[chosen] = normal(rows.shape, self._fresh_scale(case), case.told, key)[chosen]
        self.weights.overrides.update(self.weights.stored(case.address, rows))


def _rows_of(case: Case) -> list[int] | slice:
    if case.rows is None:
        return list(case.indices) if case.indices else slice(None)
    return slice(*case.rows)


# -- what to ask ------------------------------------------------------------------------------------------------------


def suspects(model: Model, stats: Mapping[str, WeightStats], layers: Mapping[str, LayerSignal]) -> list[Case]:
    """What starts at zero (weights, gains, tables, parts, with zero tensors around them), and what may hold a
    non-linearity where it is flat: layers that are off, biases and free tensors far above order one."""
    zero = [case for tensor in model.tensors if tensor.trainable for case in _zero_cases(tensor, stats)]
    places = {case.address for case in zero if not _is_shift(model, case.address)}
    owners = [owner for address in places if (owner := model.owner(address)) is not None]
    names = {name for each in owners for name in (each.name, *each.producers, *each.consumers)}
    off = [layer for layer in model.layers if _is_off(layer, layers.get(layer.name))]
    off += _before(model, off)
    near = {tensor.address for layer in model.layers if layer.name in names for tensor in layer.tensors}
    cases = [case for case in zero if case.address in places | near]
    for tensor in (tensor for tensor in model.tensors if is_far(model, tensor, stats.get(tensor.address))):
        owner = model.owner(tensor.address)
        beside = (tensor,) if owner is None else (tensor, owner.weight)
        cases += [Case(each.address, each.address) for each in beside if each.trainable]
    for layer in off:
        cases += [Case(t.address, t.address) for t in (layer.weight, layer.bias) if t is not None and t.trainable]
    rows = [case for tensor in model.tensors if tensor.trainable for case in _row_cases(model, tensor, stats)]
    told = {case.told for case in cases}
    return list(dict.fromkeys([*cases, *(case for case in rows if case.address not in told)]))


def everything(model: Model) -> list[Case]:
    """Every trainable tensor, for outputs that do not depend on the inputs, though nothing in sight holds them."""
    return [Case(tensor.address, tensor.address) for tensor in model.tensors if tensor.trainable]


def _zero_cases(tensor: Tensor, stats: Mapping[str, WeightStats]) -> Iterator[Case]:
    if tensor.role in (Role.RUNNING_MEAN, Role.RUNNING_VARIANCE):
        return
    height = tensor.view.groups * tensor.view.units // max(1, len(tensor.parts))
    for number, address in enumerate(tensor.part_addresses):
        if address in stats and stats[address].all_zero:
            rows = (number * height, (number + 1) * height) if tensor.parts else None
            yield Case(tensor.address, address, rows)


def _row_cases(model: Model, tensor: Tensor, stats: Mapping[str, WeightStats]) -> Iterator[Case]:
    """Rows that start at zero, of a weight that does not; which they are is filled in by ``located``."""
    owner = model.owner(tensor.address)
    plain = owner is not None and owner.kind in (Kind.LINEAR, Kind.CONV) and tensor.role is Role.WEIGHT
    found = stats.get(tensor.address)
    if plain and found is not None and 0 < found.zero_units < tensor.view.units * tensor.view.groups:
        yield Case(tensor.address, f"{tensor.address} rows")


def located(cases: Iterable[Case], weights: Weights) -> Iterator[Case]:
    """``cases`` with zero rows found, in blocks."""
    for case in cases:
        if case.told != f"{case.address} rows":
            yield case
            continue
        idle = np.flatnonzero(~weights.rows(case.address).any(1))
        for block in np.array_split(idle, min(len(idle), BLOCKS)):
            yield Case(case.address, case.told, None, tuple(map(int, block)))


def _is_shift(model: Model, address: str) -> bool:
    owner = model.owner(address)
    roles = {t.address: t.role for t in owner.tensors} if owner is not None else {}
    return roles.get(address) in (Role.BIAS, Role.SHIFT, Role.RECURRENT_BIAS)


def _is_off(layer: Layer, signal: LayerSignal | None) -> bool:
    """Nothing of the input is left in its output, or the non-linearity behind it is flat throughout."""
    if signal is None or signal.samples <= 1:
        return False
    edge = layer.dead_below
    dead = edge is not None and len(signal.unit_max) > 0 and max(signal.unit_max) <= edge
    return signal.std == 0 or signal.saturated == 1 or dead


def _before(model: Model, off: Sequence[Layer]) -> list[Layer]:
    """What gets its gradient through layers that are off: nothing leads around these."""
    names = {layer.name for layer in off}
    gates = [layer for layer in off if not layer.bypassed]
    return [
        layer
        for layer in model.layers
        if layer.name not in names and any(model.is_upstream(layer.name, gate.name) for gate in gates)
    ][:SHADOW]


def shadow(model: Model, stuck: Iterable[str], asked: Iterable[str]) -> list[Case]:
    """Weights of layers next to stuck ones that were not asked: what a stuck layer gives them, or takes, is nothing."""
    known, found = set(asked), dict[str, None]()
    waiting = [owner for address in stuck if (owner := model.owner(address)) is not None]
    seen = {layer.name for layer in waiting}
    while waiting and len(found) < SHADOW:
        layer = waiting.pop(0)
        for each in (*model.producers(layer), *model.consumers(layer)):
            if each.name not in seen and not each.bypassed:
                seen.add(each.name)
                waiting.append(each)
                found.update((t.address, None) for t in each.tensors if t.trainable and t.address not in known)
    return [Case(address, address) for address in found]


# -- what came out ----------------------------------------------------------------------------------------------------


def verdicts(model: Model, search: Search, reachable: Collection[str], routed: bool) -> dict[str, Liveness]:
    """By address of every trainable tensor, packed parts included."""
    held: dict[str, list[Case]] = {}
    for case in [*search.pending, *search.stuck]:
        held.setdefault(case.told, []).append(case)
    made: dict[str, Liveness] = {}
    for tensor in model.tensors:
        if not tensor.trainable:
            continue
        default = Liveness.LIVE if tensor.address in reachable else Liveness.UNUSED
        parts = {
            part: _verdict(search, held[part], tensor, routed) if part in held else default
            for part in tensor.part_addresses
        }
        made[tensor.address] = parts[tensor.address] if not tensor.parts else _of_parts(list(parts.values()))
        made.update(parts)
        if tensor.address in held:
            made[tensor.address] = _verdict(search, held[tensor.address], tensor, routed)
    for told, cases in held.items():
        if told not in made and not cases[0].indices:
            made[told] = _verdict(search, cases, None, routed)
    return made


def _of_parts(parts: Sequence[Liveness]) -> Liveness:
    return parts[0] if len(set(parts)) == 1 else Liveness.LIVE


def _verdict(search: Search, cases: Sequence[Case], tensor: Tensor | None, routed: bool) -> Liveness:
    if any(case in search.unreached for case in cases):
        return Liveness.UNREACHED
    if all(case in search.stuck for case in cases):
        return Liveness.STUCK
    if routed or (tensor is not None and tensor.role is Role.RECURRENT_WEIGHT):
        return Liveness.UNREACHED
    return Liveness.UNUSED if all(case in search.unused for case in cases) else Liveness.INVARIANT


def stuck_rows(search: Search, made: Mapping[str, Liveness]) -> dict[str, int]:
    """Of tensors that live otherwise: how many rows start at zero and never get a gradient."""
    found: dict[str, int] = {}
    parts: dict[str, list[tuple[int, int]]] = {}
    for case in search.stuck:
        if case.rows is not None:  # a part is told of by itself
            parts.setdefault(case.address, []).append(case.rows)
    for case in search.stuck:
        if case.indices and made.get(case.address) is Liveness.LIVE:
            rows = sum(
                not any(first <= row < last for first, last in parts.get(case.address, ())) for row in case.indices
            )
            if rows:
                found[case.address] = found.get(case.address, 0) + rows
    return found


_STEPS = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Sign", "Round", "Floor", "Ceil"})


def behind_steps(search: Search, nodes: Sequence[NodeProto]) -> set[Case]:
    """Those stuck cases that wait for what lies before a step, as the threshold of a spiking unit.

    A file does not hold the gradient that training puts in a step's place, so that nobody knows what it wakes up.
    """
    flow = Dataflow(nodes)
    inert = {search.weights.name(case.address) for case in search.pending if case not in search.stuck}
    before = flow.downstream(inert) if inert and search.stuck else set()
    hidden = flow.downstream(
        output
        for node, read in zip(nodes, flow.reads, strict=True)
        if node.op_type in _STEPS and not before.isdisjoint(read)
        for output in node.output
    )
    fed = {name for read in flow.reads if not hidden.isdisjoint(read) for name in read}
    return {case for case in search.stuck if search.weights.name(case.address) in fed}


def is_routed(setup: Setup) -> bool:
    return any(node.op_type in _ROUTING for node in setup.graph.nodes)
