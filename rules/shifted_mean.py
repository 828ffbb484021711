"""The weights of a layer lie on one side of zero, so that its units all say the same.

## Why it matters

Weights of mean m give every unit the same share m * sum(x) of its output. That share grows with the fan-in, what tells
the units apart only with its root: with |m| * sqrt(fan_in) above a few standard deviations all units rise and fall
together. Plain nets explode as well. Batch normalisation takes away the scale, not the likeness (layer normalisation
does); a recurrence adds the share up. One such layer among others costs speed; a row does not train, around shortcuts
too if all branches are so and loud. Tables, frozen kernels and weights made positive (exp, softplus) are excused.

## Example

    nn.init.uniform_(layer.weight, 0, 1)    # or torch.rand(...); meant: uniform_(layer.weight, -bound, bound)

## Fix

`nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")`

## References

- LeCun et al. 1998, Efficient BackProp, section 4.3; `benchmarks/results/calibrate_weights.md`, shift and sided
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import (
    Context,
    Kind,
    Layer,
    Liveness,
    Needs,
    Role,
    Severity,
    Suspicion,
    Tensor,
    Use,
    activations,
    fresh,
    made_by,
    rule,
)

from .non_finite_weights import SIGNAL_RULES

CENTRING = {Kind.LAYER_NORM, Kind.GROUP_NORM}
"""Norms that take away what units share; calibrate_weights.md, ln: any mean trains in front of them."""


@dataclass(frozen=True)
class Options:
    row: float = 8.0  # calibrate_weights.md, shift all: from 8 on no ReLU net trains, and batch norm makes it slow
    alone: float = 9.0  # calibrate_weights.md, shift one: SGD fails from 8 (relu 4) or from between 8 and 14 on (sided)
    loud: float = 3.0  # times the scale that the fan-in asks for; drawn.md: with shortcuts 6 of 7 nets train below
    centred: float = 2.0  # calibrate_weights.md: behind tanh, whose values have no mean, it takes twice as much
    loop: float = 10.0  # calibrate_weights.md, LSTM, shift: units * |mean| of 4.6 is bearable, 9 slow, 23 not
    plain_loop: float = 2.3  # calibrate_weights.md, tanh and ReLU recurrence, shift: the least that fails
    deviations: float = 6.0  # normal tail 1e-9: the mean of fewer weights may be that far off by chance


@rule(
    category="scale",
    needs=Needs.WEIGHTS,
    uses=Needs.LIVENESS,
    options=Options,
    message="weights of mean {mean} and std {std}, next to {neighbours} such layers: "
    "what units share is {coherence} times what tells them apart",
    explains=SIGNAL_RULES,
    overrides=("variance-mismatch", "looks-trained", "low-rank-weights", "outlier-weights", "recurrent-radius"),
)
def shifted_mean(context: Context, options: Options) -> Iterator[Suspicion]:
    found: dict[str, tuple[Layer, Tensor, float]] = {}
    for layer in context.model.layers:
        readers = {each.kind for each in context.model.consumers(layer)}
        for tensor in () if readers and readers <= CENTRING else layer.tensors:
            if (coherence := _coherence(context, layer, tensor, options)) >= options.row * _ease(layer, options):
                found[tensor.address] = layer, tensor, coherence
    all_through = made_by(context.model, found.keys(), CENTRING)
    for layer, tensor, coherence in found.values():
        near = (layer, *context.model.maps_before(layer), *context.model.maps_after(layer))
        stats, others = context.stats[tensor.address], len(found.keys() & {each.weight.address for each in near[1:]})
        through = all_through and stats.mean_square * tensor.view.fan_in >= options.loud**2
        in_a_row = others > 0 and (through or not any(each.bypassed for each in near))
        severity = _severity(layer, coherence, in_a_row, options)
        if layer.kind.is_recurrent:
            least = (options.plain_loop if layer.kind is Kind.RNN else options.loop) / tensor.view.fan_in
            severity = Severity.ERROR if tensor is layer.recurrent and abs(stats.mean) >= least else None
        data = {"mean": stats.mean, "std": stats.std, "coherence": coherence, "neighbours": others}
        yield from () if severity is None else [Suspicion(tensor, severity, data, fresh(context.model, tensor))]


def _severity(layer: Layer, coherence: float, in_a_row: bool, options: Options) -> Severity | None:
    if layer.uses and not layer.uses & ({Use.LAYER, Use.SUM, Use.PRODUCT} if in_a_row else {Use.LAYER, Use.SUM}):
        return None  # a head: what all logits share changes no softmax; a gate, but in a row of such
    ease = options.centred if layer.input_activation == "identity" else _ease(layer, options)
    alone = Severity.WARNING if coherence >= options.alone * ease else Severity.NOTE
    return Severity.ERROR if in_a_row else alone


def _coherence(context: Context, layer: Layer, tensor: Tensor, options: Options) -> float:
    """The singular value of the mean over that of the rest, in the packed part where it is largest; 0 if excused."""
    if tensor.role not in (Role.WEIGHT, Role.RECURRENT_WEIGHT) or not tensor.trainable or tensor.view.units < 2:
        return 0.0
    measured = [stats for each in tensor.part_addresses if (stats := context.stats.get(each)) is not None]
    positive = tensor.computed and all(stats.min >= 0 or stats.max <= 0 for stats in measured)
    if positive or context.liveness(tensor) is Liveness.FROZEN:
        return 0.0
    beyond = [s for s in measured if s.std > 0 and abs(s.mean) * math.sqrt(s.count) > options.deviations * s.std]
    inputs = (tensor is layer.weight and layer.fan_in) or tensor.view.fan_in
    return max((abs(s.mean) / s.std for s in beyond), default=0.0) * math.sqrt(inputs)


def _ease(layer: Layer, options: Options) -> float:
    """How much more it takes behind tanh, SELU and the like."""
    mean = activations.get(layer.input_activation).standard_moments[0]
    no_mean = math.isclose(mean, 0.0, abs_tol=1e-3)  # the integral's own error
    return options.centred if no_mean and layer.input_activation != "identity" else 1.0
