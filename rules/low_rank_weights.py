"""A weight starts with a rank far below its shape, as the product of two thin matrices has.

## Why it matters

A layer of rank r passes r numbers on, whatever its width. One such layer trains: the first steps fill in the rest.
Where layer after layer has a rank of 1 or 2, little of the input gets through, and deep plain nets do not train. A rank
this low comes from an outer product, from a matrix tiled out of a few rows, from units drawn once and scaled.

The rank is estimated, never computed: the mean squared cosine between eight of the rows (columns, of tall matrices) is
1 / rank for products of random matrices (the participation ratio). Equal rows and weights of one sign are other rules'
affair; a product that the network itself computes is a design.

## Example

    layer.weight.data = torch.outer(torch.randn(64), torch.randn(64))   # rank 1

## Fix

Draw the matrix itself: `nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")`.

## References

- Saxe, McClelland & Ganguli 2014 (arXiv:1312.6120): singular values at the start decide the speed of learning
- `benchmarks/results/calibrate_weights.md`, rank: in one layer and in all
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import Context, Kind, Layer, Needs, Role, Severity, Suspicion, Tensor, fresh, rule

from .non_finite_weights import SIGNAL_RULES


@dataclass(frozen=True)
class Options:
    share: float = 1 / 8  # of the smaller side; eight rows of independent weights tell it to within a factor of 2
    smallest: int = 16  # rows and columns; below, an eighth of them is one or two
    thin: float = 2.5  # calibrate_weights.md, rank all: 2 fails in a deep plain net and 4 does not; the estimate of 2


@rule(
    category="scale",
    needs=Needs.WEIGHTS,
    options=Options,
    message={
        "default": "a rank of about {rank}, where the shape allows {full}",
        "row": "a rank of about {rank}, where the shape allows {full}, and so have layers next to it",
    },
    explains=SIGNAL_RULES,
)
def low_rank_weights(context: Context, options: Options) -> Iterator[Suspicion]:
    ranks = {layer.name: _rank(context, layer, layer.weight, options) for layer in context.model.layers}
    for layer in context.model.layers:
        rank = ranks[layer.name]
        if not rank:
            continue
        near = (*context.model.maps_before(layer), *context.model.maps_after(layer))
        in_a_row = rank <= options.thin and any(0 < ranks[each.name] <= options.thin for each in near)
        warned = in_a_row and layer.norm_after is not Kind.BATCH_NORM  # calibrate_weights.md, bn: all ranks train
        data = {"rank": rank, "full": _full(layer.weight)}
        fix = fresh(context.model, layer.weight)
        severity = Severity.WARNING if warned else Severity.NOTE
        yield Suspicion(layer.weight, severity, data, fix, "row" if in_a_row else "default")


def _rank(context: Context, layer: Layer, tensor: Tensor, options: Options) -> float:
    """0 where it is as high as it should be, or cannot be told."""
    stats = context.stats.get(tensor.address)
    full = _full(tensor)
    if (
        stats is None
        or layer.kind.is_recurrent
        or tensor.role is not Role.WEIGHT
        or not tensor.trainable
        or tensor.computed
    ):
        return 0.0
    if tensor.view.groups > 1 or full < options.smallest or stats.constant or stats.duplicate_units or stats.zeros:
        return 0.0
    length = max(tensor.view.units, tensor.view.fan_in)
    rank = length / max(stats.orthogonality, 1.0) ** 2  # WeightStats.orthogonality: 1 for independent rows
    of_one_sign = (stats.mean**2 / stats.mean_square) ** 2 * rank  # share of the squared cosines that a mean explains
    return rank if rank <= options.share * full and of_one_sign < 0.5 else 0.0


def _full(tensor: Tensor) -> int:
    return min(tensor.view.units, tensor.view.fan_in)
