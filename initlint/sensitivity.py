"""How much the loss moves with each layer's weights: the measure behind the gradient rules.

The sensitivity of a layer is the norm of the gradient of its weights times their root mean square: what the loss feels
when the weights change by a given share of their size in a random direction. Seen relative to that of the layer through
which everything leaves, it has no unit: it does not change with the scale of the loss, with the size of the batch, nor
with weights in front of a normalisation; and where all maps are homogeneous (ReLU without biases) every layer has the
same, however loud or quiet the signal is. What is left is what the signal does not show: perturbations that grow faster
than the signal itself, or that are lost although the signal is kept.

It estimates the nonlinearity coefficient of the network behind the layer (Philipp & Carbonell 2018,
arXiv:1806.00179): the size of its Jacobian times the spread of its input over the spread of its output.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .kinds import Source, Use
from .model import Layer, Model, Tensor
from .probe.signals import Backward, Signals

UNSURE = 2.0
"""What an estimated ratio may be off by: 95 % of the layers of 28 nets lie within 0.14 decades, a factor of 1.4
(`benchmarks/results/gradient_estimates.md`), and seeds differ as much again. It is brought so much nearer to 1, so that
what is said of it holds for the true one too."""


@dataclass(frozen=True)
class Sensitivity:
    """One layer's share of the loss."""

    layer: Layer
    ratio: float
    """Sensitivity over that of the outlet."""
    gradient_ratio: float
    """Norm of the gradient over that of the outlet: what a step feels, however small the weights are."""
    outlet: Layer
    layers: tuple[Layer, ...]
    """From this one to the outlet, both counted, in execution order."""
    depth: int
    """Layers with weights, norms apart, from this one to the outlet, both counted, in a row or side by side."""
    normalised: bool
    """Whether a normalisation lies between the two."""
    estimated: bool = False
    """Without autograd, from how perturbations move the outputs; the ratios are nearer to 1 by ``UNSURE`` then."""
    uses: int = 1
    """How often the weights are used one after the other: calls, times steps of a recurrence. A healthy recurrence with
    ReLU adds up as much from every step, so that its ratio grows with their number."""

    @property
    def basis(self) -> str:
        """For messages: empty, or that it is an estimate."""
        return " (estimated)" if self.estimated else ""

    @property
    def per_use(self) -> float:
        return self.ratio / self.uses

    @property
    def per_layer(self) -> float:
        return float(self.ratio ** (1 / max(1, self.depth - 1)))


def sensitivities(model: Model, signals: Signals, mildest: bool = False) -> Iterator[Sensitivity]:
    """Of every map and recurrence that leads to an outlet, in execution order; those without any are left out.

    An outlet is a layer, a norm too, that all of the signal of some output leaves through. Of several, all layers are
    compared with the most sensitive one, and those that do not lead there are left out; or, if ``mildest``, each layer
    with the least sensitive one that it leads to. Nothing is said of a model without any, as one that ends in a sum.
    """
    known = {layer.name: value for layer in model.layers if (value := _sensitivity(layer, signals)) > 0}
    outlets = [
        layer
        for layer in model.layers
        if math.isfinite(known.get(layer.name, math.inf)) and Use.OUTPUT in layer.uses and not layer.bypassed
    ]
    outlets.sort(key=lambda layer: known[layer.name] if mildest else -known[layer.name])
    outlets = outlets if mildest else outlets[:1]
    leading: dict[str, list[Layer]] = {}
    """By outlet: itself and the layers that lead there, in execution order."""
    for layer in model.layers:
        if layer.name in known and (layer.kind.is_map or layer.kind.is_recurrent):
            outlet = next((each for each in outlets if model.is_upstream(layer.name, each.name)), None)
            if outlet is not None and outlet is not layer:
                if outlet.name not in leading:
                    leading[outlet.name] = _leading_to(model, outlet)
                behind = [each for each in leading[outlet.name] if model.is_upstream(layer.name, each.name)]
                yield _compared(layer, outlet, behind, known[layer.name] / known[outlet.name], signals)


def _leading_to(model: Model, outlet: Layer) -> list[Layer]:
    return [each for each in model.layers if each is outlet or model.is_upstream(each.name, outlet.name)]


def _compared(layer: Layer, outlet: Layer, behind: Sequence[Layer], ratio: float, signals: Signals) -> Sensitivity:
    """``behind`` are the layers on the way from ``layer`` to the outlet, which is one of them."""
    depth = 1 + sum(not each.kind.is_norm for each in behind)
    normalised = layer.norm_after is not None or any(_is_normalised(each) for each in behind)
    felt = _gradient(layer, signals) / (_gradient(outlet, signals) or math.inf)
    estimated = signals.backward is Backward.ESTIMATED
    ratio, felt = (_certain(each) if estimated else each for each in (ratio, felt))
    layers = (layer, *behind)
    return Sensitivity(layer, ratio, felt, outlet, layers, depth, normalised, estimated, _uses(layer, signals))


def _certain(ratio: float) -> float:
    return max(1.0, ratio / UNSURE) if ratio > 1 else min(1.0, ratio * UNSURE)


def _is_normalised(layer: Layer) -> bool:
    """By a norm with weights, which is a layer, or by one without, which shows at its neighbours alone."""
    return layer.kind.is_norm or layer.norm_after is not None or layer.input_source is Source.NORM


def _uses(layer: Layer, signals: Signals) -> int:
    signal = signals.layers.get(layer.name)
    steps = signal.samples // max(1, signals.batch) if layer.kind.is_recurrent and signal is not None else 1
    return max(1, layer.calls) * max(1, steps)


def _sensitivity(layer: Layer, signals: Signals) -> float:
    """The larger one of its weights'; 0 where none got a gradient."""
    weights = [layer.weight] if layer.recurrent is None else [layer.weight, layer.recurrent]
    return max(_of(tensor, signals) for tensor in weights)


def _gradient(layer: Layer, signals: Signals) -> float:
    """Norm of the gradient of its weight; 0 where there is none."""
    gradient = signals.gradients.get(layer.weight.address)
    return 0.0 if gradient is None else gradient.rms * math.sqrt(layer.weight.size)


def _of(tensor: Tensor, signals: Signals) -> float:
    gradient = signals.gradients.get(tensor.address)
    if gradient is None:
        return 0.0
    value = gradient.rms * math.sqrt(tensor.size) * gradient.weight_rms
    return 0.0 if math.isnan(value) else value
