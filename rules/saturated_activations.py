"""The units in front of a bounded non-linearity sit where it is flat, so almost no gradient comes back through it.

## Why it matters

tanh and the sigmoid are flat away from zero: at |z| = 3 tanh's slope is a hundredth of its steepest, at |z| = 6 the
sigmoid's. A layer whose inputs lie out there answers every sample with the same extreme values and hardly learns, and
neither does anything before it. Weights that are too large or a large bias put it there.

Outputs of the network are left alone (a detector's prior belongs there), and gates get a note: an open or closed gate
is often meant.

## Example

    nn.init.constant_(self.fc1.bias, 10.0)   # x = torch.sigmoid(self.fc1(x)): 0.99995 for every input

## Fix

Zero the bias, or draw the weights by `nn.init.xavier_normal_`.

## References

- Glorot & Bengio 2010, section 3: saturation of sigmoid and tanh layers
- `benchmarks/results/calibrate_scale.md`: tanh nets by their share of saturated values
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import (
    Context,
    Fill,
    Fix,
    Layer,
    LayerSignal,
    Needs,
    Reinit,
    Severity,
    Suspicion,
    Tensor,
    Use,
    activations,
    rule,
)


@dataclass(frozen=True)
class Options:
    warn: float = 0.5  # calibrate_scale.md: about where tanh nets begin to fail (6 of 9 between 0.4 and 0.5)
    fail: float = 0.98  # calibrate_scale.md: above, 0 of 8 tanh nets train
    mean_share: float = 0.5  # a bias is to blame if it alone brings the average unit half of the way to the flat part


@rule(
    category="signal",
    needs=Needs.FORWARD | Needs.WEIGHTS,
    options=Options,
    message="{share} of the values in front of {activation} lie where it is flat (outside {low} to {high})",
    explains=("vanishing-signal", "saturated-activations"),
)
def saturated_activations(context: Context, options: Options) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        flat = activations.get(layer.activation).flat
        signal = context.signal(layer)
        if flat is None or signal is None or layer.norm_after is not None or Use.OUTPUT in layer.uses:
            continue
        if not signal.saturated >= options.warn:
            continue
        severity = Severity.ERROR if signal.saturated >= options.fail and not layer.bypassed else Severity.WARNING
        if Use.PRODUCT in layer.uses and Use.LAYER not in layer.uses:
            severity = Severity.NOTE
        at, fix = _blame(context, layer, signal, flat, options)
        yield Suspicion(
            at=at,
            severity=severity,
            data={
                "share": signal.saturated,
                "activation": layer.activation,
                "low": flat[0],
                "high": flat[1],
                "rms": signal.rms,
            },
            fix=fix,
        )


def _blame(
    context: Context, layer: Layer, signal: LayerSignal, flat: tuple[float, float], options: Options
) -> tuple[Tensor, Fix]:
    """The bias where it carries the units out by itself, else the weight."""
    bias = context.stats.get(layer.bias.address) if layer.bias is not None else None
    if layer.bias is not None and bias is not None:
        distance = min(abs(flat[0]), abs(flat[1]))
        rms = math.sqrt(bias.mean_square)
        if rms > options.mean_share * distance and rms > signal.std:
            return layer.bias, Fill(layer.bias.address, 0.0)
    if layer.kind.is_norm:
        return layer.weight, Fill(layer.weight.address, 1.0)
    return layer.weight, Reinit(layer.weight.address, "xavier_normal")
