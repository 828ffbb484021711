"""Gates that start shut hold back all of the signal, and with it the gradient that would open them.

## Why it matters

A sigmoid that multiplies the signal lets 5e-5 of it through if its bias is -10, and as little of the gradient comes
back: to what it multiplies, and to the bias that would have to grow. What follows sees the same for every input. SGD
gets nowhere from a hundredth on; Adam's steps do not shrink with the gradient, so that it may open a single gate of
1e-5 in the end, but nothing opens two of them one behind the other.

Judged is what arrives where all of the signal has to pass next, so that a way around the gate makes it harmless: a skip
connection, a highway's carry gate, the other experts. A normalisation behind the gate makes up for the scale. Counted
are gates of every spelling: GLUs, squeeze and excitation, step sizes behind a softplus, an LSTM's input and output
gates, a GRU's update gate, the sigmoid of a parameter. A small factor that is learned as it stands (LayerScale, ReZero)
grows at the first step and is none.

A gate of 1e-12 never opens, be there a way around it or not: its bias does not move by a bit.

## Example

    nn.init.constant_(self.gate.bias, -20.0)
    x = self.value(x) * torch.sigmoid(self.gate(x))     # no skip connection

## Fix

A bias of zero, or of -1 to -3 where a way around the gate exists.

## References

- Srivastava et al. 2015 (arXiv:1505.00387), section 4.1: biases of -1 to -4, beside a carry gate that is open
- Dauphin et al. 2017 (arXiv:1612.08083), section 3: the gradient through gated linear units
- `benchmarks/results/calibrate_gates.md`: what trains at which openness
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from initlint.plugin import Context, Gate, Needs, Several, Severity, Suspicion, held_back, rule, shut

from .non_finite_weights import SIGNAL_RULES


@dataclass(frozen=True)
class Options:
    warn: float = 1e-3  # calibrate_gates.md: below, SGD fails in all nets and Adam is slow in five of 7 (to 1e-4)
    fail: float = 1e-7  # calibrate_gates.md: below, both optimisers fail in all of 60 nets; above, Adam trains some
    # A gradient of g moves a bias b of 27 (a sigmoid of 1e-12) by at most 1e-2 g / 1e-8 with Adam (rate 1e-2, Kingma &
    # Ba 2015, epsilon 1e-8), which float32 rounds away below b 2^-24. calibrate_gates.md: below, none ever moves
    final: float = 1e-12


@rule(
    category="signal",
    needs=Needs.FORWARD | Needs.WEIGHTS,
    options=Options,
    message={
        "default": "this gate starts shut: it lets {openness} through, and {left} of the signal is left at {behind}",
        "several": "{gates} gates start shut: this one lets {openness} through, and {left} of the signal is left at "
        "{behind}",
        "part": "units of this gate start shut and cannot open: they let {openness} of signal and gradient through",
        "final": "this gate starts shut and cannot open: it lets {openness} through, and as much of the gradient",
    },
    explains=(*SIGNAL_RULES, "collapsed-inputs", "stuck-parameters"),
    overrides=("saturated-activations", "saturating-bias"),
)
def shut_gates(context: Context, options: Options) -> Iterator[Suspicion]:
    gates = shut(context.model, context.signals, context.stats)
    held = held_back(context.model, context.signals, context.stats, gates)
    if held is not None and held.left < options.warn:
        severity = Severity.ERROR if held.left < options.fail else Severity.WARNING
        data = {"left": held.left, "gates": len(held.gates), "behind": held.behind or "the outputs"}
        message = "several" if len(held.gates) > 1 else "default"
        yield _suspicion(held.first, severity, {**data, "threshold": options.warn}, held.gates, message)
    else:
        final = [gate for gate in gates if gate.alone and gate.openness < options.final]
        if final:
            first = next((gate for gate in final if gate.whole), final[0])
            severity = Severity.ERROR if first.whole else Severity.WARNING
            yield _suspicion(first, severity, {"gates": len(final)}, final, "final" if first.whole else "part")


def _suspicion(
    first: Gate, severity: Severity, data: Mapping[str, object], gates: Sequence[Gate], message: str
) -> Suspicion:
    """One for all ``gates``: a fault of many gates is rarely more than one line of code."""
    edits = tuple(dict.fromkeys(edit for gate in gates for edit in gate.edits))
    fix = edits[0] if len(edits) == 1 else Several(edits)
    return Suspicion(first.at, severity, {"openness": first.openness, **data}, fix, message)
