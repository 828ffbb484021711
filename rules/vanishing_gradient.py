"""The gradient dies away on its way back, so that the first layers hardly matter to the loss.

## Why it matters

What comes back to a layer is the product of the slopes of all that follows it. Where those are small, as in chains of
sigmoids or behind a saturated non-linearity, the loss does not feel the first layers: they stay as they were drawn, and
the layers behind them see the input through noise.

Compared is how much the loss moves when a layer's weights change by a given share of their size, with the same for the
layer at the end. That has no unit: it depends neither on the scale of the loss nor on the size of the batch, nor on
weights in front of a normalisation. Only layers that all of the signal has to pass are judged: with a shortcut around
it a layer may start as quietly as it likes. A file has no autograd: its gradients are estimated from how the outputs
move with its weights, and the finding says so. Where `vanishing-signal`, `saturated-activations` or a dead layer is
the cause, this finding is folded under it.

## Example

    nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.Sigmoid()) for _ in range(8)])   # a quarter per layer, at most

## Fix

A non-linearity with a slope of one (ReLU, GELU, tanh with Xavier weights), a normalisation in front of it, or
shortcuts.

## References

- Hochreiter 1991; Glorot & Bengio 2010, section 4.2: gradients of sigmoid nets by depth
- Philipp & Carbonell 2018 (arXiv:1806.00179): the nonlinearity coefficient, which this estimates
- `benchmarks/results/calibrate_gradient.md`: what trains at which decay
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import (
    Context,
    Layer,
    Loss,
    Needs,
    Severity,
    Suspicion,
    is_one_row,
    redrawn,
    rule,
    sensitivities,
)


@dataclass(frozen=True)
class Options:
    warn: float = 1e-3  # calibrate_gradient.md: below, none of 10 nets trains; from 1e-3 to 1e-2 two of 5 do
    # calibrate_gradient.md: below, 8 of 8 nets fail; above, two are merely slow. None of them is normalised. Behind a
    # norm a warning is all: BLIP starts its patches at 1e-15, by weights of 1e-10, and Adam trains it (healthy.md)
    fail: float = 1e-6


@rule(
    category="gradient",
    needs=Needs.BACKWARD,
    options=Options,
    message="its weights move the loss {ratio} times as much as those of {outlet}, {depth} layers on: "
    "gradients shrink to about {per_layer} per layer{basis}",
)
def vanishing_gradient(context: Context, options: Options) -> Iterator[Suspicion]:
    known = [
        each
        for each in sensitivities(context.model, context.signals, mildest=True)
        if not (each.layer.bypassed or _waits(context, each.outlet))
    ]
    for severity, threshold in ((Severity.ERROR, options.fail), (Severity.WARNING, options.warn)):
        # tiny weights alone make it insensitive, but a first step, which their gradient decides, mends that
        first = next((each for each in known if max(each.ratio, each.gradient_ratio) < threshold), None)
        if first is not None:
            data = {
                "ratio": first.ratio,
                "outlet": first.outlet.name,
                "depth": first.depth,
                "per_layer": first.per_layer,
                "threshold": threshold,
                "basis": first.basis,
            }
            mild = Severity.WARNING if first.normalised else severity
            yield Suspicion(first.layer, mild, data, redrawn(context.model, first.layers))
            return


def _waits(context: Context, outlet: Layer) -> bool:
    """Nothing comes back from a cross-entropy through a head of equal units until its first step parts them."""
    return context.signals.loss is Loss.GIVEN and is_one_row(context.stats, outlet.weight)
