"""One layer's weights are far too large or too small for its fan-in and the activation in front of it.

## Why it matters

A linear map multiplies the scale of its signal by sqrt(fan_in * E[w^2] * E[phi^2]), which schemes keep near 1. If it is
far too large it floods what is behind it (if all are, steps are too small next to the weights); far too small it
starves that, and all before it of gradient. The measured output has to be off too, and no norm or sine to follow.

## Example

    nn.init.normal_(self.fc2.weight, std=1.0)   # fan_in 512: the output is 22 times the input

## Fix

`nn.init.kaiming_normal_(self.fc2.weight, nonlinearity="relu")`, or Xavier in front of tanh and sigmoid.

## References

- He et al. 2015 (arXiv:1502.01852) section 2.2; transformers#16749; `benchmarks/results/calibrate_scale.md`
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

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
    is_formula,
    measured_gain,
    peers,
    plain_paths,
    rule,
)

from .non_finite_weights import SIGNAL_RULES

WEIGHTS = (Role.WEIGHT, Role.RECURRENT_WEIGHT, Role.TABLE)


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
    share: float = 0.9  # of the maps; drawn.md: of 14 nets with shortcuts and half to most of them so large 8 train


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
    flooded = [each for factor, each in found if each.message == "large" and factor >= options.everywhere]
    fails = len(flooded) >= max(options.several, options.share * sum(e.kind.is_map for e in context.model.layers))
    yield from (replace(each, severity=Severity.ERROR) if fails and each in flooded else each for _, each in found)


def _found(context: Context, options: Options) -> Iterator[tuple[float, Suspicion]]:
    depths = {layer.name: len(path) for path in plain_paths(context.model, context.signals) for layer in path.hidden}
    for layer in context.model.layers:
        own = layer.input_activation == "softmax" or is_formula(context.model, layer.weight, context.stats)  # windows
        hidden = layer.norm_after is not None or layer.activation in activations.PERIODIC or own
        for tensor in () if hidden else layer.tensors:
            stats = context.stats.get(tensor.address)
            if tensor.role in WEIGHTS and tensor.trainable and stats is not None and 0.0 < stats.mean_square < math.inf:
                yield from _judge(context, layer, tensor, stats, depths.get(layer.name, 0), options)


def _judge(
    context: Context, layer: Layer, tensor: Tensor, stats: WeightStats, depth: int, options: Options
) -> Iterator[tuple[float, Suspicion]]:
    """``depth`` of the plain path around it, on which nothing makes up for a small weight; 0 without one."""
    rms, fix = math.sqrt(stats.mean_square), fresh(context.model, tensor)
    gain = expected_gain(layer, stats) if tensor.role is Role.WEIGHT else rms * math.sqrt(tensor.view.fan_in)
    data = {"fan_in": tensor.view.fan_in, "std": stats.std, "expected_std": stats.std / gain}
    measured = None if layer.kind.is_recurrent else measured_gain(context.model, layer, context.signals)
    louder = measured is None or measured > options.confirmed
    quieter = measured is None or measured < 1 / options.confirmed
    alone = Use.LAYER in layer.uses and not layer.uses & {Use.SUM, Use.PRODUCT, Use.COORDINATE}
    if tensor.role is Role.TABLE:
        if rms > options.too_large:
            yield rms, Suspicion(tensor, Severity.WARNING, {"factor": rms}, fix, "table")
    elif louder and _is_large(context, layer, tensor, gain, options):
        yield gain, Suspicion(tensor, Severity.WARNING, {"factor": gain, **data}, fix, "large")
    elif quieter and gain < options.too_small and alone and depth and tensor is layer.weight:
        severity = Severity.WARNING if depth >= options.deep else Severity.NOTE
        yield 1 / gain, Suspicion(tensor, severity, {"factor": 1 / gain, **data}, fix, "small")


def _is_large(context: Context, layer: Layer, tensor: Tensor, gain: float, options: Options) -> bool:
    others = peers(context.model, layer, context.stats) if tensor is layer.weight else []
    usual = options.among_peers * others[len(others) // 2] if others else math.inf
    return gain > min(options.too_large, max(options.large_among_peers, usual))
