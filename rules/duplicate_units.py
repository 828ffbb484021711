"""Units of a layer that start identical stay identical unless something tells them apart.

## Why it matters

Two units with the same incoming weights compute the same feature. If their outgoing weights differ too little they stay
copies; at best they need time to separate. Either way the layer starts narrower than it was paid for. Usual causes are
a tensor that was built by repeating a smaller one, and an initialiser that draws one row and copies it.

Only units that read the same input are compared: filters of different groups and experts of a mixture may be equal.
So may units that are looked up in a table by the same index.
Equal rows of a table get a note: each row has its own gradient.
Pixel-shuffle convolutions (ICNR) repeat their filters on purpose and are not reported; without the network, filters
that all come in equal square numbers may be such, and get a note.

## Example

    half = torch.randn(64, 128)
    layer.weight.data = torch.cat([half, half])   # 128 units, 64 different ones

## Fix

Draw every unit independently: `nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")`.

## References

- Goodfellow, Bengio & Courville 2016, Deep Learning, section 8.4
- Chen, Goodfellow & Shlens 2016 (Net2Net, arXiv:1511.05641) section 2: copied units need noise to separate
- Aitken et al. 2017 (ICNR, arXiv:1707.02937)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import Context, Kind, Layer, Needs, Role, Severity, Suspicion, Tensor, WeightStats, fresh_at, rule


@dataclass(frozen=True)
class Options:
    warn_share: float = 0.05  # a twentieth of the units wasted: more than rounding a width to a multiple of 8 costs
    stays: float = 0.5  # of those that start equal; drawn.md: what a few steps leave together, the next ones part
    significance: float = 1e-6  # one false alarm in a million tensors, if all values were drawn independently


@rule(
    category="symmetry",
    needs=Needs.WEIGHTS,
    uses=Needs.LIVENESS,
    options=Options,
    message={
        "default": "{duplicates} of {units} units start identical to another one",
        "permanent": "{duplicates} of {units} units start identical to another one, and {equal} of them stay so",
        "table": "{duplicates} of {units} rows start identical to another one; each has a gradient of its own",
    },
    overrides=("permanent-symmetry",),
)
def duplicate_units(context: Context, options: Options) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        if layer.shuffles_units:
            continue
        for tensor in layer.tensors:
            if tensor.repeats:
                continue  # the same row of a parameter, tied on purpose: no other values of it would differ
            if tensor.trainable and tensor.role in (Role.WEIGHT, Role.RECURRENT_WEIGHT, Role.TABLE):
                yield from _judge(context, layer, tensor, options)


def _judge(context: Context, layer: Layer, tensor: Tensor, options: Options) -> Iterator[Suspicion]:
    """Parts that are packed into one tensor are told of one by one, unless all of them repeat themselves."""
    stats = {address: context.stats[address] for address in tensor.part_addresses if address in context.stats}
    drawn = [part for part, each in stats.items() if not each.constant]
    some = [part for part in drawn if stats[part].duplicate_units]
    if len(some) < len(tensor.parts) and not layer.kind.is_recurrent and tensor.parts:
        for part in some:
            yield from _judge_at(context, layer, tensor, part, [stats[part]], options)
    elif len(drawn) == len(stats):
        yield from _judge_at(context, layer, tensor, tensor.address, list(stats.values()), options)


def _judge_at(
    context: Context, layer: Layer, tensor: Tensor, at: str, stats: list[WeightStats], options: Options
) -> Iterator[Suspicion]:
    duplicates = sum(s.duplicate_units for s in stats)
    chance = sum(s.chance_duplicates for s in stats)
    units = tensor.view.groups * tensor.view.units // (1 if at == tensor.address else len(tensor.parts))
    if duplicates == 0 or _poisson_tail(duplicates, chance) > options.significance:
        return
    share = duplicates / units
    data = {"duplicates": duplicates, "units": units, "share": share, "expected_by_chance": chance}
    if tensor.role is Role.TABLE:
        yield Suspicion(at, Severity.NOTE, data, message="table")
        return
    equal, fix = context.signals.still_equal.get(at, 0), fresh_at(context.model, tensor, at)
    if equal / units >= options.warn_share and equal >= options.stays * duplicates:
        yield Suspicion(at, Severity.ERROR, {**data, "equal": equal}, fix, "permanent")
        return
    harmless = share < options.warn_share or (not context.model.has_dataflow and _may_shuffle(layer, units, duplicates))
    yield Suspicion(at, Severity.NOTE if harmless else Severity.WARNING, data, fix)


def _may_shuffle(layer: Layer, units: int, duplicates: int) -> bool:
    """Each filter is there r * r times, as an upsampling by r wants it (ICNR, section 2.2)."""
    copies, rest = divmod(units, units - duplicates)
    return layer.kind is Kind.CONV and rest == 0 and math.isqrt(copies) ** 2 == copies


def _poisson_tail(count: int, mean: float) -> float:
    """Probability of ``count`` or more coincidences where ``mean`` are expected (rare, nearly independent events)."""
    if mean <= 0:
        return 0.0
    if count <= mean:
        return 1.0
    first = math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))
    return first / (1 - mean / (count + 1))  # the terms fall at least as fast as a geometric series
