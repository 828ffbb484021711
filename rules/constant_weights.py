"""All weights of a layer are one number, so all its units compute the same thing.

## Why it matters

Units that read the same inputs with the same weights give the same outputs. Where the next layer's weights are constant
as well they also get the same gradient, and stay copies for ever: the layer is as wide as one unit. A single constant
layer between random ones does train, as these tell its units apart; it wastes the first steps. So do weights next to
zero beside a shortcut, and two layers whose biases count beside what units share.

Biases and gains of norms are never reported, nor is a single unit. A linear model may start at any constant (a note).

## Example

    for p in model.parameters():
        nn.init.constant_(p, 0.01)

## Fix

Draw the weights at random: `nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")`.

## References

- Goodfellow, Bengio & Courville 2016, Deep Learning, section 8.4: initial parameters need to break symmetry
- `benchmarks/first_light.py`: a constant in one layer, planted in every healthy model
"""

from __future__ import annotations

from collections.abc import Iterator

from initlint.plugin import (
    Context,
    Layer,
    Needs,
    Role,
    Severity,
    Suspicion,
    Tensor,
    Use,
    biases_tell_apart,
    constant_neighbour,
    fresh,
    fresh_at,
    is_constant,
    rule,
    washes_out,
)

from .non_finite_weights import SIGNAL_RULES

STAYS = 0.05  # fewer are what a few steps leave together for now, as in duplicate-units


@rule(
    category="symmetry",
    needs=Needs.WEIGHTS,
    uses=Needs.LIVENESS,
    message={
        "default": "all {count} weights are {value}, so its {units} units start identical",
        "neighbour": "all {count} weights are {value}, {neighbour}'s too: at best biases tell its {units} units apart",
        "permanent": "all {count} weights are {value}, and {equal} of its {units} units stay equal",
        "table": "all {count} values are {value}, so the network cannot tell one row from another",
        "linear": "all {count} weights are {value}; of a linear model each output has a target of its own",
        "filter": "all {count} weights are {value}; each channel has its own input, as in a box filter",
    },
    explains=(*SIGNAL_RULES, "dead-relu-bias"),
    overrides=("duplicate-units", "variance-mismatch", "looks-trained", "permanent-symmetry"),
)
def constant_weights(context: Context, options: object) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        for tensor in (each for each in layer.tensors if each.trainable):
            if tensor.role in (Role.WEIGHT, Role.RECURRENT_WEIGHT) and is_constant(context.stats, tensor):
                outputs = tensor.view.groups * tensor.view.units
                if outputs > 1:
                    yield _judge(context, layer, tensor, outputs)
            elif tensor.parts and tensor.role is Role.WEIGHT and not layer.kind.is_recurrent:
                yield from _judge_parts(context, tensor)
            elif tensor.role is Role.TABLE and tensor.address not in context.alike:
                yield from _judge_table(context, layer)


def _judge_table(context: Context, layer: Layer) -> Iterator[Suspicion]:
    """Rows get gradients of their own; beside another input, or as factors, they may start equal on purpose."""
    table = layer.weight
    if not is_constant(context.stats, table):
        return
    data = {"count": table.size, "value": context.stats[table.address].mean}
    severity = Severity.NOTE if layer.bypassed or Use.PRODUCT in layer.uses else Severity.WARNING
    yield Suspicion(table, severity, data, fresh(context.model, table), "table")


def _judge(context: Context, layer: Layer, tensor: Tensor, units: int) -> Suspicion:
    stats = context.stats[tensor.part_addresses[0]]
    data, fix = {"count": tensor.size, "value": stats.mean, "units": units}, fresh(context.model, tensor)
    still_equal = context.signals.still_equal.get(tensor.address)
    faint = washes_out(context.model, layer, stats)
    if still_equal and still_equal >= STAYS * units and tensor.view.units > 1 and not faint:
        return Suspicion(tensor, Severity.ERROR, {**data, "equal": still_equal}, fix, "permanent")
    separates = still_equal is not None and tensor.view.units == 1
    neighbour = "" if separates or faint else constant_neighbour(context.model, context.stats, layer, tensor)
    if neighbour:
        severity = Severity.WARNING if biases_tell_apart(context.stats, layer, stats.mean) else Severity.ERROR
        return Suspicion(tensor, severity, {**data, "neighbour": neighbour}, fix, "neighbour")
    linear = not (still_equal or layer.producers or layer.consumers) and set() < layer.uses <= {Use.OUTPUT, Use.SUM}
    if linear or tensor.view.units == 1:
        return Suspicion(tensor, Severity.NOTE, data, message="linear" if linear else "filter")
    return Suspicion(tensor, Severity.WARNING, data, fix)


def _judge_parts(context: Context, tensor: Tensor) -> Iterator[Suspicion]:
    """Of queries, keys and values some are constant; the others tell their units apart, if anything does."""
    units = tensor.view.units // len(tensor.parts)
    for part in tensor.part_addresses:
        stats = context.stats.get(part)
        if stats is None or not stats.constant or stats.all_zero or min(stats.count, units) < 2:
            continue
        equal = context.signals.still_equal.get(part, 0)
        data = {"count": stats.count, "value": stats.mean, "units": units, "equal": equal}
        found = (Severity.ERROR, "permanent") if equal >= STAYS * units else (Severity.WARNING, "default")
        yield Suspicion(part, found[0], data, fresh_at(context.model, tensor, part), found[1])
