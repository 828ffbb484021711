"""A layer's width is no multiple of eight, which leaves parts of a matrix unit idle.

## Why it matters

Tensor cores multiply tiles. In half precision, a width that is no multiple of 8 is padded up to one, or falls back to a
slower kernel. It is a convention of this house rather than a fault, hence a note. What feeds no other layer is left
alone: the number of classes is given by the task.

## Example

    nn.Linear(64, 100)

## Fix

`nn.Linear(64, 104)`, or 96.

## References

- NVIDIA, Deep Learning Performance Guide, "Linear/Fully-Connected Layers": multiples of 8 for 16-bit types.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import Advice, Context, Severity, Suspicion, rule


@dataclass(frozen=True)
class Options:
    multiple: int = 8  # 16 bytes of float16, the width of a load into a matrix unit


@rule(category="house", options=Options, message="{units} units are no multiple of {multiple}; {wider} would be")
def odd_width(context: Context, options: Options) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        units = layer.weight.shape[0]
        if not layer.kind.is_map or not layer.consumers or units % options.multiple == 0:
            continue
        wider = units + -units % options.multiple
        data = {"units": units, "multiple": options.multiple, "wider": wider}
        yield Suspicion(layer.weight, Severity.NOTE, data, Advice(layer.weight.address, f"# make it {wider} wide"))
