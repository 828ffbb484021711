"""Runs of a probe graph that carry tangents: how its outputs, and values on the way, change with some of its values.

Two questions are asked of them. *Which way:* an input or a weight is given a direction, and the outputs' tangents tell
whether they depend on it at all, and how strongly. *How much on the way:* the sizes of tangents at the layers' outputs
tell how a perturbation grows. The expected square of a tangent along a random direction of unit variance is the squared
Frobenius norm of the Jacobian (Hutchinson 1990), and so that of the gradient of a random linear loss on the outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from . import batch_norm
from .differentiation import Differentiation
from .emit import Emitter
from .onnx_ajar import Opener
from .payload import Array
from .plan import Plan
from .reductions import Reductions
from .runtime import Session
from .setup import Setup
from .tangent_rules import RULES


@dataclass(frozen=True)
class Tangents:
    """What one run returned."""

    outputs: Mapping[str, Array]
    moves: Mapping[str, Array]
    """Tangents of the outputs, by name; an output that does not depend on any direction is missing."""
    sizes: Mapping[str, float] = field(default_factory=dict)
    """Root mean square of the tangents of the values that were asked for."""


@dataclass
class TangentRuns:
    """A loaded graph in which the values ``seeds`` take directions."""

    setup: Setup
    seeds: Sequence[str]
    outputs: Sequence[str]
    values: Sequence[str] = ()
    """Values whose tangents' sizes are measured."""
    ajar: bool = False
    """Units that are off get a little slope (see ``ajar``)."""
    grows: bool = True
    """Some parameter learns, so that units may come within reach."""
    _moves: dict[str, str] = field(init=False, default_factory=dict)
    _sizes: dict[str, tuple[str, str]] = field(init=False, default_factory=dict)
    _directions: dict[str, str] = field(init=False, default_factory=dict)
    _session: Session = field(init=False)

    def __post_init__(self) -> None:
        plan = Plan(self.setup.graph)
        emit = Emitter(plan.graph.prefix, plan.graph.opset)
        to = Differentiation(emit, plan.graph.opset, self.setup.known, RULES)
        for seed in self.seeds:
            self._directions[seed] = to.of[seed] = plan.directions[seed] = emit.name("direction")
            if seed in self.setup.weights:
                plan.sizes[self._directions[seed]] = self.setup.weights[seed].shape
        self._write(plan, to)
        self._moves = {name: to.of[name] for name in self.outputs if name in to.of}
        for value in self.values:
            if value in to.of:
                largest = emit.reduce_all("ReduceMax", emit.op("Abs", to.of[value]))
                unit = emit.where(emit.op("Greater", largest, emit.floats(0.0)), largest, emit.floats(1.0))
                share = emit.op("Div", to.of[value], unit)
                self._sizes[value] = largest, emit.reduce_all("ReduceMean", emit.op("Mul", share, share))
        plan.nodes += emit.take()
        plan.constants = emit.constants
        named = [name for pair in self._sizes.values() for name in pair]
        plan.extra = list(dict.fromkeys([*self.outputs, *self._moves.values(), *named]))
        self._session = self.setup.load(plan)

    def _write(self, plan: Plan, to: Differentiation) -> None:
        """The graph's nodes, batch norms as primitives, each followed by its tangents."""
        writer = Reductions(to.emit)
        opener = Opener(to, set(plan.graph.inputs), self.grows)
        for node in plan.graph.nodes:
            if batch_norm.is_batch_norm(node):
                batch_norm.write(node, writer)
                written = [(each, True) for each in to.emit.take()]
            else:
                written = opener.written(node) if self.ajar else [(node, True)]
            for each, moves in written:
                plan.nodes.append(each)
                if moves:
                    to.through(each)
                for value in self._open.intersection(each.output):
                    to.of[value] = to.emit.expand_like(self._directions[value], value)
                plan.nodes += to.emit.take()

    def _shape(self, seed: str) -> tuple[int, ...]:
        return () if seed in self._open else self.setup.known[seed].static or ()

    @cached_property
    def _open(self) -> set[str]:
        """Seeds that the graph computes and whose shapes only a run tells, as slices between computed bounds have."""
        made = {output for node in self.setup.graph.nodes for output in node.output}
        known = self.setup.known
        return {seed for seed in made.intersection(self.seeds) if seed not in known or known[seed].static is None}

    @property
    def reached(self) -> bool:
        """Whether some output depends on a seed as the graph is drawn."""
        return bool(self._moves)

    def run(self, directions: Mapping[str, Array], run: int, values: Mapping[str, Array] | None = None) -> Tangents:
        """One run on the batch number ``run``; seeds without a direction stand still."""
        feeds = {**self.setup.feeds(run), **(values or {})}
        for seed, name in self._directions.items():
            at = feeds.get(seed)
            if seed in directions:
                feeds[name] = np.asarray(directions[seed], np.float32)
            else:
                feeds[name] = np.zeros(np.shape(at) if at is not None else self._shape(seed), np.float32)
        results: dict[str, Any] = self._session.run(feeds)
        return Tangents(
            {name: results[name] for name in self.outputs},
            {name: results[tangent] for name, tangent in self._moves.items()},
            {
                value: float(results[largest]) * float(results[square]) ** 0.5
                for value, (largest, square) in self._sizes.items()
            },
        )


def strength(tangents: Tangents, chosen: Sequence[str]) -> float:
    """Root mean square of the tangents of the ``chosen`` outputs; 0 where none depends on the directions."""
    moves = [tangents.moves[name] for name in chosen if name in tangents.moves]
    entries = sum(tangents.outputs[name].size for name in chosen)
    largest = max((float(np.abs(each).max()) for each in moves if each.size), default=0.0)
    if not largest or not np.isfinite(largest):
        return largest
    return largest * float(
        (sum(float(np.square(each / largest, dtype=np.float64).sum()) for each in moves) / entries) ** 0.5
    )
