"""A tensor's values look learned, not drawn: rules about scale stay silent there.

## Why it matters

initlint judges initialisation. A pre-trained backbone has variances that no scheme would draw, and that is fine. This
note says which tensors were taken for trained, so that silence about them is not mistaken for approval. Rules about
NaN, zero, constant and duplicate weights still speak: a pre-trained backbone with a garbage head is a classic fault.

Independent draws have units of equal scale up to sampling error and tails no heavier than a normal distribution's.
Training changes both; a tensor is taken for trained if both differ far beyond chance and no scheme is recognised.

## Example

    model = resnet50(weights="DEFAULT")   # backbone trained, head redrawn

## Fix

None needed. If the tensor should be fresh, initialise it.

## References

- Martin & Mahoney 2021 (arXiv:1810.01075): heavy tails of trained weights
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import Context, Needs, Role, Severity, Suspicion, Tensor, WeightStats, rule


@dataclass(frozen=True)
class Options:
    deviations: float = 8.0  # normal tail 1e-15, so never by chance; trained layers of 1000 weights pass it by far
    spread: float = 2.0  # units' scales vary at least twice as much as independent draws' do
    smallest: int = 1000  # values; below, trained and drawn cannot be told apart
    fewest_units: int = 8  # to estimate how much units differ
    thin: float = 2.5  # estimated rank; as in low-rank-weights: units drawn once and scaled differ as widely
    zero_share: float = 0.05  # a twentieth, as for duplicates; trained tables have a zero row for padding


@rule(
    category="provenance",
    needs=Needs.WEIGHTS,
    options=Options,
    message="values look trained (unit scales vary {spread} times as much as by chance, excess kurtosis {kurtosis})",
    overrides=("variance-mismatch", "fan-mismatch", "outlier-weights", "low-rank-weights", "recurrent-radius"),
    explains=(
        "exploding-signal",
        "vanishing-signal",
        "saturated-activations",
        "dead-units",
        "vanishing-gradient",
        "exploding-gradient",
    ),
)
def looks_trained(context: Context, options: Options) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        tensor = layer.weight
        stats = context.stats.get(tensor.address)
        if stats is None or tensor.role not in (Role.WEIGHT, Role.TABLE) or layer.kind.is_recurrent:
            continue
        units = tensor.view.groups * tensor.view.units
        if stats.count >= options.smallest and units >= options.fewest_units and _learned(tensor, stats, options):
            yield Suspicion(
                at=tensor,
                severity=Severity.NOTE,
                data={"spread": stats.unit_spread, "kurtosis": stats.kurtosis, "scheme": stats.scheme},
            )


def _units(tensor: Tensor) -> int:
    return tensor.view.groups * tensor.view.units


def _learned(tensor: Tensor, stats: WeightStats, options: Options) -> bool:
    units = _units(tensor)
    if stats.constant or stats.nan or stats.inf or stats.duplicate_units:
        return False
    if tensor.view.fan_in > 1 and max(units, tensor.view.fan_in) <= options.thin * max(stats.orthogonality, 1.0) ** 2:
        return False  # an outer product of draws has units of all sizes
    if stats.zero_units > options.zero_share * units or stats.zeros > options.zero_share * stats.count:
        return False  # it is the zeros that make the units' scales differ, as those of a mask do
    spread_error = math.sqrt(2.0 / units)  # of a sample variance over ``units`` normal values, relative
    kurtosis_error = math.sqrt(24.0 / stats.count)  # of the excess kurtosis of a normal sample
    uneven = stats.unit_spread > max(options.spread, 1.0 + options.deviations * spread_error)
    return uneven and stats.kurtosis > options.deviations * kurtosis_error
