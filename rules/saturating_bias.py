"""Biases push sigmoid and tanh units to where they are flat.

## Why it matters

A sigmoid whose input lies around 10 gives 0.99995 whatever the sample, and passes a ten-thousandth of the gradient
back; a hard sigmoid or a clipped tanh passes none. A layer of such units learns nothing and cuts off everything before
it, while its weights look healthy.

A unit counts if its bias lies beyond the edge of the flat part by two standard deviations of what its weights can
contribute (and, where the probe ran, nearly all of its values did lie there). Gates of every kind, LSTMs, and outputs
have biases on purpose and are not looked at. What large weights do is said by saturated-activations.

## Example

    nn.init.constant_(self.fc1.bias, 10.0)   # x = torch.sigmoid(self.fc1(x))

## Fix

`nn.init.zeros_(self.fc1.bias)`.

## References

- Glorot & Bengio 2010, section 3: a saturated top layer cuts a sigmoid network off
- `benchmarks/results/calibrate_bias.md`: tanh and sigmoid nets by the size of one bias
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import (
    Context,
    Fill,
    Layer,
    LayerSignal,
    Needs,
    Severity,
    Suspicion,
    Use,
    WeightStats,
    activations,
    rule,
)

from .non_finite_weights import SIGNAL_RULES


@dataclass(frozen=True)
class Options:
    deviations: float = 2.0  # 97.7 % of a unit's values are flat (normal tail)
    unit_share: float = 0.95  # of a unit's values the probe has to see there: the same tail, and a small batch
    warn_share: float = 0.8  # calibrate_bias.md, drawn: two thirds flat still trains, 0.9 costs SGD
    note_share: float = 0.1  # of the units; as in dead-relu-bias
    fail: float = 0.98  # of all values; as in saturated-activations: above, 0 of 8 tanh nets train


@rule(
    category="bias",
    needs=Needs.WEIGHTS,
    uses=Needs.FORWARD,
    options=Options,
    message="{flat} of {units} {activation} units are held where they are flat (outside {low} to {high}) by their bias",
    explains=SIGNAL_RULES,
    overrides=("saturated-activations",),
)
def saturating_bias(context: Context, options: Options) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        edges = layer.flat
        bias = context.stats.get(layer.bias.address) if layer.bias is not None else None
        weight = context.stats.get(layer.weight.address)
        if edges is None or layer.bias is None or bias is None or weight is None or _is_excused(layer):
            continue
        if not edges[0] < 0.0 < edges[1]:
            continue  # a constant holds them there: tanh(x - 10)
        signal, units = context.signal(layer), len(bias.values)
        flat = _flat_units(layer, bias, weight, signal, edges, options)
        if not units or flat / units < options.note_share:
            continue
        severity = Severity.WARNING if flat / units >= options.warn_share else Severity.NOTE
        if signal is not None and signal.saturated >= options.fail and not layer.bypassed:
            severity = Severity.ERROR
        data = {"flat": flat, "units": units, "activation": layer.activation, "low": edges[0], "high": edges[1]}
        yield Suspicion(layer.bias, severity, {**data, "bias": bias.mean}, Fill(layer.bias.address, 0.0))


def _is_excused(layer: Layer) -> bool:
    return bool(layer.uses & {Use.OUTPUT, Use.PRODUCT}) or layer.norm_after is not None or layer.kind.is_recurrent


def _flat_units(
    layer: Layer,
    bias: WeightStats,
    weight: WeightStats,
    signal: LayerSignal | None,
    edges: tuple[float, float],
    options: Options,
) -> int:
    units = len(bias.values)
    seen = signal.unit_saturated if signal is not None and len(signal.unit_saturated) == units else [1.0] * units
    spreads = signal.unit_std if signal is not None and len(signal.unit_std) == units else _spreads(layer, weight)
    if len(spreads) != units:
        return 0
    return sum(
        share >= options.unit_share and (b < edges[0] - options.deviations * s or b > edges[1] + options.deviations * s)
        for b, s, share in zip(bias.values, spreads, seen, strict=True)
    )


def _spreads(layer: Layer, weight: WeightStats) -> list[float]:
    """Standard deviation per unit for an input of unit scale: |w_u| sqrt(E[phi^2]), or a norm's |gain|."""
    if layer.kind.is_norm:
        return [abs(gain) for gain in weight.values]
    power = activations.get(layer.input_activation).standard_moments[1]
    scale = math.sqrt(max(1, layer.fan_in or 1) * power)
    return [abs(r) * scale for r in (weight.unit_rms or weight.values)]
