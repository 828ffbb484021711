"""Biases are so large that the layer gives nearly the same for every input.

## Why it matters

What a layer hands on is its bias plus what it makes of its input. A bias ten times as large as the latter turns the
non-linearity behind it into a constant or a straight line, and everything behind it sees the same large pattern for
every sample: the loss is steep along that pattern and flat along all others. SGD fails, Adam takes long, and
from a thousand times on both fail, unless there is a way around the layer.

Biases of outputs, gates, coordinates and attention logits are left alone, they are often meant; so is a bias that a
batch or instance norm takes away again. Biases in front of bounded non-linearities are judged by saturating-bias, those
that switch ReLUs off by dead-relu-bias. Behind a norm the bias is the norm's shift.

## Example

    nn.init.normal_(self.fc1.bias, std=30)   # meant for an embedding, or std=0.03

## Fix

`nn.init.zeros_(self.fc1.bias)`.

## References

- LeCun et al. 1998, Efficient BackProp, section 4.3: a mean shared by all samples slows learning
- `benchmarks/results/calibrate_bias.md`: nets by the size of one bias
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
    Needs,
    Severity,
    Suspicion,
    Use,
    WeightStats,
    activations,
    rule,
)

from .non_finite_weights import SIGNAL_RULES


@dataclass(frozen=True)
class Options:
    warn: float = 10.0  # calibrate_bias.md: from 9 on SGD fails for every ReLU and GELU net, from 90 on Adam is slow
    fail: float = 900.0  # calibrate_bias.md: from 875 on both optimisers fail for every ReLU and GELU net
    least_scale: float = 0.4  # of W x, for unit inputs: PyTorch's default; smaller weights are variance-mismatch's


@rule(
    category="bias",
    needs=Needs.WEIGHTS | Needs.FORWARD,
    options=Options,
    message="biases of rms {bias} drown what depends on the input (std {std}), {ratio} to 1",
    explains=SIGNAL_RULES,
    overrides=("dead-relu-bias",),
)
def oversized_bias(context: Context, options: Options) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        signal = context.signal(layer)
        bias = context.stats.get(layer.bias.address) if layer.bias is not None else None
        if layer.bias is None or bias is None or signal is None or not _is_hidden(layer):
            continue
        rms = _passed_on(layer, bias)
        scale = max(signal.std, options.least_scale)
        if math.isfinite(rms) and math.isfinite(scale) and rms > options.warn * scale:
            fails = rms > options.fail * scale and not layer.bypassed
            data = {"bias": rms, "std": signal.std, "ratio": rms / scale, "threshold": options.warn}
            severity = Severity.ERROR if fails else Severity.WARNING
            yield Suspicion(layer.bias, severity, data, Fill(layer.bias.address, 0.0))


_EXCUSED = frozenset({Use.OUTPUT, Use.PRODUCT, Use.COORDINATE, Use.SOFTMAX})


def _is_hidden(layer: Layer) -> bool:
    """Its output is data for others: no prior, gate, offset or logit; and nothing takes its mean away again."""
    taken_away = layer.norm_after in (Kind.BATCH_NORM, Kind.INSTANCE_NORM)
    bounded = activations.get(layer.activation).bounded or layer.activation in activations.PERIODIC
    return not (taken_away or bounded or layer.kind.is_recurrent or layer.uses & _EXCUSED)


def _passed_on(layer: Layer, bias: WeightStats) -> float:
    """Root mean square over units of what gets past the non-linearity: a ReLU stops negative biases."""
    if activations.get(layer.activation).dead_below is None or layer.norm_after is not None:
        return math.sqrt(bias.mean_square)
    return math.sqrt(sum(max(0.0, b) ** 2 for b in bias.values) / max(1, len(bias.values)))
