"""Different inputs become indistinguishable on their way through the network.

## Why it matters

At some layer that all of the signal passes, a common pattern is a thousand times as large as what still depends on the
input. The loss is then the same for all samples, its gradient points along the common pattern, and what would tell the
samples apart is lost: in bfloat16 already below 1/250, in float32 below 1/10^7.

Reported is the last such layer, and the first one, if they lie behind a layer where inputs could be told apart. Part
of this is normal: behind ReLUs different images are 96 % alike in a healthy ResNet-50, and no healthy model was seen
below 3 %. A batch norm takes the pattern away again. Outputs are left alone: a zero head answers the same for all
inputs. So is what gets nothing but constants, as behind an empty code book. Where the bias is the pattern,
oversized-bias says so and this is folded under it.

## Example

    nn.init.normal_(self.fc2.weight, std=1e-5)   # beside a default bias of 0.1: fc2(x) is the bias

## Fix

Draw the weights by the scheme of their activation, and start with zero biases.

## References

- Schoenholz et al. 2017 (arXiv:1611.01232): the ordered phase, in which correlations of inputs go to 1
- Labatie 2019 (arXiv:1811.03087): one-dimensional signals in deep networks
- `benchmarks/results/calibrate_bias.md`: nets by the size of one bias
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import (
    Context,
    Fill,
    Fix,
    Kind,
    Layer,
    Needs,
    Reinit,
    Several,
    Severity,
    Suspicion,
    Use,
    activations,
    rule,
)


@dataclass(frozen=True)
class Options:
    fail: float = 1e-3  # calibrate_bias.md: from a ratio of 875 on both optimisers fail for every ReLU and GELU net
    loud: float = 1.0  # drawn.md: of 14 nets with louder patterns 1 trains, of 29 with fainter ones 4
    rounding: float = 1e-6  # ten times that of float32: what shows less was fed with constants
    distinct: float = 0.03  # the least share behind which no healthy model was seen, hidden layers and heads together


@rule(
    category="signal",
    needs=Needs.FORWARD | Needs.WEIGHTS,
    options=Options,
    message="only {spread} of the rms here depends on the input (from {first} on; at {before} it was {spread_before})",
    explains=("collapsed-inputs", "vanishing-signal", "vanishing-gradient", "exploding-gradient"),
)
def collapsed_inputs(context: Context, options: Options) -> Iterator[Suspicion]:
    distinct: dict[str, float] = {}
    collapsed: list[Layer] = []
    for layer in context.model.layers:
        spread = _spread(context, layer)
        if spread is None:
            continue
        if spread >= options.distinct:
            distinct[layer.name] = spread
        elif spread < options.fail and _passes_all(layer):
            collapsed.append(layer)
    for layer in collapsed[:1] if collapsed and (_spread(context, collapsed[0]) or 0.0) > options.rounding else ():
        before = [name for name in distinct if context.model.is_upstream(name, layer.name)]
        if before:
            last, scheme = collapsed[-1], "xavier_normal" if activations.get(layer.activation).bounded else "he_normal"
            data = {"spread": _spread(context, last) or 0.0, "first": layer.name, "threshold": options.fail}
            data |= {"before": before[-1], "spread_before": distinct[before[-1]]}
            fix = _redrawn(layer, scheme) if layer.kind.is_map else None
            loud = context.signals.layers[last.name].rms >= options.loud
            yield Suspicion(last, Severity.ERROR if loud else Severity.WARNING, data, fix)


def _redrawn(layer: Layer, scheme: str) -> Fix:
    """Its weights, and its bias, which may be the common pattern."""
    weight = Reinit(layer.weight.address, scheme)
    return weight if layer.bias is None else Several((weight, Fill(layer.bias.address, 0.0)))


def _passes_all(layer: Layer) -> bool:
    """No way leads around it, it is no end, and no norm takes away again what its values have in common."""
    centred = layer.norm_after in (Kind.BATCH_NORM, Kind.INSTANCE_NORM)
    return not (layer.bypassed or Use.OUTPUT in layer.uses or centred)


def _spread(context: Context, layer: Layer) -> float | None:
    """Input-dependent share of the layer's rms; None where nothing was measured, or nothing is there at all.

    What is learnt, as queries are, differs from place to place and is the same for every input."""
    signal, weight = context.signal(layer), context.stats.get(layer.weight.address)
    if layer.learnt_input or signal is None or weight is None or weight.all_zero or signal.samples < 2:
        return None
    if not (math.isfinite(signal.std) and 0.0 < signal.rms < math.inf):
        return None
    if layer.dead_below is not None and layer.norm_after is None:  # units that are off pass no pattern on
        on = [n for n, highest in enumerate(signal.unit_max) if highest > layer.dead_below]
        power = sum(signal.unit_mean[n] ** 2 + signal.unit_std[n] ** 2 for n in on)
        return math.sqrt(sum(signal.unit_std[n] ** 2 for n in on) / power) if power > 0 else None
    return signal.std / signal.rms
