"""Biases are so large that the layer gives nearly the same for every input.

## Why it matters

What a layer hands on is its bias plus what it makes of its input. A bias ten times as large as the latter turns the
non-linearity behind it into a constant or a straight line, and everything behind it sees the same large pattern for
every sample: the loss is steep along that pattern and flat along all others. SGD fails, Adam takes long, and
from a thousand times on both fail, unless there is a way around the layer. Where all layers of a plain row have such
biases the patterns add up, and ten times is enough: that is one finding for the row.

Biases of outputs, gates, coordinates and attention logits, those that a batch or instance norm takes away again, and
those beside a weight that is zero (they drown nothing yet) are left alone. See also saturating-bias, dead-relu-bias.

## Example

    nn.init.normal_(self.fc1.bias, std=30)   # meant for an embedding, or std=0.03

## Fix

`nn.init.zeros_(self.fc1.bias)`.

## References

- LeCun et al. 1998, Efficient BackProp, section 4.3: a mean shared by all samples slows learning
- `benchmarks/results/`: `calibrate_bias.md` (the size of one bias), `calibrate_breadth.md` (of all)
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
    Several,
    Severity,
    Suspicion,
    Tensor,
    Use,
    WeightStats,
    activations,
    plain_paths,
    rule,
)

from .non_finite_weights import SIGNAL_RULES


@dataclass(frozen=True)
class Options:
    warn: float = 10.0  # calibrate_bias.md: from 9 on SGD fails for every ReLU and GELU net, from 90 on Adam is slow
    fail: float = 900.0  # calibrate_bias.md: from 875 on both optimisers fail for every ReLU and GELU net
    row: float = 1.5  # calibrate_breadth.md, biases: what counts as such a row
    row_warn: float = 6.0  # calibrate_breadth.md, biases: from 6 (largest) to 9, 1 of 21 rows trains
    row_fail: float = 12.0  # calibrate_breadth.md, biases: from 12 on 0 of 26 rows train
    least_scale: float = 0.4  # of W x, for unit inputs: PyTorch's default; smaller weights are variance-mismatch's


@rule(
    category="bias",
    needs=Needs.WEIGHTS | Needs.FORWARD,
    options=Options,
    message={
        "default": "biases of rms {bias} drown what depends on the input (std {std}), {ratio} to 1",
        "row": "biases of {layers} layers in a row drown what depends on the input, here {bias} to {std}",
    },
    explains=(*SIGNAL_RULES, "training-noise"),
    overrides=("dead-relu-bias",),
)
def oversized_bias(context: Context, options: Options) -> Iterator[Suspicion]:
    measured = ((layer, _measured(context, layer, options)) for layer in context.model.layers if _is_hidden(layer))
    found = {layer.name: each for layer, each in measured if each is not None}
    for path in plain_paths(context.model, context.signals):
        row = [found[layer.name] for layer in path.hidden if layer.name in found]
        ratios = [data["ratio"] for _, data in row]
        if len(row) >= max(2, len(path.hidden)) and min(ratios) >= options.row and max(ratios) >= options.row_warn:
            bias, data = row[ratios.index(max(ratios))]
            severity = Severity.ERROR if max(ratios) >= options.row_fail else Severity.WARNING
            fix = Several(tuple(Fill(each.address, 0.0) for each, _ in row))
            yield Suspicion(bias, severity, {**data, "layers": len(row), "threshold": options.row_warn}, fix, "row")
            found = {name: each for name, each in found.items() if each not in row}
    for name, (bias, data) in found.items():
        if data["ratio"] > options.warn:
            fails = data["ratio"] > options.fail and not context.model.layer(name).bypassed
            severity = Severity.ERROR if fails else Severity.WARNING
            yield Suspicion(bias, severity, {**data, "threshold": options.warn}, Fill(bias.address, 0.0))


def _measured(context: Context, layer: Layer, options: Options) -> tuple[Tensor, dict[str, float]] | None:
    """Its bias and what is to be told of it; None where it has none, or one that is no data for others."""
    signal, weight = context.signal(layer), context.stats.get(layer.weight.address)
    bias = context.stats.get(layer.bias.address) if layer.bias is not None else None
    if layer.bias is None or bias is None or signal is None or weight is None or weight.all_zero:
        return None
    rms, scale = _passed_on(layer, bias), max(signal.std, options.least_scale)
    if not math.isfinite(rms + scale):
        return None
    return layer.bias, {"bias": rms, "std": signal.std, "ratio": rms / scale}


_EXCUSED = frozenset({Use.OUTPUT, Use.PRODUCT, Use.COORDINATE, Use.SOFTMAX})


def _is_hidden(layer: Layer) -> bool:
    """Its output is data for others: no prior, gate, offset or logit; and nothing takes its mean away again."""
    taken_away = layer.norm_after in (Kind.BATCH_NORM, Kind.INSTANCE_NORM)
    bounded = activations.get(layer.activation).bounded or layer.activation in activations.PERIODIC
    return not (taken_away or bounded or layer.kind.is_recurrent or layer.uses & _EXCUSED)


def _passed_on(layer: Layer, bias: WeightStats) -> float:
    """Root mean square over units of what gets past the non-linearity: a ReLU stops negative biases."""
    if layer.dead_below is None or layer.norm_after is not None:
        return math.sqrt(bias.mean_square)
    return math.sqrt(sum(max(0.0, b) ** 2 for b in bias.values) / max(1, len(bias.values)))
