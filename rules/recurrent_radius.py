"""The recurrent weights are so large that a state takes off, or runs into saturation, within a few steps.

## Why it matters

A recurrence multiplies its state by the same matrix at every step. Its spectral radius says what becomes of the state:
weights drawn independently have one of sqrt(units) times their root mean square (the circular law), orthogonal ones and
multiples of the identity too; a mean adds units * |mean|. Above 2 or 3 a ReLU recurrence explodes and one with tanh
turns chaotic, within 8 steps. Gates take more: with LSTM and GRU it is 5 to 10.

Small radii are left alone. They only mean that the recurrence starts with a short memory; zero is a known start.

## Example

    nn.init.normal_(rnn.weight_hh_l0, std=1.0)   # 64 units: a radius of 8

## Fix

`nn.init.orthogonal_(rnn.weight_hh_l0)`, gate by gate where there are gates: a radius of 1.

## References

- Girko 1985; Tao & Vu 2010 (arXiv:0807.4898): the circular law
- Pascanu, Mikolov & Bengio 2013 (arXiv:1211.5063), section 2.1
- `benchmarks/results/calibrate_weights.md`, radius
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import Context, Kind, Layer, Liveness, Needs, Reinit, Severity, Suspicion, Tensor, rule

from .non_finite_weights import SIGNAL_RULES


@dataclass(frozen=True)
class Options:
    plain: float = 2.45  # calibrate_weights.md, tanh and ReLU recurrence: 2 trains, 3 fails; their geometric mean
    gated: float = 5.0  # calibrate_weights.md, LSTM: 3 trains, 5 is slow
    gated_fails: float = 7.0  # calibrate_weights.md, LSTM: 5 is slow, 10 fails; their geometric mean
    steps: int = 8  # the shorter sequences of calibrate_weights.py; over fewer steps less adds up


@rule(
    category="scale",
    needs=Needs.WEIGHTS,
    uses=Needs.FORWARD | Needs.LIVENESS,
    options=Options,
    message="recurrent weights have a spectral radius of about {radius} (limit {limit} for {kind}) over {steps} steps",
    explains=SIGNAL_RULES,
    overrides=("variance-mismatch",),
)
def recurrent_radius(context: Context, options: Options) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        tensor = layer.recurrent
        if tensor is None or not tensor.trainable or context.liveness(tensor) is Liveness.FROZEN:
            continue
        (radius, by_mean), plain = _radius(context, tensor), layer.kind is Kind.RNN
        limit = options.plain if plain else options.gated
        if not limit <= radius < math.inf:
            continue
        steps = _steps(context, layer)
        lonely = layer.bypassed and by_mean  # a shortcut leads the rest around that one direction
        fails = (plain or radius >= options.gated_fails) and not lonely
        severity = Severity.ERROR if fails else Severity.WARNING
        if 0 < steps < options.steps:
            severity = Severity.NOTE
        data = {"radius": radius, "limit": limit, "kind": str(layer.kind), "steps": steps or "unknown"}
        yield Suspicion(tensor, severity, data, Reinit(tensor.address, "orthogonal"))


def _radius(context: Context, tensor: Tensor) -> tuple[float, bool]:
    """Of the gate where it is largest, and whether it is that of the mean: of a single direction."""
    gates = [stats for each in tensor.part_addresses if (stats := context.stats.get(each)) is not None]
    units = tensor.view.fan_in
    along = max((abs(gate.mean) * units for gate in gates), default=0.0)
    across = max((gate.std * math.sqrt(units) for gate in gates), default=0.0)
    return max(along, across), along > across


def _steps(context: Context, layer: Layer) -> int:
    """Length of the sequence that the probe used; 0 where it is not known."""
    signal = context.signal(layer)
    return 0 if signal is None else signal.samples // max(1, context.signals.batch * max(1, context.signals.runs))
