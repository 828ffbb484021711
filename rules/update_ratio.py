"""Most weights are so large that a step hardly changes them, hidden by the norms behind them.

## Why it matters

A normalisation makes the scale of the weights in front of it invisible in the signal, not in learning: weights a
hundred times too large get a gradient a hundred times too small, and a step of Adam, whose size does not depend on the
gradient, is a hundred times too small beside them. The layers stay what they were drawn as, random features.

One such layer among others is harmless, and is noted. Where half of the layers in front of the head are frozen, three
of them or more, the network learns slowly or not at all. With gradients at hand the measured ratio of gradient to
weight has to confirm it.

## Example

    nn.init.normal_(conv.weight)   # std 1 instead of sqrt(2 / fan_in), in front of a batch norm

## Fix

`nn.init.kaiming_normal_(conv.weight)` in every layer.

## References

- van Laarhoven 2017 (arXiv:1706.05350): the effective learning rate in front of a norm is lr / |w|^2
- Karpathy 2015, CS231n: the ratio of updates to weights should be about 1e-3
- `benchmarks/results/calibrate_bias.md`: nets with batch norm by the scale of their weights
"""

from __future__ import annotations

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
    confirmed: float = 0.1  # of the largest gradient over weight in the model, where it was measured


@rule(
    category="gradient",
    needs=Needs.WEIGHTS,
    uses=Needs.BACKWARD,
    options=Options,
    message="weights {gain} times larger than fan-in {fan_in} asks for change {gain} times more slowly, which the norm "
    "behind them hides ({frozen} of {layers} layers before the head are like this)",
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
    for layer, gain in frozen:
        data = {"gain": gain, "fan_in": layer.fan_in or 1, "frozen": len(frozen), "layers": len(hidden)}
        yield Suspicion(layer.weight, severity, data, redrawn(context.model, [each for each, _ in frozen]))


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
