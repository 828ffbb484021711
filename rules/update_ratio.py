"""Most weights are so large that a step hardly changes them, hidden by the norms behind them.

## Why it matters

A normalisation makes the scale of the weights in front of it invisible in the signal, not in learning: weights a
hundred times too large get a gradient a hundred times too small, and a step of Adam, whose size does not depend on the
gradient, is a hundred times too small beside them. The layers stay what they were drawn as, random features.

One such layer among others is harmless, and is noted. Where half of the layers in front of the head are frozen, three
of them or more, the network learns slowly or not at all. With gradients at hand the measured ratio of gradient to
weight has to confirm it. Norms in front of residual branches, of a transformer say, hide it just as well if the weights
of all branches are too large: where the median of all maps is, that is one finding for all of them.

## Example

    nn.init.normal_(conv.weight)   # std 1 instead of sqrt(2 / fan_in), in front of a batch norm

## Fix

`nn.init.kaiming_normal_(conv.weight)` in every layer.

## References

- van Laarhoven 2017 (arXiv:1706.05350): the effective learning rate in front of a norm is lr / |w|^2
- Karpathy 2015, CS231n: the ratio of updates to weights should be about 1e-3
- `benchmarks/results/`: `calibrate_bias.md`, `calibrate_breadth.md` (nets with norms by the scale of their weights)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import Context, Layer, Needs, Severity, Suspicion, Use, expected_gain, redrawn, rule


@dataclass(frozen=True)
class Options:
    loud: float = 10.0  # calibrate_bias.md, norm, 6 all: from 10 on Adam is slow; healthy models stay below 2.5
    very_loud: float = 30.0  # calibrate_bias.md, norm, 6 all: from 30 on both optimisers fail
    least: int = 3  # layers; calibrate_bias.md, norm: two frozen ones train at any scale
    many: int = 5  # layers; as many as the nets of depth 6 had
    share: float = 0.5  # of the layers before the head; what is not frozen learns and makes up for the rest
    common: float = 10.0  # calibrate_breadth.md, median of all maps: from 10 on all 20 nets fail
    common_slow: float = 4.7  # calibrate_breadth.md, median: from there to 9 12 of 14 are slow or fail
    least_maps: int = 4  # as many as those nets had, head included
    confirmed: float = 0.1  # of the largest gradient over weight in the model, where it was measured


@rule(
    category="gradient",
    needs=Needs.WEIGHTS,
    uses=Needs.BACKWARD,
    options=Options,
    message={
        "default": "weights {gain} times larger than fan-in {fan_in} asks for change {gain} times more slowly, which "
        "the norm behind them hides ({frozen} of {layers} layers before the head are like this)",
        "common": "the median of {layers} layers has weights {gain} times larger than its fan-in asks for, which the "
        "norms between them hide: they change that many times more slowly",
    },
    explains=("vanishing-gradient", "exploding-gradient"),
)
def update_ratio(context: Context, options: Options) -> Iterator[Suspicion]:
    maps = [layer for layer in context.model.layers if layer.kind.is_map and layer.weight.trainable]
    hidden = [layer for layer in maps if Use.OUTPUT not in layer.uses]
    ratios = {layer.name: ratio for layer in maps if (ratio := _ratio(context, layer)) is not None}
    largest = max(ratios.values(), default=0.0)
    frozen = []
    for layer in hidden:
        stats = context.stats.get(layer.weight.address)
        if layer.norm_after is None or stats is None or not (gain := expected_gain(layer, stats)) >= options.loud:
            continue
        if largest == 0.0 or ratios.get(layer.name, 0.0) <= options.confirmed * largest:
            frozen.append((layer, gain))
    severity = _severity([gain for _, gain in frozen], len(hidden), options)
    common = _common(context, maps, options) if severity is not Severity.ERROR else None
    if common is not None and common.severity > severity:
        yield common
        return
    for layer, gain in frozen:
        data = {"gain": gain, "fan_in": layer.fan_in or 1, "frozen": len(frozen), "layers": len(hidden)}
        yield Suspicion(layer.weight, severity, data, redrawn(context.model, [each for each, _ in frozen]))


def _common(context: Context, maps: list[Layer], options: Options) -> Suspicion | None:
    """For all maps at once, where norms stand between them; None where they are of the usual size."""
    known = [(expected_gain(layer, s), layer) for layer in maps if (s := context.stats.get(layer.weight.address))]
    gains = sorted(gain for gain, _ in known if math.isfinite(gain))
    if len(gains) < options.least_maps or not any(layer.kind.is_norm for layer in context.model.layers):
        return None
    median = gains[(len(gains) - 1) // 2]  # the lower one of two
    loud = [layer for gain, layer in known if gain >= options.common_slow]
    if median < options.common_slow or not any(Use.OUTPUT in layer.uses for layer in loud):
        return None  # three frozen layers train behind a head that is not: calibrate_bias.md, norm, 3 all
    severity = Severity.ERROR if median >= options.common else Severity.WARNING
    data = {"gain": median, "layers": len(gains)}
    return Suspicion(context.model, severity, data, redrawn(context.model, loud), "common")


def _severity(gains: list[float], hidden: int, options: Options) -> Severity:
    if len(gains) < options.share * hidden:
        return Severity.NOTE
    if sum(gain >= options.very_loud for gain in gains) >= options.least:
        return Severity.ERROR
    return Severity.WARNING if len(gains) >= options.many else Severity.NOTE


def _ratio(context: Context, layer: Layer) -> float | None:
    """Gradient over weight, both root mean square; None where it was not measured."""
    gradient = context.signals.gradients.get(layer.weight.address)
    return gradient.rms / gradient.weight_rms if gradient is not None and gradient.weight_rms > 0 else None
