"""The gradient grows on its way back, so that the first layers are far more sensitive than the last.

## Why it matters

Some networks keep the scale of the signal and still tear it apart: close inputs end up far from each other. tanh layers
with large weights do so, and ReLU behind batch normalisation, by 1.2 per layer: the first layers then move everything.

Compared is how much the loss moves when a layer's weights change by a given share of their size, with the same for the
layer at the end: the scales of loss and signal, the batch and weights in front of a norm do not matter. It is one draw:
in narrow nets (64 units) another seed gives up to twice as much. Growth that one layer, used once, makes beside a norm
or shortcut is a warning, as is that of norms which divide by what equal or empty units do not differ by (`drawn.md`).

## Example

    layers = [nn.Sequential(nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU()) for _ in range(50)]
    nn.init.orthogonal_(rnn.weight_hh_l0, gain=4)

## Fix

Shortcuts, or fewer layers. In front of tanh, `nn.init.xavier_normal_`; for recurrences, `nn.init.orthogonal_`.

## References

- Philipp & Carbonell 2018 (arXiv:1806.00179): the nonlinearity coefficient, which this estimates
- Yang et al. 2019 (arXiv:1902.08129): with batch normalisation gradients grow by sqrt(pi / (pi - 1)) per ReLU layer
- He et al. 2016 (arXiv:1512.03385): plain nets of 34 layers still train behind batch normalisation, if worse
- Balduzzi et al. 2017 (arXiv:1702.08591): shattered gradients; Poole et al. 2016 (arXiv:1606.05340): chaos in tanh nets
- `benchmarks/results/calibrate_gradient.md`: what trains at which growth; `zoo_growth.md`: growth of healthy nets
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from initlint.plugin import (
    Context,
    Layer,
    Needs,
    Sensitivity,
    Severity,
    Suspicion,
    divided_by_nothing,
    redrawn,
    rule,
    sensitivities,
)


@dataclass(frozen=True)
class Options:
    # calibrate_gradient.md: above a growth of 10 none of 27 chains without normalisation trains
    warn: float = 20.0  # twice that: seeds of narrow nets differ by up to two
    fail: float = 50.0  # five times that
    # zoo_growth.md: published nets reach 710 (Inception v3), though above 50 none of 26 normalised chains trains
    normed_warn: float = 1000.0  # above those, and above 1.21^33 = 540 of a plain net of 34 layers (He et al. 2016)
    normed_fail: float = 10000.0  # a decade more: about 48 ReLU layers behind batch normalisation
    # calibrate_gradient.md: above a growth per step of 1 none of 27 recurrences trains; from 0.3 to 1 five of 20 do
    recurrent_warn: float = 2.0  # twice that, as above
    recurrent_fail: float = 5.0  # five times that
    outlier: float = 10.0  # as in vanishing-signal: a step of ten times the others' median is one layer's own


@rule(
    category="gradient",
    needs=Needs.BACKWARD,
    options=Options,
    message={
        "default": "its weights move the loss {ratio} times as much as those of {outlet}, {depth} layers on: "
        "gradients grow by about {per_layer} per layer{basis}",
        "recurrent": "its weights move the loss {ratio} times as much per step as those of {outlet}: "
        "gradients grow from step to step{basis}",
        "single": "its weights move the loss {ratio} times as much as those of {outlet}, {step} times as much as those "
        "of any layer between: the growth comes from here{basis}",
    },
    explains=("exploding-gradient", "vanishing-gradient"),
)
def exploding_gradient(context: Context, options: Options) -> Iterator[Suspicion]:
    known = list(sensitivities(context.model, context.signals))
    fail = Severity.ERROR, options.fail, options.normed_fail, options.recurrent_fail
    warn = Severity.WARNING, options.warn, options.normed_warn, options.recurrent_warn
    for severity, plain, normed, recurrent in (fail, warn):
        judged = ((each, _limit(each, plain, normed, recurrent)) for each in known)
        found, threshold = next(((each, limit) for each, limit in judged if each.per_use >= limit), (None, 0.0))
        if found is None:
            continue
        basis = {"outlet": found.outlet.name, "threshold": threshold, "basis": found.basis}
        if (single := _single(known, found, threshold, options.outlier)) is not None:
            layer, ratio, step = single
            own = ratio >= options.outlier and (layer.calls > 1 or not (layer.bypassed or found.normalised))
            told, fix = severity if own else Severity.WARNING, redrawn(context.model, [layer])
            yield Suspicion(layer.weight, told, basis | {"ratio": ratio, "step": step}, fix, "single")
        else:
            told = Severity.WARNING if divided_by_nothing(context.model, context.stats, found.layers) else severity
            data = basis | {"ratio": found.per_use, "depth": found.depth, "per_layer": found.per_layer}
            message = "recurrent" if found.layer.kind.is_recurrent else "default"
            yield Suspicion(found.layer, told, data, redrawn(context.model, found.layers), message)
        return


def _single(
    known: Sequence[Sensitivity], first: Sensitivity, threshold: float, outlier: float
) -> tuple[Layer, float, float] | None:
    """The layer that alone makes the loss so sensitive, how much so, and how much more than all behind it."""
    names = {layer.name for layer in first.layers}
    chain = [each for each in known if each.layer.name in names]
    steps, behind, depth = [], 1.0, 1
    for each in reversed(chain):  # in files, where not every layer is measured, a step may span several
        steps.append((each.per_use / behind) ** (1 / max(1, each.depth - depth)))
        behind, depth = max(behind, each.per_use), each.depth
    largest = max(steps)
    culprit = chain[len(chain) - 1 - steps.index(largest)]
    others = sorted(steps)[:-1]
    alone = bool(others) and largest >= outlier * median(others) and first.per_use / largest < threshold
    return (culprit.layer, culprit.per_use, largest) if alone else None


def _limit(each: Sensitivity, plain: float, normed: float, recurrent: float) -> float:
    return normed if each.normalised else recurrent if each.layer.kind.is_recurrent else plain
