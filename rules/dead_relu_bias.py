"""Biases are so negative that the ReLUs behind them never fire.

## Why it matters

A ReLU whose input is negative for every sample gives zero and passes no gradient back, so nothing can bring it back to
life. A bias of -1 in one layer of a shallow net is survivable, in a deep one it is not; a bias of -10 switches a layer
off.

A unit counts only if it is the bias that does it: its pre-activation stayed below zero over the whole probe batch,
would have risen above zero without the bias, and the bias is more than two standard deviations of what the weights can
contribute. Gates, outputs and normalised inputs of other kinds have biases of their own and are not looked at. Behind a
norm the bias is the norm's shift.

A bias within PyTorch's default bounds is not to blame: what holds the unit then are weights that are far too small.

A batch that does not reach a unit proves nothing of other batches: an error takes a whole layer that is off by four
deviations, with no gradient in any step of the probe; where a way leads around it, it has to be proven stuck.

## Example

    nn.init.constant_(self.fc1.bias, -10.0)   # x = torch.relu(self.fc1(x))

## Fix

`nn.init.zeros_(self.fc1.bias)`.

## References

- Lu et al. 2020, Dying ReLU and initialization (arXiv:1903.06733)
- facebookresearch/dlrm PR #358: a large negative bias killed the ReLUs
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import (
    Context,
    Fill,
    Layer,
    LayerSignal,
    Liveness,
    Needs,
    Severity,
    Suspicion,
    Use,
    WeightStats,
    activations,
    rule,
)


@dataclass(frozen=True)
class Options:
    deviations: float = 2.0  # a unit fires for under 2.3 % of samples (normal tail), for none of most probe batches
    certain_deviations: float = 4.0  # fires for under 0.003 % (normal tail): dead without needing a batch to say so
    warn_share: float = 0.5  # half of a layer off: Lu et al. 2020, section 4, count a net born dead by whole layers
    note_share: float = 0.1  # below this pruned or sparse codes look alike


@rule(
    category="bias",
    needs=Needs.WEIGHTS,
    uses=Needs.FORWARD | Needs.LIVENESS,
    options=Options,
    message="{dead} of {units} units are off for every input because of their bias (mean {bias})",
    explains=("dead-units", "vanishing-signal", "vanishing-gradient", "exploding-gradient"),
)
def dead_relu_bias(context: Context, options: Options) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        if layer.bias is None or layer.norm_after is not None or Use.PRODUCT in layer.uses:
            continue
        edge = layer.dead_below
        bias, weight = context.stats.get(layer.bias.address), context.stats.get(layer.weight.address)
        if edge is None or bias is None or weight is None or not bias.values:
            continue
        signal, spreads = context.signal(layer), _spreads(layer, weight)
        units, usual = len(bias.values), 1 / math.sqrt(layer.fan_in) if layer.fan_in else 0.0  # PyTorch's default bound
        share = _dead_units(bias, spreads, signal, edge, usual, options) / units
        if share < options.note_share:
            continue
        severity = Severity.WARNING if share >= options.warn_share else Severity.NOTE
        off = signal is not None and share >= options.warn_share and max(signal.unit_max) <= edge
        learns = context.liveness(layer.weight)
        if off and learns is not Liveness.LIVE and (not layer.bypassed or learns is Liveness.STUCK):
            certain = all(b < edge - options.certain_deviations * s for b, s in zip(bias.values, spreads, strict=True))
            severity = Severity.ERROR if certain else severity
        data = {"dead": round(share * units), "units": units, "share": share, "bias": bias.mean}
        yield Suspicion(layer.bias, severity, data, Fill(layer.bias.address, 0.0))


def _dead_units(
    bias: WeightStats, spreads: list[float], signal: LayerSignal | None, edge: float, usual: float, options: Options
) -> int:
    if len(spreads) != len(bias.values):
        return 0
    if signal is None or len(signal.unit_max) != len(bias.values):
        deviations = options.certain_deviations
        return sum(b < edge - max(deviations * s, usual) for b, s in zip(bias.values, spreads, strict=True))
    off = 0
    for b, s, top, spread in zip(bias.values, spreads, signal.unit_max, signal.unit_std, strict=True):
        fires_without = edge < top - b
        # what gets nothing, as behind a layer that is off itself, is judged as without a probe
        held = b < edge - max((options.deviations if fires_without else options.certain_deviations) * s, usual)
        off += top <= edge and held and (fires_without or spread == 0.0)
    return off


def _spreads(layer: Layer, weight: WeightStats) -> list[float]:
    """Standard deviation per unit for an input of unit scale: |w_u| sqrt(E[phi^2]), or a norm's |gain|."""
    if layer.kind.is_norm:
        return [abs(gain) for gain in weight.values]
    power = activations.get(layer.input_activation).standard_moments[1]
    scale = math.sqrt(max(1, layer.fan_in or 1) * power)
    rms = weight.unit_rms or weight.values
    return [abs(r) * scale for r in rms]
