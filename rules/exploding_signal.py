"""The signal grows on its way through the network until the outputs are absurdly large.

## Why it matters

Where the weights of every layer are a little too large the factors multiply: 1.5 per layer is a factor of 3000 after 20
layers. The softmax starts out certain and wrong, and the optimiser spends its steps on undoing the initialisation.
Outputs are compared with the scale of the input (or with 1, where that is larger). A loud head alone, and what all
outputs have in common, which a softmax takes away, are warnings: Adam mends them. What sums, products and exponentials
make of the last layers, as `mu + exp(log_sigma) * noise`, counts only if it is beyond all hope. Where no probe can run
outputs are predicted in plain networks, which counts one step less, unless no doubt is left.

## Example

    nn.init.normal_(layer.weight, std=0.2)   # fan_in 256: 3.2 times per layer

## Fix

`nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")` in every layer keeps the factor at 1.

## References

- He et al. 2015 (arXiv:1502.01852); Hanin & Rolnick 2018 (arXiv:1803.01719); `benchmarks/results/`: what trains
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from initlint.plugin import (
    Context,
    Layer,
    Needs,
    Severity,
    Suspicion,
    is_alone,
    is_spread,
    loudest_end,
    maps_up_to,
    measured_heads,
    predicted_heads,
    redrawn,
    rule,
    share_apart,
    ways,
    why_loud,
)


@dataclass(frozen=True)
class Options:
    warn: float = 30.0  # calibrate_scale.md: from 10 to 100 a third of the nets trains, a third slowly, a third fails
    fail: float = 100.0  # calibrate_scale.md: above, 0 of 36 nets with all layers scaled train
    deep: int = 4  # calibrate_scale.md: nets of two and three layers train at any scale with Adam
    around: int = 8  # calibrate_residual.md: as many, where shortcuts lead around them; two blocks train
    hopeless: float = 3e4  # calibrate_scale.md, logits: above 1e4 0 of 26 nets train; drawn.md: up to 2e4 3 do
    single: float = 30.0  # calibrate_breadth.md, one output: from 30 to 100 0 of 10 such nets train, with either loss
    long: int = 5  # layers, as many as those nets had at least
    spread: float = 3.0  # what is left of the ratio without the loudest layer; behind one loud layer 3 of 21 train
    doubt: float = 100.0  # calibrate_prediction.md: no rms is off by more than 24; predicted errors exceed this too


@rule(
    category="signal",
    needs=Needs.SIGNAL | Needs.WEIGHTS,
    uses=Needs.FORWARD,
    options=Options,
    message={
        "default": "outputs start at an rms of {rms}, {ratio} times the input's scale, after {depth} layers{outlook}",
        "predicted": "the weights predict outputs of an rms of {rms}, {ratio} times the input's scale, "
        "after {depth} layers{outlook}",
        "made": "outputs start at an rms of {rms}, {ratio} times the input's scale; of the layers that make them "
        "{layer} is the loudest, at {own}",
    },
    explains=(
        "non-finite-activations",
        "half-precision-range",
        "vanishing-gradient",
        "exploding-gradient",
        "saturated-activations",
        "initial-loss",
    ),
)
def exploding_signal(context: Context, options: Options) -> Iterator[Suspicion]:
    reference, origin = max(1.0, context.signals.input_rms), context.signals.origin
    if origin is not None and origin.kind in ("nan", "masked"):
        return  # no matter of scale
    loudest = 0.0
    probed = measured_heads(context.model, context.signals)
    for layer, rms in probed if context.probed else predicted_heads(context.predicted):
        loudest = max(loudest, ratio := rms / reference)
        if ratio < options.warn:
            continue
        maps = maps_up_to(context.model, layer)
        why = why_loud(context.model, context.signals, context.stats, layer, rms)
        told = {"depth": sum(each.calls for each in maps), "threshold": options.warn, "outlook": why}
        severity = _severity(context, layer, ratio * share_apart(context.signals, layer), options)
        fix, message = redrawn(context.model, maps, context.stats), "default" if context.probed else "predicted"
        yield Suspicion(layer, severity, {"rms": rms, "ratio": ratio, **told}, fix, message)
    end = loudest_end(context.model, context.signals)
    if end is not None and end[0] / reference >= options.hopeless > loudest:
        (rms, layer), own = end, context.signals.layers[end[1].name].rms
        fix = redrawn(context.model, maps_up_to(context.model, layer), context.stats)
        data = {"rms": rms, "ratio": rms / reference, "layer": layer.name, "own": own}
        yield Suspicion(layer, Severity.ERROR, data, fix, message="made")


def _severity(context: Context, layer: Layer, ratio: float, options: Options) -> Severity:
    fewest, most = ways(context.model, layer)
    single = layer.weight.view.units == 1 and fewest >= options.long and ratio >= options.single and context.probed
    spread = partial(is_spread, context.model, context.signals, layer, ratio, options.spread)
    if single and spread():
        return Severity.ERROR
    deep = fewest >= options.deep or (most >= options.around and spread(but_for=3))
    alone = context.probed and is_alone(context.model, context.signals, layer, options.spread)
    least = options.fail if deep and not alone else options.hopeless
    if ratio >= (least if context.probed else options.doubt * least):
        return Severity.ERROR
    return Severity.WARNING if ratio >= least or context.probed else Severity.NOTE
