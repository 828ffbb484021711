"""The forward probe of ONNX graphs, on onnxruntime. It runs inside the child process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from onnx import ModelProto

from ..model import Model, NotChecked
from ..settings import ProbeSettings
from ..stats import WeightStats
from . import batch_norm, moments, origin, payload, plan, single_sample, softmax_rows
from .blank_inputs import remark
from .dataflow import Dataflow
from .graph_rewrite import ProbeGraph, replace_values, rewrite
from .inputs import Attempt, Feeder, feeder_of
from .limits import NORM_SAMPLES
from .moments import Moments
from .onnx_backward import TangentProbe
from .payload import Array
from .plan import Plan, Point
from .reductions import Place
from .runtime import LoadFailure, RuntimeFailure, Session
from .setup import Setup
from .signals import Forward, LayerSignal, NonFiniteOrigin, Signals, SoftmaxSignal
from .signature import Unfeedable, listing
from .taps import SoftmaxTap, Tap, sample_axes
from .weights import Weights


class Opened(Protocol):
    """What the loader hands over."""

    @property
    def proto(self) -> ModelProto: ...
    @property
    def base_dir(self) -> Path | None: ...
    @property
    def taps(self) -> tuple[Tap, ...]: ...
    @property
    def softmaxes(self) -> tuple[SoftmaxTap, ...]: ...
    @property
    def model(self) -> Model: ...
    @property
    def roots(self) -> Mapping[str, tuple[str, ...]]: ...
    @property
    def weights(self) -> Weights: ...


@dataclass
class Targets:
    """What is to be measured where."""

    taps: list[tuple[Tap, Point]]
    outputs: dict[str, Point]
    skipped: list[NotChecked]

    @property
    def points(self) -> list[Point]:
        return list(dict.fromkeys([point for _, point in self.taps] + list(self.outputs.values())))


@dataclass
class Measured:
    """What the runs of one attempt returned."""

    moments: dict[Point, Moments]
    samples: dict[batch_norm.Norm, int]
    input_rms: float
    rows: dict[SoftmaxTap, list[Array]]
    apart: dict[str, float]
    """By value: standard deviation from sample to sample."""


class OnnxProbe:
    """Answers probes of one opened graph; keeps the session of the last one."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._graph: ProbeGraph | None = None
        self._kept: tuple[object, Plan, Session] | None = None
        self._ran: Setup | None = None

    def run(self, settings: ProbeSettings, overrides: Mapping[str, Array]) -> Signals:
        """Push a batch through the graph, ``overrides`` standing in for the values of these names.

        Raises TargetError(USAGE) for inputs, shapes or dimensions that do not fit the model.
        """
        if not settings.enabled:
            return Signals(Forward.NONE, "the probe is switched off", seed=settings.seed)
        try:
            graph = self._rewritten()
            feeder = feeder_of(graph, settings)
        except (Unfeedable, ValueError, OSError) as error:
            return Signals(Forward.NONE, f"The forward probe did not run: {error}.", seed=settings.seed)
        overrides = {name: payload.to_float32(np.asarray(array)) for name, array in overrides.items()}
        unknown = sorted(set(overrides) - graph.known)
        if unknown:
            raise ValueError(f"the graph has no value named {unknown[0]!r}")
        if not set(overrides) <= set(graph.fed):
            graph = replace_values(graph, overrides)
        return self._first_that_runs(graph, feeder, overrides)

    def differentiate(self, forward: Signals, stats: Mapping[str, WeightStats], liveness: bool) -> Signals:
        """What the last run returned, with gradients; ``stats`` are those of the weights as they were in it."""
        if self._ran is None or forward.forward is not Forward.MEASURED:
            return forward
        self._kept = None  # its memory
        weights = replace(self._opened.weights, overrides=dict(self._ran.overrides))
        outputs = _measurable_outputs(self._ran.graph)
        opened = self._opened
        probe = TangentProbe(self._ran, opened.model, opened.taps, weights, stats, outputs)
        return probe.measure(forward, liveness)

    def _rewritten(self) -> ProbeGraph:
        if self._graph is None:
            self._graph = rewrite(self._opened.proto, self._opened.base_dir)
        return self._graph

    def _first_that_runs(self, graph: ProbeGraph, feeder: Feeder, overrides: Mapping[str, Array]) -> Signals:
        failures = []
        for attempt in feeder.attempts():
            try:
                return self._probe(Setup(graph, feeder, attempt, overrides, self._opened.base_dir))
            except LoadFailure as failure:
                reason = f"The forward probe did not run: onnxruntime cannot load the graph ({failure})."
                return Signals(Forward.NONE, reason, seed=feeder.settings.seed)
            except RuntimeFailure as failure:
                failures.append((attempt, str(failure)))
        return Signals(Forward.NONE, _refusal(feeder, *failures[0]), seed=feeder.settings.seed)

    def _probe(self, setup: Setup) -> Signals:
        setup.prepare()
        targets = self._targets(setup)
        measured = self._measure(setup, targets.points)
        if setup.give_samples(list(measured.samples.values())):
            measured = self._measure(setup, targets.points)
        self._ran = setup
        return self._signals(setup, targets, measured)

    def _targets(self, setup: Setup) -> Targets:
        """What to measure: taps and outputs, and what is to be said of taps that cannot be measured."""
        inside = "its output lies inside an If, Loop or Scan, where nothing can be measured"
        taps = [tap for tap in self._opened.taps if tap.value in setup.graph.known]
        skipped = [NotChecked(tap.layer, inside) for tap in self._opened.taps if tap.value not in setup.graph.known]
        axes = dict.fromkeys(_measurable_outputs(setup.graph), 1)
        axes |= {tap.value: tap.unit_axis for tap in taps if tap.value in axes}
        ranks = setup.ranks({tap.value for tap in taps} | set(axes))
        return Targets(
            [(tap, (Place.of(tap.value, tap.unit_axis, ranks[tap.value]), tap.flat)) for tap in taps],
            {name: (Place.of(name, axis, ranks[name]), None) for name, axis in axes.items()},
            skipped,
        )

    def _measure(self, setup: Setup, points: Sequence[Point]) -> Measured:
        found, session = self._session(setup, points)
        runs: list[dict[Point, Moments]] = []
        samples: dict[batch_norm.Norm, int] = {}
        rows: dict[SoftmaxTap, list[Array]] = {tap: [] for tap in found.rows}
        apart: dict[str, float] = {}
        squares, count = 0.0, 0
        for run in range(setup.attempt.runs):
            arrays = setup.feeder.arrays(setup.attempt, run)
            more, values = setup.feeder.input_rms(arrays)
            squares, count = squares + more, count + values
            results = session.run({**setup.weights, **arrays})
            runs.append(found.read(results))
            samples = found.norm_samples(results)
            apart = {value: max(float(results[n]) for n in names) ** 0.5 for value, names in found.apart.items()}
            for tap, name in found.rows.items():
                rows[tap].append(results[name])
        self._look_closer(setup, runs)
        merged = runs[0]
        for other in runs[1:]:
            merged = {point: moments.merge(merged[point], other[point]) for point in merged}
        return Measured(merged, samples, (squares / count) ** 0.5 if count else 0.0, rows, apart)

    def _session(self, setup: Setup, points: Sequence[Point]) -> tuple[Plan, Session]:
        key = (tuple(points), tuple(sorted(setup.replaced.items())), tuple(sorted(setup.attempt.shapes.items())))
        if self._kept is None or self._kept[0] != key or setup.graph.random:
            self._kept = None
            measuring = plan.measuring(setup.graph, points, setup.known, self._opened.softmaxes, self._apart(setup))
            self._kept = (key, measuring, setup.load(measuring))
        return self._kept[1], self._kept[2]

    def _apart(self, setup: Setup) -> dict[str, tuple[int, ...]]:
        """By value: the axes that samples may lie along; none where they come one by one, in several runs."""
        found: dict[str, tuple[int, ...]] = {}
        for tap in self._opened.taps if setup.attempt.runs == 1 else ():
            fact = setup.known.get(tap.value) if tap.samples else None
            if fact is not None and fact.static is not None:
                axes = sample_axes(tap.unit_axis, fact.static, setup.attempt.batch)
                found |= {tap.value: axes} if axes else {}
        return found

    def _look_closer(self, setup: Setup, runs: list[dict[Point, Moments]]) -> None:
        """Measure again, scaled to order 1, what came out non-finite or near the ends of float32."""
        suspects = [point for point in runs[0] if any(moments.needs_closer_look(run[point]) for run in runs)]
        if not suspects:
            return
        closer = plan.closer_look(setup.graph, suspects, setup.known)
        session = setup.load(closer)
        for run, first in enumerate(runs):
            scales = {place: moments.scale_for(first[place, flat]) for place, flat in suspects}
            feeds = {name: scales[place].reshape(place.factor_shape) for place, name in closer.scales.items()}
            results = session.run({**setup.feeds(run), **feeds})
            first.update(closer.read(results, scales))

    def _signals(self, setup: Setup, targets: Targets, measured: Measured) -> Signals:
        blind, poor = _short_of_samples(setup.graph, measured.samples)
        skipped = [*targets.skipped, *([remark(setup.feeder.drawn)] if setup.feeder.drawn else ())]
        if setup.feeder.given and setup.attempt.runs > 1:
            skipped.append(single_sample.remark(setup.attempt.runs - 1))
        layers: dict[str, Moments] = {}
        for tap, point in targets.taps:
            reason = blind.get(tap.value) or poor.get(tap.value)
            if reason:
                skipped.append(NotChecked(tap.layer, reason))
                continue
            found, before = moments.of_units(measured.moments[point], tap.units), layers.get(tap.layer)
            same = before is not None and before.mean.shape == found.mean.shape
            layers[tap.layer] = moments.merge(before, found) if before is not None and same else found
        signals = {name: moments.signal(found) for name, found in layers.items()}
        for tap in self._opened.taps:
            if tap.layer in signals and tap.value in measured.apart:
                signals[tap.layer] = replace(signals[tap.layer], sample_std=measured.apart[tap.value])
        outputs = {
            name: moments.signal(measured.moments[point])
            for name, point in targets.outputs.items()
            if name not in blind
        }
        return Signals(
            forward=Forward.MEASURED,
            batch=setup.attempt.batch,
            runs=setup.attempt.runs,
            seed=setup.feeder.settings.seed,
            fed=_fed(setup),
            layers=signals,
            outputs=outputs,
            softmaxes=_softmaxes(measured.rows, blind),
            input_rms=measured.input_rms,
            origin=self._origin(setup, signals, outputs),
            not_probed=tuple(dict.fromkeys(skipped)),
        )

    def _origin(
        self, setup: Setup, layers: Mapping[str, LayerSignal], outputs: Mapping[str, LayerSignal]
    ) -> NonFiniteOrigin | None:
        shown = [(tap.value, tap.layer) for tap in self._opened.taps if _tainted(layers.get(tap.layer))]
        shown += [(name, "") for name, signal in outputs.items() if _tainted(signal)]
        if not shown:
            return None
        sound = frozenset(tap.value for tap in self._opened.taps if tap.layer in layers) - {value for value, _ in shown}
        trainable = frozenset(tensor.address for tensor in self._opened.model.tensors if tensor.trainable)
        try:
            return origin.find(setup, shown, sound, self._blamable(setup), trainable)
        except RuntimeFailure:  # the watched graph needs more memory than the probe's: the finding stands without it
            return None

    def _blamable(self, setup: Setup) -> dict[str, tuple[str, ...]]:
        """Which tensors a value holds: where it is cut into several, those that are not finite, if some are not."""
        weights = replace(self._opened.weights, overrides=dict(setup.overrides))
        found = {}
        for value, addresses in self._opened.roots.items():
            broken = (each for each in addresses if not np.isfinite(weights.rows(each)).all())
            found[value] = (tuple(broken) or addresses) if len(addresses) > 1 else addresses
        return found


