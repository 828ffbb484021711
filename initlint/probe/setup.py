"""One attempt at a probe: a graph with its overrides, what to feed it, and what is known of its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, prod
from pathlib import Path

from . import batch_norm, payload, shapes
from .graph_rewrite import ProbeGraph
from .inputs import Attempt, Feeder
from .limits import MAX_BATCH, NORM_SAMPLES
from .payload import Array
from .plan import Plan, scouting
from .runtime import LoadFailure, RuntimeFailure, Session
from .shapes import Known


@dataclass
class Setup:
    graph: ProbeGraph
    feeder: Feeder
    attempt: Attempt
    overrides: Mapping[str, Array]
    folder: Path | None
    known: dict[str, Known] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)

    @property
    def replaced(self) -> dict[str, tuple[int, ...]]:
        return {name: array.shape for name, array in self.overrides.items()}

    def prepare(self) -> None:
        """Infer shapes, raise the batch where a norm would have too few values, and fetch the weights."""
        self._infer()
        counts = []
        for node in self.graph.nodes:
            known = self.known.get(node.input[0]) if batch_norm.is_batch_norm(node) else None
            shape = known.static if known is not None else None
            if shape is not None and len(shape) > 1:
                counts.append(prod(shape) // max(shape[1], 1))
        self.give_samples(counts)
        stored = {name: tensor for name, tensor in self.graph.fed.items() if name not in self.overrides}
        try:
            self.weights = {name: payload.read(tensor, self.folder) for name, tensor in stored.items()}
        except (ValueError, OSError) as error:
            raise RuntimeFailure(f"a weight cannot be read ({error})") from None
        self.weights.update(self.overrides)

    def give_samples(self, counts: list[int]) -> bool:
        """Raise the batch, where it may be chosen, until norms with these ``counts`` have NORM_SAMPLES."""
        batch = self.attempt.batch
        if not self.attempt.free_batch or self.feeder.settings.batch or not any(counts):
            return False
        needed = min(ceil(NORM_SAMPLES * batch / min(count for count in counts if count)), MAX_BATCH)
        if needed <= batch:
            return False
        self.attempt = self.feeder.larger(self.attempt, needed)
        self._infer()
        return True

    def feeds(self, run: int) -> dict[str, Array]:
        """Weights and inputs of one run."""
        return {**self.weights, **self.feeder.arrays(self.attempt, run)}

    def load(self, plan: Plan) -> Session:
        """The session of a plan. A graph of an opset that onnxruntime does not know yet is stamped with the newest it
        knows: operators rarely change, and one that did is refused by name."""
        inputs = [*shapes.graph_inputs(self.graph, {}), *shapes.fed_inputs(self.graph, self.replaced)]
        try:
            return Session(plan.model(inputs), plan.outputs)
        except LoadFailure as failure:
            if failure.newest_opset is None or self.graph.imports[""] <= failure.newest_opset:
                raise
            self.graph.imports[""] = failure.newest_opset
            return Session(plan.model(inputs), plan.outputs)

    def ranks(self, values: set[str]) -> dict[str, int]:
        """Ranks of ``values``; where inference does not know them, the graph is run and asked."""
        facts = {value: self.known[value].shape for value in sorted(values) if value in self.known}
        ranks = {value: len(shape) for value, shape in facts.items() if shape is not None}
        missing = sorted(values - set(ranks))
        if missing:
            scout, named = scouting(self.graph, missing)
            results = self.load(scout).run(self.feeds(0))
            ranks |= {value: len(results[name]) for value, name in named.items()}
        return ranks

    def _infer(self) -> None:
        self.known = shapes.infer(self.graph, self.attempt.shapes, self.replaced)
