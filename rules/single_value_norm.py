"""A normalisation over single values: each loses its own mean, and nothing of it is left.

## Why it matters

(x - mean) / std of one number is 0, whatever the number. What such a norm gives is its shift alone: the outputs do not
depend on what stands before it, no gradient but rounding comes back through it, and what has no other way to the
outputs never learns. The loss still falls a little, by what is behind it.

It happens to a layer norm over an axis of one feature, for which nothing but another shape helps, and to group and
instance norms whose groups hold one value at this input size: one channel per group on a pooled 1 x 1 map. PyTorch
refuses the latter in training for instance norms, and says nothing for group norms.

## Example

    self.head = nn.Sequential(nn.Linear(64, 1), nn.LayerNorm(1))     # is its bias, for every input

## Fix

Normalise before the values become one, or leave the norm out.

## References

- Ba et al. 2016 (arXiv:1607.06450), equation 3: statistics over all units of a layer
- Wu & He 2018 (arXiv:1803.08494), figure 2: a group norm counts channels of a group and places
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import Context, Kind, Layer, Needs, Severity, Suspicion, rule


@dataclass(frozen=True)
class Options:
    left: float = 1e-3  # of the gain; rounding of one value, times 1/sqrt(epsilon), leaves 3e-5 in float32
    spread: float = 1e-2  # three times the root of the usual epsilon of 1e-5, below which any norm gives little


@rule(
    category="norm",
    needs=Needs.FORWARD | Needs.WEIGHTS,
    options=Options,
    message={
        "default": "it normalises single values, each of which becomes its shift, whatever goes in: nothing before it "
        "learns through it",
        "here": "at this input size it normalises single values, each of which becomes its shift, whatever goes in: "
        "nothing before it learns through it",
    },
    explains=(
        "constant-outputs",
        "stuck-parameters",
        "unused-parameters",
        "vanishing-gradient",
        "vanishing-signal",
        "collapsed-inputs",
    ),
)
def single_value_norm(context: Context, options: Options) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        stats, signal = context.stats.get(layer.weight.address), context.signal(layer)
        if layer.kind not in _CENTRING or stats is None or signal is None or signal.samples < 2:
            continue
        gain = math.sqrt(stats.mean_square)
        silent = math.isfinite(signal.std) and signal.std <= options.left * gain
        silent = silent and _is_its_shift(context, layer, options.left * gain)
        if not (silent and gain and any(_varies(context, each, options) for each in context.model.producers(layer))):
            continue
        if layer.kind is Kind.LAYER_NORM and layer.weight.size == 1:
            yield Suspicion(layer, Severity.ERROR, {"std": signal.std}, proven=True)
        elif any(_units_differ(context, each, options.left) for each in context.model.producers(layer)):
            yield Suspicion(layer, Severity.WARNING, {"std": signal.std}, message="here", proven=True)


_CENTRING = frozenset({Kind.LAYER_NORM, Kind.GROUP_NORM, Kind.INSTANCE_NORM})


def _is_its_shift(context: Context, layer: Layer, left: float) -> bool:
    """Whether nothing but the shift comes out: of many values, also if they are alike for all inputs, the norm makes
    more."""
    signal, bias = context.signal(layer), layer.bias and context.stats.get(layer.bias.address)
    shift = bias.mean_square if bias else 0.0
    return signal is not None and signal.rms**2 <= shift * (1.0 + left) + left**2


def _varies(context: Context, layer: Layer, options: Options) -> bool:
    """It gives different inputs different values, which a ReLU in between does not cut off."""
    signal = context.signal(layer)
    return signal is not None and signal.std >= options.spread and max(signal.unit_max) > 0.0


def _units_differ(context: Context, layer: Layer, left: float) -> bool:
    """Equal units would leave nothing of a norm over many either."""
    signal = context.signal(layer)
    return signal is not None and max(signal.unit_std) - min(signal.unit_std) > left * max(signal.unit_std)
