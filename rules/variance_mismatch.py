"""One layer's weights are far too large or too small for its fan-in and the activation in front of it.

## Why it matters

A linear map multiplies the scale of its signal by sqrt(fan_in * E[w^2] * E[phi^2]). Initialisation schemes keep this
near 1. A layer that is far too large floods what is behind it (and if most are, none learns: steps are small next to
the weights); one that is far too small starves it, and all layers before it of gradient. It is reported only if the
measured output is off too, and not where its scale cannot show: in front of a normalisation, of sine and cosine.

## Example

    nn.init.normal_(self.fc2.weight, std=1.0)   # fan_in 512: the output is 22 times the input

## Fix

`nn.init.kaiming_normal_(self.fc2.weight, nonlinearity="relu")`, or Xavier in front of tanh and sigmoid.

## References

- He et al. 2015 (arXiv:1502.01852) section 2.2; huggingface/transformers#16749: a head of variance 1
- `benchmarks/results/calibrate_scale.md`: one layer scaled, trained at depths 2 to 20
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median

from initlint.plugin import (
    Context,
    Layer,
    Needs,
    Role,
    Severity,
    Suspicion,
    Tensor,
    Use,
    WeightStats,
    activations,
    expected_gain,
    fresh,
    measured_gain,
    peers,
    plain_paths,
    rule,
)

from .non_finite_weights import SIGNAL_RULES


@dataclass(frozen=True)
class Options:
    too_large: float = 10.0  # calibrate_scale.md, one layer scaled: 10 still trains at every depth, 30 not from depth 4
    too_small: float = 1 / 30  # calibrate_scale.md: 0.03 of the scale is the first to slow nets of depth 16 and more
    among_peers: float = 30.0  # depth-scaled schemes: sqrt(2 * layers) <= 20 up to 200 layers (GPT-2, section 2.3)
    large_among_peers: float = 3.0  # and louder than its input at all: sqrt(10), half of ``too_large`` on a log scale
    confirmed: float = 3.0  # the measured gain must be off by this too; He nets of width 16 vary by less
    deep: int = 5  # maps in a plain path; calibrate_scale.md: a starved layer slows nets from about 16 maps on
    everywhere: float = 30.0  # trainability.md, x100 in all (factors of 37 to 60): 13 of 13 families fail
    several: int = 3  # layers; calibrate_scale.md: nets of two and three layers train at any scale with Adam
    share: float = 0.5  # of the maps; what is left of the others learns and makes up for the rest


@rule(
    category="scale",
    needs=Needs.WEIGHTS,
    uses=Needs.FORWARD,
    options=Options,
    message={
        "large": "weights {factor} times larger than fan-in {fan_in} asks for (std {std}, expected {expected_std})",
        "small": "weights {factor} times smaller than fan-in {fan_in} asks for (std {std}, expected {expected_std})",
        "table": "rows have an rms of {factor}, where about 1 is expected",
    },
    explains=SIGNAL_RULES,
)
def variance_mismatch(context: Context, options: Options) -> Iterator[Suspicion]:
    found = list(_found(context, options))
    flooded = sum(factor >= options.everywhere for factor, suspicion in found if suspicion.message == "large")
    maps = sum(layer.kind.is_map for layer in context.model.layers)
    fails = flooded >= max(options.several, options.share * maps)
    for factor, each in found:
        grave = fails and each.message == "large" and factor >= options.everywhere
        yield replace(each, severity=Severity.ERROR) if grave else each


def _found(context: Context, options: Options) -> Iterator[tuple[float, Suspicion]]:
    """(factor, suspicion)."""
    depths = {layer.name: len(path) for path in plain_paths(context.model, context.signals) for layer in path.hidden}
    for layer in context.model.layers:
        periodic = layer.activation in activations.PERIODIC
        averaging = layer.input_activation == "softmax"  # a weighted mean of the weights, as a decoder's bin centres
        for tensor in layer.tensors if layer.norm_after is None and not periodic and not averaging else ():
            stats = context.stats.get(tensor.address)
            weighs = tensor.role in (Role.WEIGHT, Role.RECURRENT_WEIGHT, Role.TABLE)
            if weighs and stats is not None and 0.0 < stats.mean_square < math.inf:
                yield from _judge(context, layer, tensor, stats, depths.get(layer.name, 0), options)


def _judge(
    context: Context, layer: Layer, tensor: Tensor, stats: WeightStats, depth: int, options: Options
) -> Iterator[tuple[float, Suspicion]]:
    """``depth``: length of the plain path around it, on which nothing makes up for a small weight; or 0."""
    rms = math.sqrt(stats.mean_square)
    gain = expected_gain(layer, stats) if tensor.role is Role.WEIGHT else rms * math.sqrt(tensor.view.fan_in)
    data = {"fan_in": tensor.view.fan_in, "std": stats.std, "expected_std": stats.std / gain}
    fix = fresh(context.model, tensor)
    if tensor.role is Role.TABLE:
        if rms > options.too_large:
            yield rms, Suspicion(tensor, Severity.WARNING, {"factor": rms}, fix, "table")
    elif _is_loud(context, layer, tensor, gain, options):
        yield gain, Suspicion(tensor, Severity.WARNING, {"factor": gain, **data}, fix, "large")
    elif gain < options.too_small and depth and tensor is layer.weight and _is_quiet(context, layer, options):
        severity = Severity.WARNING if depth >= options.deep else Severity.NOTE
        yield 1 / gain, Suspicion(tensor, severity, {"factor": 1 / gain, **data}, fix, "small")


def _is_loud(context: Context, layer: Layer, tensor: Tensor, gain: float, options: Options) -> bool:
    large = gain > options.too_large
    if not large and tensor is layer.weight and gain > options.large_among_peers:
        others = peers(context.model, layer, context.stats)
        large = bool(others) and gain > options.among_peers * median(others)
    measured = None if layer.kind.is_recurrent else measured_gain(context.model, layer, context.signals)
    return large and (measured is None or measured > options.confirmed)


def _is_quiet(context: Context, layer: Layer, options: Options) -> bool:
    measured = measured_gain(context.model, layer, context.signals)
    excused = Use.LAYER not in layer.uses or layer.uses & {Use.SUM, Use.PRODUCT, Use.COORDINATE}
    return not excused and (measured is None or measured < 1 / options.confirmed)
