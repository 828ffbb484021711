"""A normalisation multiplies everything by zero, or many of them by little.

## Why it matters

With a gain of zero the layer gives its shift, whatever comes in. At the end of a residual branch that is good practice:
the branch starts as nothing and wakes up at the first step. In front of a ReLU it is fatal: with a shift that is not
positive the slope of the ReLU is zero and the gain never gets a gradient. Elsewhere it wakes up, late.

Gains far below one of several norms that all of the signal passes multiply, as biases behind them do not shrink too:
what depends on the input vanishes beside what does not, and SGD moves nothing. Batch and instance norms bring it back,
shortcuts carry it past, and a last norm is like a small head, so that what is measured behind several norms counts.

## Example

    for p in model.parameters(): nn.init.normal_(p, std=0.02)                  # draws the norms' gains too
    nn.init.zeros_(self.bn1.weight)   # torch.relu(self.bn1(self.conv1(x))): meant bn2, the last one of the branch

## Fix

`nn.init.ones_(self.bn1.weight)`.

## References

- Goyal et al. 2017 (arXiv:1706.02677) section 5.1: zero gain in the last norm of each residual block
- timm `norm.py`, `zero_init_last`: only where there is a shortcut
- `benchmarks/results/calibrate_norms.md`: which gains train
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import (
    Context,
    Fill,
    Kind,
    Layer,
    Liveness,
    Needs,
    Role,
    Several,
    Severity,
    Suspicion,
    Use,
    rule,
)


@dataclass(frozen=True)
class Options:
    left: float = 5e-3  # calibrate_norms.md, layer norms: the spread behind the last one, below which SGD never trains
    others: float = 0.1  # without the smallest they still take away a decade: one alone is a small head


@rule(
    category="norm",
    needs=Needs.WEIGHTS,
    uses=Needs.LIVENESS | Needs.FORWARD,
    options=Options,
    message={
        "idiom": "all {count} gains start at zero at the end of a residual branch or a factor",
        "stuck": "all {count} gains are zero and can never change: {proof}",
        "unplaced": "all {count} gains start at zero; what makes up for it cannot be seen without the network",
        "default": "all {count} gains start at zero, so nothing of the input passes at first",
        "quiet": "{left} of the signal is left behind {last}: the gains of {count} norms multiply to {product}",
    },
    explains=("dead-units", "vanishing-signal", "stuck-parameters", "vanishing-gradient"),
    overrides=("stuck-parameters",),
)
def zero_norm_gain(context: Context, options: Options) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        gain = layer.weight
        stats = context.stats.get(gain.address)
        if not layer.kind.is_norm or gain.role is not Role.GAIN or stats is None or not stats.all_zero:
            continue
        verdict, fix = context.liveness(gain), Fill(gain.address, 1.0)
        proof = _proof(context, layer, verdict)
        if proof:
            yield Suspicion(gain, Severity.ERROR, {"count": gain.size, "proof": proof}, fix, "stuck")
        elif verdict in _ON_PURPOSE or layer.uses & {Use.SUM, Use.PRODUCT, Use.OUTPUT}:
            yield Suspicion(gain, Severity.NOTE, {"count": gain.size}, message="idiom")
        elif not context.model.has_dataflow:  # the end of a branch, or 1 + gain
            yield Suspicion(gain, Severity.NOTE, {"count": gain.size}, message="unplaced")
        else:
            yield Suspicion(gain, Severity.WARNING, {"count": gain.size}, fix)
    yield from _quiet(context, options)


def _quiet(context: Context, options: Options) -> Iterator[Suspicion]:
    """Of the last norm behind which next to nothing depends on the input, if gains on the way explain that."""
    spreads = {layer.name: found.std for layer in context.model.layers if (found := context.signal(layer)) is not None}
    norms = [layer for layer in context.model.layers if layer.kind in _KEEPING and not layer.bypassed]
    for end in [layer for layer in norms if 0.0 < spreads.get(layer.name, 0.0) < options.left][-1:]:
        way = [each.weight for each in norms if each is end or context.model.is_upstream(each.name, end.name)]
        known = [gain for gain in way if gain.role is Role.GAIN and gain.address in context.stats]
        sizes = {gain: math.sqrt(context.stats[gain.address].mean_square) for gain in known}
        gains = {gain: size for gain, size in sizes.items() if 0.0 < size < 1.0}
        product = math.prod(gains.values())
        if gains and product <= options.others * min(gains.values()) and spreads[end.name] >= options.left * product:
            data = {"left": spreads[end.name], "last": end.name, "count": len(gains), "product": product}
            fix = Several(tuple(Fill(gain.address, 1.0) for gain in gains))
            yield Suspicion(next(iter(gains)), Severity.WARNING, data, fix, "quiet")


_KEEPING = frozenset({Kind.LAYER_NORM, Kind.GROUP_NORM, Kind.RMS_NORM})
"""Norms that look at one sample: what all samples have in common stays in their output."""

_ON_PURPOSE = (Liveness.FROZEN, Liveness.UNUSED)


def _proof(context: Context, layer: Layer, verdict: Liveness | None) -> str:
    """Why the gain never gets a gradient: measured, or by the ReLU that it holds at zero; empty where it may."""
    edge = layer.dead_below
    if verdict is not None or edge is None or layer.uses != {Use.LAYER}:
        return context.measured_stuck(layer.weight)
    shift = context.stats.get(layer.bias.address) if layer.bias is not None else None
    return f"the {layer.activation} behind it stays off" if shift is None or shift.max <= edge else ""
