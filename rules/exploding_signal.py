"""The signal grows on its way through the network until the outputs are absurdly large.

## Why it matters

Where the weights of every layer are a little too large the factors multiply: 1.5 per layer is a factor of 3000 after 20
layers. The softmax starts out certain and wrong, and the optimiser spends its steps on undoing the initialisation.

Outputs are compared with the scale of the input (or with 1, where that is larger). A normalisation on the way resets
the scale, so this is seen in plain and unnormalised residual networks, and in heads. Where no probe can run, outputs of
plain networks are predicted from the weights; that counts one step less, unless no doubt is left.

## Example

    nn.init.normal_(layer.weight, std=0.2)   # fan_in 256: 3.2 times per layer

## Fix

`nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")` in every layer keeps the factor at 1.

## References

- He et al. 2015 (arXiv:1502.01852); Hanin & Rolnick 2018 (arXiv:1803.01719)
- `benchmarks/results/`: `calibrate_scale.md`, `calibrate_residual.md` (what trains), `calibrate_prediction.md`
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import (
    Context,
    Layer,
    Needs,
    Severity,
    Suspicion,
    Use,
    maps_up_to,
    outlook,
    plain_paths,
    redrawn,
    rule,
    ways,
)


@dataclass(frozen=True)
class Options:
    warn: float = 30.0  # calibrate_scale.md: from 10 to 100 a third of the nets trains, a third slowly, a third fails
    fail: float = 100.0  # calibrate_scale.md: above, 0 of 36 nets with all layers scaled train
    deep: int = 4  # calibrate_scale.md: nets of two and three layers train at any scale with Adam
    around: int = 8  # calibrate_residual.md: as many, where shortcuts lead around them; two blocks train
    hopeless: float = 1e4  # calibrate_scale.md, logits: above, 0 of 26 nets train at any depth
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
    },
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
    for layer, rms in () if origin is not None and origin.kind == "nan" else _outputs(context):  # no matter of scale
        if (ratio := rms / reference) < options.warn:
            continue
        maps = maps_up_to(context.model, layer)
        yield Suspicion(
            at=layer,
            severity=_severity(context, layer, ratio, options),
            data={"rms": rms, "ratio": ratio, "depth": len(maps), "threshold": options.warn}
            | {"outlook": _outlook(context, layer, rms)},
            fix=redrawn(context.model, maps, context.stats),
            message="default" if context.probed else "predicted",
        )


def _outputs(context: Context) -> Iterator[tuple[Layer, float]]:
    """Maps that outputs leave through, and their root mean square as measured, or else as predicted."""
    if not context.probed:
        for stretch in context.predicted:
            last = stretch.path.layers[min(len(stretch.fields), len(stretch.path)) - 1]
            if Use.OUTPUT in last.uses or not stretch.fields[-1].is_finite:
                yield last, stretch.fields[-1].rms
        return
    for layer in context.model.layers:
        signal = context.signal(layer)
        if signal is not None and Use.OUTPUT in layer.uses and layer.kind.is_map:
            yield layer, signal.rms if math.isfinite(signal.rms) else math.inf


def _severity(context: Context, layer: Layer, ratio: float, options: Options) -> Severity:
    fewest, most = ways(context.model, layer)
    least = options.fail if fewest >= options.deep or most >= options.around else options.hopeless
    if ratio >= (least if context.probed else options.doubt * least):
        return Severity.ERROR
    return Severity.WARNING if ratio >= least or context.probed else Severity.NOTE


def _outlook(context: Context, layer: Layer, rms: float) -> str:
    """Why, where all of the signal passes several layers in a row before it; else nothing."""
    for path in plain_paths(context.model, context.signals):
        if path.layers[-1] is layer and len(path) > 1 and path.entry < rms < math.inf:
            growth = float((rms / path.entry) ** (1 / len(path)))
            return f": {outlook(context.model, path, context.stats, growth).growing()}"
    return ""
