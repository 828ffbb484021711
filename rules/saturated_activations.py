"""The units in front of a bounded non-linearity sit where it is flat, so almost no gradient comes back through it.

## Why it matters

tanh and the sigmoid are flat away from zero: at |z| = 3 tanh's slope is a hundredth of its steepest, at |z| = 6 the
sigmoid's. A layer whose inputs lie out there, because its weights or biases are large, answers every sample with the
same extreme values and hardly learns, and neither does anything before it.

A single tanh layer with nine saturated values of ten is merely slow. Where all layers of a stretch have large weights a
tenth is too much: a few values decide everything, and small differences grow faster than the signal.

At an output tanh half of the values are enough: nothing else passes the loss on. Sigmoids there are left alone (a
logarithm in the loss undoes them), as are priors in biases. Gates and what has nothing to learn before it get a note.

## Example

    nn.init.constant_(self.fc1.bias, 10.0)   # x = torch.sigmoid(self.fc1(x)): 0.99995 for every input

## Fix

Zero the bias, or draw the weights by `nn.init.xavier_normal_`.

## References

- Glorot & Bengio 2010, section 3: saturation of sigmoid and tanh layers
- Poole et al. 2016 (arXiv:1606.05340): chaos in deep tanh nets
- `benchmarks/results/calibrate_scale.md` and `calibrate_gradient.md`: nets by saturated share and by growth
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import (
    Context,
    Fix,
    Layer,
    LayerSignal,
    Needs,
    PlainPath,
    Severity,
    Suspicion,
    Use,
    held_flat,
    maps_up_to,
    perturbation_growth,
    plain_paths,
    redrawn,
    rule,
)


@dataclass(frozen=True)
class Options:
    warn: float = 0.5  # calibrate_scale.md: about where tanh nets begin to fail (6 of 9 between 0.4 and 0.5)
    fail: float = 0.98  # calibrate_scale.md: above, 0 of 8 tanh nets train
    chain_warn: float = 10.0  # calibrate_gradient.md, spread: above 10 all of 31 tanh and sigmoid nets fail
    chain_fail: float = 20.0  # twice that; between 5 and 10 half of 8 nets still learn, if two of them slowly
    in_chain: float = 0.1  # calibrate_gradient.md: the least share at which a chain of that growth was seen to fail
    output: float = 0.5  # calibrate_breadth.md, outputs of tanh: from 0.5 on all of 45 nets fail with both optimisers
    mean_share: float = 0.5  # a bias is to blame if it alone brings the average unit half of the way to the flat part


@rule(
    category="signal",
    needs=Needs.FORWARD | Needs.WEIGHTS,
    uses=Needs.LIVENESS,
    options=Options,
    message={
        "default": "{share} of the values in front of {activation} lie where it is flat (outside {low} to {high})",
        "chain": "{share} of the values in front of {activation} lie where it is flat (outside {low} to {high}), "
        "and along its {depth} layers differences grow {growth} times as much as the signal",
    },
    explains=("vanishing-signal", "saturated-activations", "vanishing-gradient", "exploding-gradient"),
)
def saturated_activations(context: Context, options: Options) -> Iterator[Suspicion]:
    paths = {layer.name: path for path in plain_paths(context.model, context.signals) for layer in path.hidden}
    known: dict[PlainPath, float] = {}
    for layer in context.model.layers:
        flat = layer.flat
        signal = context.signal(layer)
        if flat is None or signal is None or layer.norm_after is not None:
            continue
        if Use.OUTPUT in layer.uses:
            yield from _at_output(context, layer, signal, flat, options)
            continue
        growth, path = 0.0, paths.get(layer.name)
        if path is not None and signal.saturated >= options.in_chain:
            growth = known[path] = known.get(path) or perturbation_growth(path, context.stats, context.signals)
        chained = growth >= options.chain_warn
        if not (chained or signal.saturated >= options.warn):
            continue
        fails = growth >= options.chain_fail or (signal.saturated >= options.fail and not layer.bypassed)
        harmless = (Use.PRODUCT in layer.uses and Use.LAYER not in layer.uses) or not context.learns_until(layer)
        severity = Severity.NOTE if harmless else Severity.ERROR if fails else Severity.WARNING
        fix: Fix | None
        at, fix = held_flat(context.model, context.stats, layer, signal, options.mean_share * min(map(abs, flat)))
        if chained and path is not None and at is layer.weight and _is_common(context, path, options):
            fix = redrawn(context.model, path.hidden)
        data = {"share": signal.saturated, "activation": layer.activation, "low": flat[0], "high": flat[1]}
        if path is not None:
            data |= {"growth": growth, "depth": len(path)}
        yield Suspicion(at, severity, {**data, "rms": signal.rms}, fix, "chain" if chained else "default")


def _is_common(context: Context, path: PlainPath, options: Options) -> bool:
    """Whether more than a single layer of the path is to blame."""
    return sum(s is not None and s.saturated >= options.in_chain for s in map(context.signal, path.hidden)) > 1


def _at_output(
    context: Context, layer: Layer, signal: LayerSignal, flat: tuple[float, float], options: Options
) -> Iterator[Suspicion]:
    at, _ = held_flat(context.model, context.stats, layer, signal, options.mean_share * min(map(abs, flat)))
    if at is layer.weight and signal.saturated >= options.output and layer.activation in ("tanh", "hard-tanh"):
        data = {"share": signal.saturated, "activation": layer.activation, "low": flat[0], "high": flat[1]}
        fix = redrawn(context.model, maps_up_to(context.model, layer), context.stats)
        yield Suspicion(at, Severity.ERROR, {**data, "rms": signal.rms}, fix)
