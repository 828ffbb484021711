"""The given inputs are far from order one, and no normalisation stands between them and the first weights.

## Why it matters

Initialisation schemes count on inputs of order one. Fed with pixels from 0 to 255, the first layer's pre-activations
and gradients are a hundred times too large: tanh and sigmoid start flat, ReLU nets start with a loss of hundreds, SGD
diverges at every rate that suits the other layers, and Adam spends its steps on undoing it. What all pixels have in
common is the worst of it: at a mean like theirs most kinds of nets no longer learn at all.

A normalisation in front of, or right behind, the first layer takes the scale away, and such nets train at any. Values
that are looked up in a table, and inputs that initlint has drawn itself, are no matter of scale.

## Example

    batch = torch.from_numpy(images).float()     # 0 to 255; images / 255 would do, standardised is better

## Fix

Standardise the inputs, `(x - mean) / std` with the training set's values, or begin the model with a `BatchNorm`.

## References

- LeCun et al. 1998, Efficient BackProp, section 4.3: inputs of mean 0 and equal variance
- `benchmarks/results/calibrate_inputs.md`: 17 nets by the scale of their inputs
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import Context, Layer, Needs, Severity, Source, Suspicion, rule


@dataclass(frozen=True)
class Options:
    large: float = 50.0  # calibrate_inputs.md: of 105 nets without a norm in front 103 fail with SGD, 65 with Adam


@rule(
    category="signal",
    needs=Needs.FORWARD | Needs.WEIGHTS,
    options=Options,
    message="the given inputs have an rms of {rms} and reach this layer as they are; standardise them",
)
def input_scale(context: Context, options: Options) -> Iterator[Suspicion]:
    rms = context.signals.input_rms
    if not options.large <= rms < math.inf:
        return
    first = next((each for each in context.model.layers if _reads_inputs(context, each, options.large)), None)
    if first is not None:
        yield Suspicion(first, Severity.WARNING, {"rms": rms, "threshold": options.large}, proven=True)


def _reads_inputs(context: Context, layer: Layer, large: float) -> bool:
    """Whether inputs of that rms come in with nothing in between, and no norm behind takes their scale away.

    For what independent weights make of them, rms(z) = rms(x) sqrt(fan_in) rms(w): of several inputs one may be small.
    """
    plain = layer.input_source is Source.INPUT and layer.input_activation == "identity" and layer.input_known
    if not plain or layer.input_values or layer.producers or layer.norm_after is not None:
        return False
    if layer.kind.is_recurrent:
        return True
    signal, stats = context.signal(layer), context.stats.get(layer.weight.address)
    if not layer.kind.is_map or signal is None or stats is None or not stats.mean_square:
        return False
    return signal.rms >= large * math.sqrt((layer.fan_in or 1) * stats.mean_square)
