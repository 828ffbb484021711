"""Most weights of a layer are exactly zero, spread over all of its units.

## Why it matters

A continuous draw gives no zeros. Many of them mean that the layer was pruned, or sparsely initialised on purpose; both
train, if the zeros are not held there by a mask. Rules about scale are not silenced: the mean square that they judge
counts the zeros, and that is what the signal feels. Where less than one weight per unit is left, most units see no
input at all: a warning; an error where nothing at all gets through such a layer that everything has to pass.

Zero units, zero layers, identities, kernels for up-sampling and whatever else has one value beside zero (`dirac_`) are
other things, and not reported here; units that stay zero are stuck-parameters'.

## Example

    prune.random_unstructured(layer, "weight", amount=0.9)   # before training

## Fix

None needed if it is meant. `nn.init.sparse_(layer.weight, sparsity)` scales nothing: make up for it with the std.

## References

- Martens 2010, Deep learning via Hessian-free optimization, section 5: 15 inputs per unit
- Gale, Elsen & Hooker 2019 (arXiv:1902.09574): pruning at 50 to 98 %
- `benchmarks/results/`: `calibrate_weights.md`, sparse; `calibrate_breadth.md`, zeros
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import Context, Layer, Needs, Severity, Suspicion, WeightStats, fresh, rule


@dataclass(frozen=True)
class Options:
    share: float = 0.5  # Gale et al. 2019: the least that pruning is used for
    inputs: float = 1.0  # left per unit; calibrate_weights.md, sparse all: 1.9 of 64 train, 0.6 do not
    smallest: int = 256  # weights; of fewer, a draw by hand may leave out half


@rule(
    category="provenance",
    needs=Needs.WEIGHTS,
    uses=Needs.FORWARD,
    options=Options,
    message="{share} of the weights are exactly zero, which leaves {inputs} inputs per unit",
)
def pruned_weights(context: Context, options: Options) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        stats = context.stats.get(layer.weight.address)
        if stats is None or not layer.kind.is_map or layer.weight.computed or not layer.weight.trainable:
            continue
        if stats.count < options.smallest or stats.all_zero or _structured(layer, stats):
            continue
        share, units = stats.zeros / stats.count, layer.weight.view.groups * layer.weight.view.units
        if share >= options.share:
            left = (stats.count - stats.zeros) / units
            starved = left < options.inputs
            severity, fix = Severity.NOTE, None
            if starved:
                severity, fix = _severity(context, layer), fresh(context.model, layer.weight)
            yield Suspicion(layer.weight, severity, {"share": share, "inputs": left}, fix)


def _severity(context: Context, layer: Layer) -> Severity:
    """No input changes what it gives, so that nothing behind it learns of any, and nothing before it of the loss."""
    signal = context.signal(layer)
    silent = signal is not None and signal.std == 0.0 and not layer.bypassed
    return Severity.ERROR if silent else Severity.WARNING


_ROUNDING = 1e-6  # ten times that of float32


def _structured(layer: Layer, stats: WeightStats) -> bool:
    """An identity, a ramp on the diagonal, one value beside zero, or more zero units than chance leaves."""
    view = layer.weight.view
    by_chance = view.groups * view.units * (stats.zeros / stats.count) ** view.fan_in
    empty = stats.zero_units > 1 + 2 * by_chance
    left = stats.count - stats.zeros  # sums and sums of squares agree (Cauchy-Schwarz) where these are all the same
    same = math.isclose((stats.count * stats.mean) ** 2, left * stats.count * stats.mean_square, rel_tol=_ROUNDING)
    return same or stats.scheme.startswith(("identity", "orthogonal")) or stats.duplicate_units > 0 or empty
