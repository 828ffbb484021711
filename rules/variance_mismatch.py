"""One layer's weights are far too large or too small for its fan-in and the activation in front of it.

## Why it matters

A linear map multiplies the scale of its signal by sqrt(fan_in * E[w^2] * E[phi^2]). Initialisation schemes choose the
variance so that this is about 1. A single layer that is a hundred times too large saturates or floods everything behind
it; one that is a hundred times too small starves it, and all layers before it get gradients a hundred times too small.

The prediction is checked against the probe where it ran: the layer is reported only if the measured output is off too.
Layers whose scale cannot show are left alone: in front of a normalisation or of sine and cosine, ends of residual
branches and heads that are small. A whole network with the same small scale is `vanishing-signal`'s business.

## Example

    nn.init.normal_(self.fc2.weight, std=1.0)   # fan_in 512: the output is 22 times the input

## Fix

`nn.init.kaiming_normal_(self.fc2.weight, nonlinearity="relu")`, or Xavier in front of tanh and sigmoid.

## References

- He et al. 2015 (arXiv:1502.01852) section 2.2; Glorot & Bengio 2010, section 4.2
- huggingface/transformers#16749: an output layer of variance 1 gave an initial loss of 110 instead of 11
- `benchmarks/results/calibrate_scale.md`: one layer scaled, trained at depths 2 to 20
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from initlint.plugin import (
    Context,
    Kind,
    Layer,
    Needs,
    Reinit,
    Role,
    Severity,
    Suspicion,
    Tensor,
    Use,
    activations,
    expected_gain,
    measured_gain,
    peers,
    plain_paths,
    rule,
)


@dataclass(frozen=True)
class Options:
    too_large: float = 10.0  # calibrate_scale.md, one layer scaled: 10 still trains at every depth, 30 not from depth 4
    too_small: float = 1 / 30  # calibrate_scale.md: 0.03 of the scale is the first to slow nets of depth 16 and more
    among_peers: float = 30.0  # depth-scaled schemes: sqrt(2 * layers) <= 20 up to 200 layers (GPT-2, section 2.3)
    large_among_peers: float = 3.0  # and louder than its input at all: sqrt(10), half of ``too_large`` on a log scale
    confirmed: float = 3.0  # the measured gain must be off by this too; He nets of width 16 vary by less
    deep: int = 5  # maps in a plain path; calibrate_scale.md: a starved layer slows nets from about 16 maps on


@rule(
    category="scale",
    needs=Needs.WEIGHTS,
    uses=Needs.FORWARD,
    options=Options,
    message={
        "large": "weights {factor} times larger than fan-in {fan_in} asks for (std {std}, expected {expected_std})",
        "small": "weights {factor} times smaller than fan-in {fan_in} asks for (std {std}, expected {expected_std})",
        "table": "rows have an rms of {std}; what reads them expects about 1",
    },
    explains=("exploding-signal", "vanishing-signal", "saturated-activations", "dead-units", "non-finite-activations"),
)
def variance_mismatch(context: Context, options: Options) -> Iterator[Suspicion]:
    starved = _may_starve(context, options)
    for layer in context.model.layers:
        if layer.norm_after is not None or layer.activation in activations.PERIODIC:
            continue
        if layer.kind is Kind.EMBEDDING:
            yield from _table(context, layer, options)
        for tensor in layer.tensors:
            if tensor.role in (Role.WEIGHT, Role.RECURRENT_WEIGHT) and layer.fan_in:
                yield from _weight(context, layer, tensor, starved.get(layer.name, 0), options)


def _may_starve(context: Context, options: Options) -> dict[str, int]:
    """Length of the plain path that a hidden layer lies on: there nothing makes up for a small weight."""
    return {layer.name: len(path) for path in plain_paths(context.model, context.signals) for layer in path.hidden}


def _weight(context: Context, layer: Layer, tensor: Tensor, depth: int, options: Options) -> Iterator[Suspicion]:
    stats = context.stats.get(tensor.address)
    if stats is None or stats.all_zero or stats.count == 0 or not math.isfinite(stats.mean_square):
        return
    if tensor is layer.weight:
        gain = expected_gain(layer, stats)
    else:
        gain = math.sqrt(tensor.view.fan_in * stats.mean_square)
    if _is_loud(context, layer, tensor, gain, options):
        yield _suspicion(layer, tensor, gain, stats.std, Severity.WARNING, "large")
    elif gain < options.too_small and depth and tensor is layer.weight and _is_quiet(context, layer, options):
        severity = Severity.WARNING if depth >= options.deep else Severity.NOTE
        yield _suspicion(layer, tensor, gain, stats.std, severity, "small")


def _is_loud(context: Context, layer: Layer, tensor: Tensor, gain: float, options: Options) -> bool:
    large = gain > options.too_large
    if not large and tensor is layer.weight and gain > options.large_among_peers:
        others = peers(context.model, layer, context.stats)
        large = bool(others) and gain > options.among_peers * median(others)
    if not large or layer.kind.is_recurrent:
        return large
    measured = measured_gain(context.model, layer, context.signals) if context.probed else None
    return measured is None or measured > options.confirmed


def _is_quiet(context: Context, layer: Layer, options: Options) -> bool:
    if Use.LAYER not in layer.uses or layer.uses & {Use.SUM, Use.PRODUCT, Use.COORDINATE}:
        return False
    measured = measured_gain(context.model, layer, context.signals) if context.probed else None
    return measured is None or measured < 1 / options.confirmed


def _suspicion(layer: Layer, tensor: Tensor, gain: float, std: float, severity: Severity, message: str) -> Suspicion:
    factor = gain if message == "large" else 1 / gain
    scheme = "xavier_normal" if layer.kind.is_recurrent or activations.get(layer.activation).bounded else "he_normal"
    data = {"factor": factor, "fan_in": tensor.view.fan_in, "std": std, "expected_std": std / gain}
    return Suspicion(tensor, severity, data, Reinit(tensor.address, scheme), message)


def _table(context: Context, layer: Layer, options: Options) -> Iterator[Suspicion]:
    stats = context.stats.get(layer.weight.address)
    if stats is None or not math.isfinite(stats.mean_square):
        return
    rms = math.sqrt(stats.mean_square)
    signal = context.signal(layer)
    if rms > options.too_large and (signal is None or signal.rms > options.too_large):
        fix = Reinit(layer.weight.address, "normal", 0.02)
        yield Suspicion(layer.weight, Severity.WARNING, {"std": rms}, fix, "table")
