"""An LSTM's forget gates start half open, or shut.

## Why it matters

The forget gate multiplies the cell's state at every step. With a bias of zero it is about 0.5, so that a state has lost
99.9 % after ten steps, and so has the gradient: what lies farther back is learnt late or never. A bias of 1 (a gate of
0.73), or of the log of the length to be remembered, is the usual start. On short sequences it makes no difference,
hence a note.

At a bias of -3 a state does not outlive a step or two. Nor does the gradient that would open the gate: what came three
steps before is learnt late by Adam and never by SGD, hence a warning. Such biases are mostly meant for another gate, or
in another order than PyTorch's i, f, g, o. Judged is the sum of both biases, and only if it is the same for all units
but for what frameworks draw.

## Example

    nn.LSTM(64, 64)   # both biases within 1 / sqrt(64) of zero

## Fix

    lstm.bias_ih_l0.data[hidden : 2 * hidden] = 1.0   # PyTorch's order is i, f, g, o

## References

- Gers et al. 2000, Learning to forget; Jozefowicz et al. 2015, section 5: "set it to 1"
- Tallec & Ollivier 2018 (arXiv:1804.11188), chrono initialisation; pytorch/pytorch#750
- `benchmarks/results/calibrate_memory.md`: what an LSTM remembers, by its bias
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import Context, Fill, Fix, Kind, Needs, Several, Severity, Suspicion, Tensor, WeightStats, rule


@dataclass(frozen=True)
class Options:
    usual: float = 0.5  # half of the idiom's 1; the gate is then 0.62
    shut: float = -3.0  # calibrate_memory.md: from here on Adam is slow and SGD fails to remember three steps
    largest: float = 1.0  # of the deviations over units: torch draws both within 1 / sqrt(hidden), std at most 0.8


@rule(
    category="bias",
    needs=Needs.WEIGHTS,
    options=Options,
    message="the forget gates start at {gate}: after ten steps {left} of a state is left (a bias of 1 is usual)",
)
def forget_gate_bias(context: Context, options: Options) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        biases = tuple(each for each in (layer.bias, layer.recurrent_bias) if each is not None)
        found = [_forget(context, each) for each in biases]
        gates = [each for each in found if each is not None]
        if layer.kind is not Kind.LSTM or len(gates) < len(biases) or not gates:
            continue
        mean = sum(each.mean for each in gates)
        if mean < options.usual and math.hypot(*(each.std for each in gates)) < options.largest:
            gate = 1.0 / (1.0 + math.exp(-max(mean, _LEAST)))
            severity = Severity.WARNING if mean <= options.shut else Severity.NOTE
            yield Suspicion(f"{biases[0].address}[f]", severity, {"gate": gate, "left": gate**10}, _open(biases))


_LEAST = -700.0
"""Whose exponential a double holds."""


def _forget(context: Context, tensor: Tensor) -> WeightStats | None:
    return context.stats.get(f"{tensor.address}[f]") if "f" in tensor.parts else None


def _open(biases: tuple[Tensor, ...]) -> Fix:
    """The first one opens the gates; what is added to it leaves them as they are."""
    return Several(tuple(Fill(f"{each.address}[f]", float(each is biases[0])) for each in biases))
