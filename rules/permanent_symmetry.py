"""Units of a layer, or rows of tokens, start identical, and training keeps them identical.

## Why it matters

Two units with equal incoming weights separate if what they are used for differs: their gradients then differ too. If
their outgoing weights are equal as well, both get the same gradient at every step, and the layer is as wide as the
number of its different units. initlint takes a few scaled gradient steps and looks which units are still equal, up to
rounding. Units that are get a few steps more for all outputs at the top level, as a loss may read boxes beside logits.

The same goes for rows outside of layers: register tokens, soft prompts, latents, queries, slots. Attention treats its
entries alike, so rows that start equal, without a position of their own, are worth one for good. A table of positions
may start at zero: the data at the positions tell its rows apart. Where only the noise of training does, such as
dropout's, it is a warning.

Where a more telling rule speaks of the same tensor (constant or duplicated weights), that rule carries the verdict as
its severity and this one stays silent. Gates that start at zero and stay equal are one gate for what they multiply,
which differs all the same: a note.

## Example

    nn.init.zeros_(self.fc1.weight)          # tanh(self.fc1(x)): each unit gets its gradient through fc2
    nn.init.constant_(self.fc2.weight, 0.1)  # and fc2 treats all units alike

    self.registers = nn.Parameter(torch.zeros(1, 4, dim))   # joined with the patches: four times the same token

## Fix

Draw one of the two layers at random: `nn.init.xavier_normal_(self.fc2.weight)`. Draw tokens at random:
`nn.init.normal_(self.registers, std=0.02)`.

## References

- Goodfellow, Bengio & Courville 2016, Deep Learning, section 8.4: initial parameters need to break symmetry
- Darcet et al. 2024, Vision Transformers Need Registers (arXiv:2309.16588): registers attend to different things
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import (
    Alike,
    Context,
    Layer,
    Needs,
    Reinit,
    Severity,
    Suspicion,
    Tensor,
    Use,
    fresh_at,
    rule,
    uses_at_the_end,
)

TABLE_STD = 0.02
"""Radford et al. 2018 (GPT), section 4.1: embeddings, and every other weight, from N(0, 0.02^2)."""


@dataclass(frozen=True)
class Options:
    share: float = 0.05  # of the units, as in duplicate-units; trainability.md, 99 % zeros: fewer separate later
    zeros: float = 0.5  # of units that all start as zeros: if most part, it is the data that part them
    empty: float = 0.8  # of the zero units among others; drawn.md: up to half are together while a ReLU holds them shut


@rule(
    category="symmetry",
    needs=Needs.LIVENESS,
    uses=Needs.WEIGHTS,
    options=Options,
    message={
        "default": "{equal} of {units} units still equal another one after {steps} steps, so they will never differ",
        "gates": "{equal} of {units} gates still equal another one after {steps} steps: these stay one gate",
        "rows": "its {rows} rows are worth {worth}: {equal} start equal to another one and get equal gradients "
        "at every step, so they will never differ",
        "noise": "its {rows} rows start out worth {worth}: {equal} equal another one, and nothing but the noise of "
        "training (dropout) may tell them apart",
    },
)
def permanent_symmetry(context: Context, options: Options) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        for tensor in (layer.weight, layer.recurrent):
            if tensor is not None:
                for address in _places(context, layer, tensor):
                    yield from _judge(context, layer, tensor, address, options)
    for alike in context.alike.values():
        yield _judge_rows(context, alike)


def _judge(context: Context, layer: Layer, tensor: Tensor, address: str, options: Options) -> Iterator[Suspicion]:
    equal, units = context.signals.still_equal.get(address, 0), tensor.view.groups * tensor.view.units
    if address != tensor.address:
        units //= len(tensor.parts)
    stats = context.stats.get(tensor.address)
    zero = stats is not None and stats.all_zero
    empty = stats.zero_units if stats is not None and stats.zero_units > stats.duplicate_units else 0
    if equal > 0 and equal >= max(options.share * units, (options.zeros if zero else options.empty) * empty):
        data = {"equal": equal, "units": units, "steps": context.signals.steps}
        if zero and Use.PRODUCT in uses_at_the_end(context.model, layer, context.stats):
            yield Suspicion(address, Severity.NOTE, data, message="gates", proven=True)
        else:
            yield Suspicion(address, Severity.ERROR, data, fresh_at(context.model, tensor, address), proven=True)


def _judge_rows(context: Context, alike: Alike) -> Suspicion:
    data = {"rows": alike.count, "equal": alike.together, "worth": alike.count - alike.together, "axis": alike.axis}
    stats = context.stats.get(alike.tensor)
    size = 0.0 if stats is None else math.sqrt(stats.mean_square)
    fix = Reinit(alike.tensor, "normal", size or TABLE_STD)  # factors keep theirs
    severity, message = (Severity.WARNING, "noise") if alike.by_noise else (Severity.ERROR, "rows")
    return Suspicion(alike.tensor, severity, data, fix, message, proven=not alike.by_noise)


def _places(context: Context, layer: Layer, tensor: Tensor) -> tuple[str, ...]:
    """The packed parts that began with equal units, or the whole of a tensor where all of them did."""
    parts = tuple(part for part in tensor.part_addresses if part in context.signals.still_equal)
    return parts if 0 < len(parts) < len(tensor.parts) and not layer.kind.is_recurrent else (tensor.address,)
