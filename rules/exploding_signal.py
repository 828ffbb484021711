"""The signal grows on its way through the network until the outputs are absurdly large.

## Why it matters

Where the weights of every layer are a little too large the factors multiply: 1.5 per layer is a factor of 3000 after 20
layers. The softmax then starts out certain and wrong, the first gradients are huge, and the optimiser spends its steps
on undoing the initialisation, or never gets over it.

Outputs are compared with the scale of the input (or with 1, where that is larger). A normalisation on the way resets
the scale, so this is seen in plain and unnormalised residual networks, and in heads.

## Example

    for p in model.parameters():
        nn.init.normal_(p, std=0.2)   # fan_in 256: 3.2 times per layer

## Fix

`nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")` in every layer keeps the factor at 1.

## References

- He et al. 2015 (arXiv:1502.01852); Hanin & Rolnick 2018 (arXiv:1803.01719)
- `benchmarks/results/calibrate_scale.md`: above 100 no net trained whose layers were all too large
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import Context, Layer, LayerSignal, Needs, Severity, Suspicion, Use, redrawn, rule


@dataclass(frozen=True)
class Options:
    warn: float = 30.0  # calibrate_scale.md: from 10 to 100 a third of the nets trains, a third slowly, a third fails
    fail: float = 100.0  # calibrate_scale.md: above, 0 of 36 nets with all layers scaled train
    deep: int = 4  # calibrate_scale.md: nets of two and three layers train at any scale with Adam
    hopeless: float = 1e4  # calibrate_scale.md, logits: above, 0 of 26 nets train at any depth


@rule(
    category="signal",
    needs=Needs.FORWARD,
    options=Options,
    message="outputs start at an rms of {rms}, {ratio} times the input's scale, after {depth} layers",
    explains=(
        "non-finite-activations",
        "half-precision-range",
        "vanishing-gradient",
        "exploding-gradient",
        "initial-loss",
    ),
)
def exploding_signal(context: Context, options: Options) -> Iterator[Suspicion]:
    reference, origin = max(1.0, context.signals.input_rms), context.signals.origin
    for layer in context.model.layers:
        signal = context.signal(layer)
        if signal is None or Use.OUTPUT not in layer.uses or not layer.kind.is_map:
            continue
        if origin is not None and origin.kind == "nan":  # no matter of scale
            continue
        ratio = _loudness(signal) / reference
        if ratio < options.warn:
            continue
        maps = [*_upstream_maps(context, layer), layer]
        depth = len(maps)
        fails = ratio >= options.hopeless or (ratio >= options.fail and depth >= options.deep)
        yield Suspicion(
            at=layer,
            severity=Severity.ERROR if fails else Severity.WARNING,
            data={"rms": _loudness(signal), "ratio": ratio, "depth": depth, "threshold": options.warn},
            fix=redrawn(context.model, maps),
        )


def _loudness(signal: LayerSignal) -> float:
    return signal.rms if math.isfinite(signal.rms) else math.inf


def _upstream_maps(context: Context, layer: Layer) -> list[Layer]:
    return [
        each for each in context.model.layers if each.kind.is_map and context.model.is_upstream(each.name, layer.name)
    ]