def _fed(setup: Setup) -> str:
    """The inputs of a run: name, shape, type."""
    shapes, slots = setup.attempt.shapes, setup.feeder.slots
    each = (f"{name} {'x'.join(map(str, shapes[name])) or 'scalar'} {slot.dtype}" for name, slot in slots.items())
    source = "" if setup.feeder.given else " (made up)"
    times = f", {setup.attempt.runs} times" if setup.attempt.runs > 1 else ""
    return f"{', '.join(each)}{times}{source}" if slots else ""


def _softmaxes(rows: Mapping[SoftmaxTap, Sequence[Array]], blind: Mapping[str, str]) -> dict[str, SoftmaxSignal]:
    found = {tap.name: softmax_rows.signal_of(tap, np.concatenate(each)) for tap, each in rows.items()}
    hidden = {tap.name for tap in rows if tap.value in blind}
    return {name: signal for name, signal in found.items() if signal is not None and name not in hidden}


def _tainted(signal: LayerSignal | None) -> bool:
    return signal is not None and signal.nonfinite > 0


def _measurable_outputs(graph: ProbeGraph) -> list[str]:
    """Outputs that hold floats, running statistics of batch norms left out."""
    running = {output for node in graph.nodes if batch_norm.is_batch_norm(node) for output in node.output[1:]}
    return [
        name
        for name, value in graph.outputs.items()
        if name in graph.known
        and name not in running
        and value.type.WhichOneof("value") in (None, "tensor_type")
        and value.type.tensor_type.elem_type in payload.FLOATS
    ]


