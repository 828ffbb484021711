"""Units of a layer start identical, and training keeps them identical.

## Why it matters

Two units with equal incoming weights separate if what they are used for differs: their gradients then differ too. If
their outgoing weights are equal as well, both get the same gradient at every step, and the layer is as wide as the
number of its different units. initlint takes a few scaled gradient steps and looks which units are still equal, up to
rounding. Units that are get a few steps more for all outputs at the top level, as a loss may read boxes beside logits.

Where a more telling rule speaks of the same tensor (constant or duplicated weights), that rule carries the verdict as
its severity and this one stays silent.

## Example

    nn.init.zeros_(self.fc1.weight)          # tanh(self.fc1(x)): each unit gets its gradient through fc2
    nn.init.constant_(self.fc2.weight, 0.1)  # and fc2 treats all units alike

## Fix

Draw one of the two layers at random: `nn.init.xavier_normal_(self.fc2.weight)`.

## References

- Goodfellow, Bengio & Courville 2016, Deep Learning, section 8.4: initial parameters need to break symmetry
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import Context, Layer, Needs, Severity, Suspicion, Tensor, fresh_at, rule


@dataclass(frozen=True)
class Options:
    share: float = 0.05  # of the units, as in duplicate-units; trainability.md, 99 % zeros: fewer separate later
    zeros: float = 0.5  # of units that all start as zeros: if most part, it is the data that part them


@rule(
    category="symmetry",
    needs=Needs.LIVENESS,
    uses=Needs.WEIGHTS,
    options=Options,
    message="{equal} of {units} units still equal another one after {steps} steps, so they will never differ",
)
def permanent_symmetry(context: Context, options: Options) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        for tensor in (layer.weight, layer.recurrent):
            if tensor is not None:
                for address in _places(context, layer, tensor):
                    yield from _judge(context, tensor, address, options)


def _judge(context: Context, tensor: Tensor, address: str, options: Options) -> Iterator[Suspicion]:
    equal, units = context.signals.still_equal.get(address, 0), tensor.view.groups * tensor.view.units
    if address != tensor.address:
        units //= len(tensor.parts)
    stats = context.stats.get(tensor.address)
    if equal > 0 and equal >= (options.zeros if stats is not None and stats.all_zero else options.share) * units:
        data = {"equal": equal, "units": units, "steps": context.signals.steps}
        yield Suspicion(address, Severity.ERROR, data, fresh_at(context.model, tensor, address), proven=True)


def _places(context: Context, layer: Layer, tensor: Tensor) -> tuple[str, ...]:
    """The packed parts that began with equal units, or the whole of a tensor where all of them did."""
    parts = tuple(part for part in tensor.part_addresses if part in context.signals.still_equal)
    return parts if 0 < len(parts) < len(tensor.parts) and not layer.kind.is_recurrent else (tensor.address,)
