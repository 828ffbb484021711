"""What a graph without autograd tells of its gradients: sizes, what can never learn, what stays equal.

All of it rests on tangents (``tangents``). A healthy model pays for one run that carries a perturbation of its inputs;
more is asked where that run, or a weight, looks suspicious.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic

import numpy as np

from ..model import Layer, Model, NotChecked, Tensor
from ..sensitivity import Sensitivity, sensitivities
from ..stats import WeightStats
from . import onnx_liveness
from .dataflow import Dataflow
from .estimates import Estimator
from .onnx_alike import seem_alike, stay_alike
from .onnx_rows import LearntRows
from .onnx_symmetry import Symmetry
from .payload import Array
from .runtime import RuntimeFailure
from .setup import Setup
from .signals import Backward, Loss, Signals
from .taps import Tap
from .weights import Weights

QUIET = 1e-1
"""A growth estimate below asks for directions: vanishing-gradient speaks from 1e-3 on, and the estimate may be two
decades off (``benchmarks/gradient_estimates.py``)."""
LOUD, LOUD_NORMED, LOUD_RECURRENT = 2.0, 100.0, 0.2
"""One above does: a decade, which growth estimates are off there, below what exploding-gradient speaks from."""
SHALLOW = 8
"""Layers without a shortcut around them from which on gradients of a large graph are estimated at all: fewer that are
normalised keep within a decade (1.21 per layer, `benchmarks/results/zoo_growth.md`)."""
MEASURED = 12
"""Layers that directions are tried on, beside those at the end; of more, evenly spaced ones."""
SMALL = 1 << 22
"""Values at the layers' outputs that a run may have (a forward pass of a second or less); a graph with more is fed
FEW samples where its batch is open: every sample has positions enough then."""
FEW = 2
PATIENCE = 0.4
"""Share of the time for a whole answer after which liveness is given up, so that the rest is told."""
TOO_MANY = "which of {count} tensors that start at zero can learn would take too long to find out, one by one"


@dataclass
class TangentProbe:
    """One probe of one graph. ``stats`` are those of its weights as they are in this probe."""

    setup: Setup
    model: Model
    taps: Sequence[Tap]
    weights: Weights
    stats: Mapping[str, WeightStats]
    outputs: Sequence[str]
    """Outputs that hold numbers, in order."""

    def measure(self, forward: Signals, liveness: bool) -> Signals:
        """``forward`` with what tangents say."""
        if not self.outputs:
            return replace(forward, backward_reason="no gradients: no output holds floating-point numbers")
        if any(signal.nonfinite for signal in (*forward.layers.values(), *forward.outputs.values())):
            return replace(forward, backward=Backward.ESTIMATED, loss=Loss.RANDOM_LINEAR)
        try:
            found = self._gradients(forward)
            return self._liveness(found) if liveness else found
        except (RuntimeFailure, KeyError) as failure:
            return replace(forward, backward_reason=f"gradients could not be estimated: {failure}")

    @property
    def chosen(self) -> list[str]:
        """What a loss would read: ``logits``, or the first output and others of its shape."""
        first = next((name for name in self.outputs if name == "logits"), self.outputs[0])
        fact = self.setup.known.get(first)
        if first == "logits" or fact is None or fact.shape is None:
            return [first]
        same = (name for name in self.outputs if name in self.setup.known)
        return [name for name in same if self.setup.known[name].shape == fact.shape]

    @property
    def _heads(self) -> list[str]:
        """Other outputs that a loss may read; caches and states of layers are told by their names alone."""
        return [name for name in self.outputs if name not in self.chosen and not _STATES.search(name)]

    # -- sizes -------------------------------------------------------------------------------------------------------

    def _gradients(self, forward: Signals) -> Signals:
        found = replace(forward, backward=Backward.ESTIMATED, loss=Loss.RANDOM_LINEAR)
        if self.model.folded_norms:  # what the exporter has done to the scales shows, not what training will see
            return found
        if self._is_large and self._is_shallow:
            reason = "its gradients were not compared: nearly all of its layers have shortcuts around them"
            return replace(found, not_probed=(*forward.not_probed, NotChecked("gradients", reason)))
        estimator = Estimator(self._few_samples(), self.model, self.taps, self.weights, self.chosen)
        growth = estimator.growth()
        if growth is None:
            every = [layer for layer in self.model.layers if layer.kind.is_map or layer.kind.is_recurrent]
            return replace(found, gradients=dict(estimator.by_directions(_weights(_spaced(every)))))
        sizes = {address: math.sqrt(stats.mean_square) for address, stats in self.stats.items()}
        steepness = {layer: growth.at_end / size for layer, size in growth.at_layers.items() if 0 < size < math.inf}
        gradients = estimator.by_growth(growth, forward.layers, sizes)
        found = replace(found, gradients=gradients, activation_gradients=steepness)
        uneven = self._uneven(found)
        return replace(found, gradients=dict(estimator.by_directions(_weights(uneven)))) if uneven else found

    def _uneven(self, signals: Signals) -> list[Layer]:
        """Layers that seem much quieter or louder than those at the end, some of them; and the latter."""
        quiet = [
            each
            for each in sensitivities(self.model, signals, mildest=True)
            if not each.layer.bypassed and max(each.ratio, each.gradient_ratio) < QUIET
        ]
        loud = [each for each in sensitivities(self.model, signals) if each.per_use > _loud(each)]
        behind = loud[-1].layers[1:] if loud else ()  # beside which the last loud one may stand alone
        layers = [*_spaced([each.layer for each in quiet]), *_spaced([each.layer for each in loud]), *_spaced(behind)]
        return [*layers, *(each.outlet for each in (*quiet, *loud))]

    @property
    def _is_large(self) -> bool:
        facts = (self.setup.known.get(tap.value) for tap in self.taps)
        return sum(math.prod(fact.static) for fact in facts if fact is not None and fact.static is not None) > SMALL

    @property
    def _is_shallow(self) -> bool:
        """Normalised, and nearly all of it beside shortcuts: nothing can grow or shrink far."""
        plain = [layer for layer in self.model.layers if layer.kind.is_map and not layer.bypassed]
        normed = any(layer.kind.is_norm for layer in self.model.layers)
        return normed and len(plain) < SHALLOW and not any(layer.kind.is_recurrent for layer in self.model.layers)

    def _few_samples(self) -> Setup:
        """The graph with a smaller batch, where it is large and the batch may be chosen."""
        setup = self.setup
        if not self._is_large or not setup.attempt.free_batch or setup.feeder.settings.batch:
            return setup
        fewer = Setup(setup.graph, setup.feeder, setup.feeder.larger(setup.attempt, FEW), setup.overrides, setup.folder)
        fewer.prepare()  # which raises the batch again where a norm would have too few values
        return fewer

    # -- liveness ----------------------------------------------------------------------------------------------------

    def _liveness(self, found: Signals) -> Signals:
        symmetry = Symmetry(self.setup, self.weights, self.chosen, self._heads)
        rows = LearntRows(self.setup, self.weights, self.outputs)
        alike = rows.alike(self.model)
        found = replace(
            found,
            still_equal=symmetry.still_equal(self.model, self.stats),
            twins=symmetry.twins(self.model, self.stats),
            alike=alike,
            not_probed=(*found.not_probed, *rows.not_probed),
            batches=1,
            draws=1,
        )
        places = {tensor.address: self.weights.name(tensor.address) for tensor in self.model.tensors}
        hidden = {address for address, name in places.items() if name not in self.setup.graph.known}
        cases = onnx_liveness.suspects(self.model, self.stats, found.layers)
        if not cases and found.activation_gradients and not any(found.activation_gradients.values()):
            cases = onnx_liveness.everything(self.model)
        cases = [each for each in cases if each.address not in hidden]
        cases = list(onnx_liveness.located(cases, self.weights))
        search = onnx_liveness.Search(
            self.setup,
            replace(self.weights, overrides=dict(self.weights.overrides)),
            {tensor.address: max(1, tensor.view.fan_in) for tensor in self.model.tensors},
            self.chosen,
            self.outputs,
            self._batches() if cases else (),
            cases,
            deadline=monotonic() + PATIENCE * self.setup.feeder.settings.wall_seconds,
            trained={tensor.address for tensor in self.model.tensors if tensor.trainable},
            free=self._free({case.address for case in cases if case.rows is not None or case.indices}),
        )
        if cases:
            search.begin()
            search.run()
            self._ask_around(search, cases)
        if search.late:
            return replace(found, backward_reason=TOO_MANY.format(count=len(cases)))
        if not search.finite:
            return found
        search.unreached |= onnx_liveness.behind_steps(search, self.setup.graph.nodes)
        made = onnx_liveness.verdicts(self.model, search, self._reachable(), onnx_liveness.is_routed(self.setup))
        for address in hidden:  # nothing but a probe of its own could tell
            made.pop(address, None)
        if search.rounds:
            found = replace(found, steps=search.rounds, batches=len(search.batches), draws=search.rounds)
        same = seem_alike(found.outputs) and self._stay_alike(search.weights)
        shut = same and bool(search.unreached)
        found = replace(found, outputs_alike=same and not shut, outputs_shut=shut)
        return replace(found, liveness=made, stuck_rows=onnx_liveness.stuck_rows(search, made))

    def _stay_alike(self, weights: Weights) -> bool:
        trained = [each for each in self.model.tensors if each.trainable and not each.computed]
        known = [each for each in trained if self.weights.name(each.address) in self.setup.graph.known]
        return stay_alike(self.setup, weights, known, self.outputs, self._batches())

    def _free(self, by_rows: Collection[str]) -> set[str]:
        """Computed weights that have the name and the size of a parameter, those aside that are asked by rows."""
        names = {each.address: each for each in self.model.tensors if each.computed and each.address not in by_rows}
        facts = {address: self.setup.known.get(address) for address in names}
        sizes = {address: math.prod(fact.static) for address, fact in facts.items() if fact and fact.static is not None}
        return {address for address, size in sizes.items() if size == names[address].size}

    def _ask_around(self, search: onnx_liveness.Search, cases: Sequence[onnx_liveness.Case]) -> None:
        stuck = {case.address for case in search.stuck if not case.indices}
        if stuck and search.finite:
            search.also(onnx_liveness.shadow(self.model, stuck, {case.address for case in cases}))

    def _reachable(self) -> set[str]:
        """Addresses of what the outputs depend on as the graph is drawn; weights inside bodies count as needed."""
        flow = Dataflow(self.setup.graph.nodes)
        needed = {name for index in flow.upstream(self.setup.graph.outputs) for name in flow.reads[index]}
        needed |= set(self.setup.graph.outputs)
        names = {tensor.address: self.weights.name(tensor.address) for tensor in self.model.tensors}
        return {address for address, name in names.items() if name in needed or name not in self.setup.graph.known}

    def _batches(self) -> list[dict[str, Array]]:
        """Two batches: another draw, or what was given with its samples mixed."""
        feeder, attempt = self.setup.feeder, self.setup.attempt
        first = feeder.arrays(attempt, 0)
        other = {**feeder.arrays(attempt, 1), **{name: _mixed(each) for name, each in feeder.given.items()}}
        same = all(np.array_equal(first[name], other[name]) for name in first)
        return [first] if same else [first, other]


_STATES = re.compile(r"present|past|cache|hidden|attention|state", re.IGNORECASE)
"""What caches, states of layers and maps of attention are called among the outputs of transformers."""


def _loud(each: Sensitivity) -> float:
    if each.normalised:
        return LOUD_NORMED
    return LOUD_RECURRENT if each.layer.kind.is_recurrent else LOUD


def _spaced(layers: Sequence[Layer]) -> list[Layer]:
    if len(layers) <= MEASURED:
        return list(layers)
    places = np.unique(np.linspace(0, len(layers) - 1, MEASURED).round().astype(int))
    return [layers[place] for place in places]


def _weights(layers: Iterable[Layer]) -> list[Tensor]:
    tensors = (tensor for layer in layers for tensor in (layer.weight, layer.recurrent) if tensor is not None)
    return list({tensor.address: tensor for tensor in tensors if tensor.trainable}.values())


def _mixed(array: Array) -> Array:
    """Each feature's values in another order of samples; masks, lengths and positions stay (see ``batches``)."""
    if array.size < 2 or array.dtype == bool or len(np.unique(array.reshape(-1)[:64])) < 3:
        return array
    if array.dtype.kind != "f" and (array.ndim < 2 or bool((np.diff(array, axis=-1) >= 0).all())):
        return array
    axis = next(number for number, size in enumerate(array.shape) if size > 1)
    order = np.random.default_rng(1).random(array.shape).argsort(axis)
    return np.take_along_axis(array, order, axis)
