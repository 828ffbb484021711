"""No unit of a layer fires for any input of the probe batch.

## Why it matters

A ReLU layer in which every pre-activation is negative gives zeros and passes no gradient back: everything before it is
cut off. Part of a layer being off is normal (in healthy He nets of depth 8 a third of the last layer's units is off for
a small batch) and gets at most a note.

Where a bias, a zero or a constant tensor explains it, that is the headline and this finding is folded under it.

## Example

    layer.weight.data.abs_().neg_()   # all weights negative, all inputs positive

## Fix

Draw the weights symmetrically around zero and start with zero biases.

## References

- Lu et al. 2020, Dying ReLU and initialization (arXiv:1903.06733): the probability of a net that is born dead
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import Context, Needs, Severity, Suspicion, fresh, rule


@dataclass(frozen=True)
class Options:
    note_share: float = 0.9  # nearly three times the third that healthy He nets of depth 8 show for a small batch
    enough_units: int = 16  # all of 16 symmetric units are off by chance once in 2^16 layers, even for a constant input


@rule(
    category="signal",
    needs=Needs.FORWARD,
    options=Options,
    message="{dead} of {units} units in front of {activation} are off for every input of the probe batch",
    explains=("dead-units", "vanishing-signal", "vanishing-gradient", "exploding-gradient"),
)
def dead_units(context: Context, options: Options) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        signal = context.signal(layer)
        edge = layer.dead_below
        if signal is None or edge is None or layer.norm_after is not None or signal.nonfinite > 0:
            continue
        units = len(signal.unit_max)
        dead = sum(top <= edge for top in signal.unit_max)
        if units == 0 or dead / units < options.note_share:
            continue
        few = edge > 0.0 and signal.samples < options.enough_units  # beyond an offset most units are off by chance
        proven = dead == units and units >= options.enough_units and not few
        if layer.learnt_input and not proven:
            continue  # a few fixed places, or one, are off for many units by chance
        severity = Severity.NOTE if not proven else Severity.WARNING if layer.bypassed else Severity.ERROR
        yield Suspicion(
            at=layer,
            severity=severity,
            data={"dead": dead, "units": units, "activation": layer.activation, "share": dead / units},
            fix=None if layer.kind.is_norm else fresh(context.model, layer.weight),
        )
