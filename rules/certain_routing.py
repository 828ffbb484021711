"""A bias decides alone which branch a softmax inside the network chooses, whatever the input.

## Why it matters

A router gives every input to the experts with the largest probability. Where one bias lies far above the others, by
more than the inputs can move the logits, the same expert gets everything. The others are trained by nothing: not
chosen, they get no gradient, and the softmax passes as little of it to the logits that would have to change. The loss
hardly shows it, as one expert learns what it can.

Counted are the units that get less than a thousandth even where input and bias differ by two standard deviations in
their favour. Class priors in front of the output are no fault, nor is one branch that starts shut beside open ones.

## Example

    self.router.bias.data[0] = 30.0      # or a bias of old logits loaded in the wrong place

## Fix

`nn.init.zeros_(self.router.bias)`; balance experts by a loss or by noise instead.

## References

- Shazeer et al. 2017 (arXiv:1701.06538), section 4: experts that are chosen once are chosen ever more often
- `benchmarks/results/calibrate_gates.md`: what trains behind a gate of which openness
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import Context, Fill, Layer, Needs, Severity, Suspicion, Use, rule


@dataclass(frozen=True)
class Options:
    warn: float = 1e-3  # as in shut-gates (calibrate_gates.md): below, SGD fails and Adam is slow
    final: float = 1e-12  # as in shut-gates: Adam's steps are rounded away, so that nothing opens it again
    deviations: float = 2.0  # 97.7 % of the inputs leave a unit at least so far behind (normal tail)
    units: float = 0.5  # half of the branches; fewer may be shut on purpose
    certain: float = 0.98  # of the rows: as saturated-activations has it for a layer that is flat throughout


@rule(
    category="bias",
    needs=Needs.WEIGHTS | Needs.FORWARD,
    options=Options,
    message="{shut} of {units} branches get {openness} or less of any input: this bias (up to {bias}) alone decides "
    "what the softmax at {place} chooses",
    explains=("vanishing-gradient", "stuck-parameters", "collapsed-inputs"),
)
def certain_routing(context: Context, options: Options) -> Iterator[Suspicion]:
    for place, softmax in context.signals.softmaxes.items():
        if softmax.attention or softmax.at_output or len(softmax.layers) != 1 or softmax.certain < options.certain:
            continue
        layer = context.model.layer(softmax.layers[0])
        signal = context.signal(layer)
        units = len(signal.unit_mean) if signal is not None else 0
        if layer.bias is None or signal is None or Use.OUTPUT in layer.uses or softmax.length != units:
            continue
        opened = _opened(context, layer, options.deviations)
        shut = [each for each in opened if each < options.warn]
        if len(shut) < options.units * units or not _by_its_bias(context, layer, options):
            continue
        severity = Severity.ERROR if max(shut) < options.final else Severity.WARNING
        bias = context.stats[layer.bias.address].max
        data = {"shut": len(shut), "units": units, "openness": max(shut), "bias": bias, "threshold": options.warn}
        yield Suspicion(layer.bias, severity, {**data, "place": place}, Fill(layer.bias.address, 0.0))


def _opened(context: Context, layer: Layer, deviations: float) -> list[float]:
    """What each unit gets of the softmax at best, beside the largest one at its worst."""
    signal = context.signals.layers[layer.name]
    units = list(zip(signal.unit_mean, signal.unit_std, strict=True))
    top = max(mean - deviations * std for mean, std in units)
    return [math.exp(min(0.0, mean + deviations * std - top)) for mean, std in units]


def _by_its_bias(context: Context, layer: Layer, options: Options) -> bool:
    """Without the bias no unit would be as far ahead of the others."""
    assert layer.bias is not None
    signal, bias = context.signals.layers[layer.name], context.stats.get(layer.bias.address)
    if bias is None or len(bias.values) != len(signal.unit_mean):
        return False
    left = [mean - b for mean, b in zip(signal.unit_mean, bias.values, strict=True)]
    return max(left) - min(left) < -math.log(options.warn)
