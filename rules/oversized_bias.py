"""Biases are so large that the layer gives nearly the same for every input.

## Why it matters

What a layer hands on is its bias plus what it makes of its input. A bias ten times as large as the latter makes the
non-linearity a constant or a straight line, and all behind it see the same pattern for every sample: the loss is steep
along it and flat along all others. SGD fails, Adam takes long, and from a thousand times on both fail, unless there is
a way around the layer. Where all layers of a plain row have such biases the patterns add up, and ten times is enough,
twenty if there are shortcuts: one finding for all of them.

Biases of outputs, gates, coordinates and attention logits are left alone, those that a norm takes away again (a batch
or instance norm all, others what all units share) and those beside a weight that is zero. A few loud units among many
are a warning. See also saturating-bias, dead-relu-bias.

## Example

    nn.init.normal_(self.fc1.bias, std=30)   # meant for an embedding, or std=0.03

## Fix

`nn.init.zeros_(self.fc1.bias)`.

## References

- LeCun et al. 1998, Efficient BackProp, section 4.3; `benchmarks/results/`: `calibrate_bias.md`, `calibrate_breadth.md`
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import (
    Context,
    Fill,
    Layer,
    Needs,
    Several,
    Severity,
    Suspicion,
    Tensor,
    gives_data,
    is_taken_away,
    passed_on,
    plain_paths,
    rule,
)

from .non_finite_weights import SIGNAL_RULES

Measured = tuple[Tensor, dict[str, float]]


@dataclass(frozen=True)
class Options:
    warn: float = 10.0  # calibrate_bias.md: from 9 on SGD fails for every ReLU and GELU net, from 90 on Adam is slow
    fail: float = 900.0  # calibrate_bias.md: from 875 on both optimisers fail for every ReLU and GELU net
    row: float = 1.5  # calibrate_breadth.md, biases: what counts as such a row
    row_warn: float = 6.0  # calibrate_breadth.md, biases: from 6 (largest) to 9, 1 of 21 rows trains
    around: float = 20.0  # calibrate_breadth.md, branches: with shortcuts, 0 of 21 train if all exceed it
    row_fail: float = 12.0  # calibrate_breadth.md, biases: from 12 on 0 of 26 rows train
    least_scale: float = 0.4  # of W x, for unit inputs: PyTorch's default; smaller weights are variance-mismatch's


@rule(
    category="bias",
    needs=Needs.WEIGHTS | Needs.FORWARD,
    options=Options,
    message={
        "default": "biases of rms {bias} drown what depends on the input (std {std}), {ratio} to 1",
        "row": "biases of {layers} layers drown what depends on the input, here {bias} to {std}",
    },
    explains=(*SIGNAL_RULES, "training-noise"),
    overrides=("dead-relu-bias",),
)
def oversized_bias(context: Context, options: Options) -> Iterator[Suspicion]:
    measured = ((layer, _measured(context, layer, options)) for layer in context.model.layers if gives_data(layer))
    found = {layer.name: each for layer, each in measured if each is not None}
    for row, warn, fail in _rows(context, found, options):
        ratios = [data["ratio"] for _, data in row]
        if max(ratios) >= warn:
            bias, data = row[ratios.index(max(ratios))]
            severity = Severity.ERROR if max(data["most"] for _, data in row) >= fail else Severity.WARNING
            fix = Several(tuple(Fill(each.address, 0.0) for each, _ in row))
            yield Suspicion(bias, severity, {**data, "layers": len(row), "threshold": warn}, fix, "row")
            found = {name: each for name, each in found.items() if each not in row}
    for name, (bias, data) in found.items():
        if data["ratio"] > options.warn:
            fails = data["most"] > options.fail and not context.model.layer(name).bypassed
            severity = Severity.ERROR if fails else Severity.WARNING
            yield Suspicion(bias, severity, {**data, "threshold": options.warn}, Fill(bias.address, 0.0))


def _rows(
    context: Context, found: dict[str, Measured], options: Options
) -> Iterator[tuple[list[Measured], float, float]]:
    """All of a plain row, with what is too large in it; and all there are, if there are ways around them."""
    for path in plain_paths(context.model, context.signals):
        row = [found[layer.name] for layer in path.hidden if layer.name in found]
        if len(row) >= max(2, len(path.hidden)) and min(data["ratio"] for _, data in row) >= options.row:
            yield row, options.row_warn, options.row_fail
    maps = [context.model.layer(name) for name in found if context.model.layer(name).kind.is_map]
    row = [found[layer.name] for layer in maps if len(maps) > 1 and any(each.bypassed for each in maps)]
    if row and min(data["ratio"] for _, data in row) >= options.around:
        yield row, options.around, options.around


def _measured(context: Context, layer: Layer, options: Options) -> Measured | None:
    """Its bias and what is to be told of it; None where it has none, or one that is no data for others."""
    signal, weight = context.signal(layer), context.stats.get(layer.weight.address)
    bias = context.stats.get(layer.bias.address) if layer.bias is not None else None
    if layer.bias is None or bias is None or signal is None or weight is None or weight.all_zero:
        return None
    if is_taken_away(context.model, layer, bias):
        return None
    (rms, most), scale = passed_on(layer, bias), max(signal.std, options.least_scale)
    if not math.isfinite(rms + scale):
        return None
    return layer.bias, {"bias": rms, "std": signal.std, "ratio": rms / scale, "most": min(rms, most) / scale}
