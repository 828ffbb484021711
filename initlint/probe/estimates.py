"""Gradients of a graph that has no autograd, estimated from tangents.

Two estimates, of which the second is asked for where the first gives cause:

*Growth.* One run carries a perturbation of the inputs (of the tables, where these are integers) through the graph.
Let T be its size at a layer's output and at the end, z the layer's output. A relative change of the layer's weights
moves the layer's output by about the rms of z, and what is left of that at the end is the share that is left of T: the
layer's sensitivity (``initlint.sensitivity``) is rms(z) T_end / T.

*Directions.* A few runs per layer, each with a random direction of its weights. The square of what the outputs then do
is, in expectation, the squared norm of the gradient of a random linear loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..kinds import Kind
from ..model import Model, Tensor
from .payload import Array
from .setup import Setup
from .signals import GradientSignal, LayerSignal
from .tangents import TangentRuns, strength
from .taps import Tap
from .weights import Weights, normal, rms

DRAWS = 4
"""Directions per weight. Where the Jacobian has rank one, the worst case, their mean square is a chi-square of four
degrees of freedom over four: its root is off by a factor of 1.5 (one standard deviation of its logarithm)."""

SEEDS = 16
"""Weights that share a session: loading one costs about as much as this many runs of a small graph."""


@dataclass(frozen=True)
class Growth:
    """How a perturbation of the inputs grows."""

    at_layers: Mapping[str, float]
    """Root mean square of the tangent at the output of a layer, by its name."""
    at_end: float


@dataclass
class Estimator:
    """Estimates gradients on one graph and its batch; ``chosen`` are the outputs that a loss would read."""

    setup: Setup
    model: Model
    taps: Sequence[Tap]
    weights: Weights
    chosen: Sequence[str]

    def growth(self) -> Growth | None:
        """None where nothing that could be perturbed reaches the outputs."""
        values = [tap.value for tap in self.taps if tap.value in self.setup.graph.known]
        seeds = self._entries()
        runs = TangentRuns(self.setup, list(seeds), self.chosen, values) if seeds else None
        if runs is None or not runs.reached:
            return None
        found = runs.run(seeds, 0)
        sizes = {tap.layer: found.sizes[tap.value] for tap in self.taps if tap.value in found.sizes}
        return Growth(sizes, strength(found, self.chosen))

    def _entries(self) -> dict[str, Array]:
        """Directions of the inputs that carry numbers, of unit relative size; of tables where there are none."""
        feeds = self.setup.feeds(0)
        entries = [name for name in self.setup.feeder.numbers if np.ndim(feeds[name])]
        if not entries:
            tables = [layer.weight.address for layer in self.model.layers if layer.kind is Kind.EMBEDDING]
            entries = self.weights.values_of(tables)
        found = {}
        for name in entries:
            values = feeds[name] if name in feeds else self.weights.array(name)
            found[name] = normal(values.shape, rms(values) or 1.0, name)
        return found

    def by_growth(
        self, growth: Growth, layers: Mapping[str, LayerSignal], sizes: Mapping[str, float]
    ) -> dict[str, GradientSignal]:
        """By address of the weights of layers that the perturbation reached; ``sizes`` are weights' rms by address."""
        found = {}
        for layer in self.model.layers:
            size, signal = growth.at_layers.get(layer.name, 0.0), layers.get(layer.name)
            scale = sizes.get(layer.weight.address, 0.0)
            if signal is not None and 0 < size < math.inf and math.isfinite(signal.rms) and scale > 0:
                sensitivity = signal.rms * growth.at_end / size
                gradient = sensitivity / (scale * math.sqrt(layer.weight.size))
                found[layer.weight.address] = GradientSignal(gradient, 0.0, scale)
        return found

    def by_directions(self, tensors: Sequence[Tensor]) -> Iterator[tuple[str, GradientSignal]]:
        """By address of each of ``tensors`` that the outputs depend on."""
        for start in range(0, len(tensors), SEEDS):
            group = tensors[start : start + SEEDS]
            runs = TangentRuns(self.setup, self.weights.values_of(each.address for each in group), self.chosen)
            for tensor in group if runs.reached else ():
                yield tensor.address, self._along(runs, tensor)

    def _along(self, runs: TangentRuns, tensor: Tensor) -> GradientSignal:
        rows = self.weights.rows(tensor.address)
        weight_rms = rms(rows)
        scale = weight_rms or 1 / math.sqrt(max(1, tensor.view.fan_in))
        squares = 0.0
        for draw in range(DRAWS):
            direction = normal(rows.shape, scale, f"{tensor.address} {draw}")
            moved = self.weights.stored(tensor.address, direction, zero=True)
            squares += strength(runs.run(moved, 0), self.chosen) ** 2
        gradient = math.sqrt(squares / DRAWS) / (scale * math.sqrt(tensor.size))
        return GradientSignal(gradient, float(gradient == 0), weight_rms)