def _short_of_samples(
    graph: ProbeGraph, samples: Mapping[batch_norm.Norm, int]
) -> tuple[dict[str, str], dict[str, str]]:
    """Values that mean nothing, being downstream of a norm over one value; and norms that rest on too few."""
    blind: dict[str, str] = {}
    poor: dict[str, str] = {}
    advice = "give a larger batch with --batch or --inputs, or export the model with an open batch dimension"
    flow = Dataflow(graph.nodes)
    for norm, count in samples.items():
        if count <= 1:
            reason = f"the batch norm {norm.name} saw one value per channel, which it maps to its shift; {advice}"
            for value in flow.downstream([norm.output]):
                blind.setdefault(value, reason)
        elif count < NORM_SAMPLES:
            poor[norm.output] = f"its batch statistics rest on {count} values per channel; {advice}"
    return blind, poor


def _refusal(feeder: Feeder, attempt: Attempt, failure: str) -> str:
    """Why no attempt ran, and what to do."""
    fed = [f"{name}:{'x'.join(map(str, shape)) or 'scalar'}" for name, shape in attempt.shapes.items()]
    if feeder.given or not fed:
        advice = "give other inputs with --inputs"
    else:
        advice = f"if the shape is wrong, give the right one as in --input-shape {fed[0]}"
    return (
        f"The forward probe did not run: fed {', '.join(fed) or 'nothing'}, onnxruntime fails ({failure}); {advice} "
        f"(the model's inputs are {listing(feeder.slots)})."
    )
