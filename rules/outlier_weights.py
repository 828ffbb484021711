"""A few weights, or units, are far larger or smaller than the rest of their layer.

## Why it matters

A draw gives weights of one size: the largest of a billion normal ones is 6 standard deviations out. A value far beyond
that comes from bounds that do not scale (`trunc_normal_` with std 0.001 and its bounds of +-2 can give exactly 2), from
memory that was not overwritten, from an index set by hand. One that outweighs all the others of its unit makes the unit
a copy of one input, and so loud that a layer norm sees nothing else: a warning where outliers make up most of the
layer's standard deviation. Batch normalisation, and bounded
functions such as tanh, take that away: there it is a note. So is a spread of the units' scales over decades: the small
ones are wasted at first, and the network trains without them. (That is no rule of its own: both are one layer of two
sizes, and either explains the other.)

## Example

    nn.init.trunc_normal_(layer.weight, std=0.001)   # meant: a=-0.002, b=0.002

## Fix

Redraw the layer: `nn.init.kaiming_normal_(layer.weight)`, or give `trunc_normal_` bounds of 2 standard deviations.

## References

- pytorch/pytorch#155588: outliers of exactly +-2
- `benchmarks/results/calibrate_weights.md`, outlier, few and spread
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import (
    Context,
    Kind,
    Layer,
    Needs,
    Role,
    Severity,
    Suspicion,
    Tensor,
    WeightStats,
    activations,
    fresh,
    rule,
)

from .non_finite_weights import SIGNAL_RULES

FORGIVING = (Kind.BATCH_NORM, Kind.INSTANCE_NORM)
"""Norms of single units; calibrate_weights.md, bn: any outlier trains in front of them."""


@dataclass(frozen=True)
class Options:
    beyond: float = 20.0  # standard deviations: no normal draw (6 for 1e9 values), nor a Laplace one (16 for 1e7)
    swells: float = 4.0  # calibrate_weights.md, ReLU: 4.6 times the std of most (few 100, one 300) stops SGD, 1.9 not
    decades: float = 2.0  # between the 5 % and 95 % quantiles; calibrate_weights.md, spread: 4 slow a deep plain net
    fewest_inputs: int = 8  # rms of 8 normal values spread over 0.4 decades (chi distribution), of 1 over 1.5
    fewest_units: int = 16  # fewer have no 5 % quantile


@rule(
    category="scale",
    needs=Needs.WEIGHTS,
    options=Options,
    message={
        "default": "the largest weight is {peak}, {deviations} times the spread of most ({bulk}); the std is {std}",
        "units": "the scales of its units spread over {decades} decades, from {low} to {high}",
    },
    explains=SIGNAL_RULES,
)
def outlier_weights(context: Context, options: Options) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        for tensor in layer.tensors:
            if tensor.role not in (Role.WEIGHT, Role.RECURRENT_WEIGHT) or not tensor.trainable or tensor.computed:
                continue
            found = [each for part in tensor.part_addresses for each in _judge(context, layer, tensor, part, options)]
            if found:
                yield max(found, key=lambda each: each.severity)


def _judge(context: Context, layer: Layer, tensor: Tensor, part: str, options: Options) -> Iterator[Suspicion]:
    stats = context.stats.get(part)
    if stats is None or stats.nan or stats.inf or stats.bulk <= 0:
        return
    fix = fresh(context.model, tensor)
    deviations = stats.peak / stats.bulk
    low, high = _scales(stats, options)
    if (decades := math.log10(high / low)) >= options.decades:
        data = {"decades": decades, "low": low, "high": high}
        yield Suspicion(tensor, Severity.NOTE, data, fix, "units")
    elif deviations >= options.beyond and stats.peak > options.beyond * abs(stats.mean):
        data = {"peak": stats.peak, "deviations": deviations, "bulk": stats.bulk, "std": stats.std}
        forgiven = layer.norm_after in FORGIVING or activations.get(layer.activation).bounded
        swells = stats.std >= options.swells * stats.bulk
        yield Suspicion(tensor, Severity.WARNING if swells and not forgiven else Severity.NOTE, data, fix)


def _scales(stats: WeightStats, options: Options) -> tuple[float, float]:
    """Quantiles of the units' scales, equal where these cannot be told; zero units are another rule's."""
    scales = sorted(each for each in stats.unit_rms if each > 0)
    if len(scales) < options.fewest_units or stats.count < options.fewest_inputs * len(stats.unit_rms):
        return 1.0, 1.0
    edge = len(scales) // 20  # 5 %
    return scales[edge], scales[-1 - edge]
