"""Weights or activations that half precision cannot hold.

## Why it matters

float16 ends at 65504 and knows nothing below 6e-8. An activation beyond the end is infinite, and NaN one layer later.
In a model stored in float16 that is an error; a float32 model breaks as soon as somebody trains it in mixed precision
(bfloat16 has the range of float32 and is safe). Weights beyond the range get a note: converted, they become infinite
or zero. The first layer that leaves the range is named, not all that follow.

## Example

    nn.init.normal_(layer.weight, std=100.0)   # 4096 inputs of size 20: activations around 128,000

## Fix

Initialise the layers before it so that the signal keeps its scale: `nn.init.kaiming_normal_(layer.weight)`.

## References

- IEEE 754-2019, binary16: largest value 65504, smallest 2^-24
- Micikevicius et al. 2018 (arXiv:1710.03740), Mixed Precision Training
- open-mmlab/mmdetection#5181: overflow in the first steps of mixed precision
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import Context, Needs, Role, Severity, Suspicion, fresh, rule


@dataclass(frozen=True)
class Options:
    largest: float = 65504.0  # IEEE 754 binary16, the largest finite value
    smallest: float = 2.0**-25  # IEEE 754 binary16: half of the smallest value above zero rounds to zero


@rule(
    category="numerics",
    needs=Needs.WEIGHTS,
    uses=Needs.FORWARD,
    options=Options,
    message={
        "default": "activations reach {peak}, beyond {limit}, where float16 ends (the weights are {dtype})",
        "large": "the largest weight is {peak}, beyond {limit}, where float16 ends",
        "small": "the largest weight is {peak}: in float16 all of them are zero (below {limit})",
    },
    explains=("non-finite-activations",),
)
def half_precision_range(context: Context, options: Options) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        signal = context.signal(layer)
        if signal is not None and options.largest < signal.absmax < math.inf:
            half = layer.weight.dtype == "float16"
            if context.signals.origin is not None and not half:
                break  # not even float32 holds what comes of it
            data = {"peak": signal.absmax, "limit": options.largest, "dtype": layer.weight.dtype}
            fix = fresh(context.model, layer.weight) if layer.kind.is_map else None
            yield Suspicion(layer, Severity.ERROR if half else Severity.WARNING, data, fix, proven=half)
            break
    for tensor in context.model.tensors:
        stats = context.stats.get(tensor.address)
        if stats is None or tensor.role is Role.OTHER or not tensor.trainable or tensor.dtype != "float32":
            continue
        if stats.peak > options.largest:
            yield Suspicion(tensor, Severity.NOTE, {"peak": stats.peak, "limit": options.largest}, message="large")
        elif 0 < stats.peak < options.smallest:
            yield Suspicion(tensor, Severity.NOTE, {"peak": stats.peak, "limit": options.smallest}, message="small")
