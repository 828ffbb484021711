"""The gradient grows on its way back, so that the first layers are far more sensitive than the last.

## Why it matters

Some networks keep the signal at one scale and still tear it apart: close inputs end up far from each other. tanh layers
with large weights do so, and ReLU layers that a batch normalisation follows, by 1.2 per layer. Seen from the loss, the
first layers then move everything and the last ones nothing: a step that is small enough for the former is lost on the
latter, and the gradient of one example says nothing about the next one's.

Compared is how much the loss moves when a layer's weights change by a given share of their size, with the same for the
layer at the end. That has no unit: it depends neither on the scale of the loss nor on the size of the batch, nor on
weights in front of a normalisation; and a signal that grows or shrinks by itself, which `exploding-signal` and
`vanishing-signal` report, does not change it.

## Example

    for i in range(50):    # no shortcut around any of the layers
        layers += [nn.Linear(256, 256), nn.BatchNorm1d(256), nn.ReLU()]

    nn.init.orthogonal_(rnn.weight_hh_l0, gain=4)

## Fix

Shortcuts around the layers, or fewer layers. In front of tanh, `nn.init.xavier_normal_`; for recurrent weights,
`nn.init.orthogonal_`.

## References

- Philipp & Carbonell 2018 (arXiv:1806.00179): the nonlinearity coefficient, which this estimates
- Yang et al. 2019 (arXiv:1902.08129): with batch normalisation gradients grow by sqrt(pi / (pi - 1)) per ReLU layer
- Balduzzi et al. 2017 (arXiv:1702.08591): shattered gradients; Poole et al. 2016 (arXiv:1606.05340): chaos in tanh nets
- `benchmarks/results/calibrate_gradient.md`: what trains at which growth
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import (
    Advice,
    Context,
    Fix,
    Layer,
    Needs,
    Reinit,
    Severity,
    Suspicion,
    activations,
    rule,
    sensitivities,
)


@dataclass(frozen=True)
class Options:
    # calibrate_gradient.md: above a growth of 10 none of 27 chains without normalisation trains, nor of 14 recurrences
    warn: float = 20.0  # twice that, since the ratio varies with seed and batch
    fail: float = 100.0  # no net trains in any decade above
    # A normalised MobileNetV2 of growth 62 reaches 95 % on the same digits within 100 steps
    normed_warn: float = 300.0  # five times that
    normed_fail: float = 1000.0  # the next half of a decade: about 38 ReLU layers behind batch normalisation


@rule(
    category="gradient",
    needs=Needs.BACKWARD,
    options=Options,
    message={
        "default": "its weights move the loss {ratio} times as much as those of {outlet}, {depth} layers on: "
        "gradients grow by about {per_layer} per layer",
        "recurrent": "its weights move the loss {ratio} times as much per step as those of {outlet}: "
        "gradients grow from step to step",
    },
    explains=("exploding-gradient", "vanishing-gradient"),
)
def exploding_gradient(context: Context, options: Options) -> Iterator[Suspicion]:
    known = list(sensitivities(context.model, context.signals))
    limits = (
        (Severity.ERROR, options.fail, options.normed_fail),
        (Severity.WARNING, options.warn, options.normed_warn),
    )
    for severity, plain, normed in limits:
        first = next((each for each in known if each.per_use >= (normed if each.normalised else plain)), None)
        if first is not None:
            data = {
                "ratio": first.per_use,
                "outlet": first.outlet.name,
                "depth": first.depth,
                "per_layer": first.per_layer,
                "threshold": normed if first.normalised else plain,
            }
            message = "recurrent" if first.layer.kind.is_recurrent else "default"
            yield Suspicion(first.layer, severity, data, _fix(first.layer), message)
            return


def _fix(layer: Layer) -> Fix:
    """What makes the layer and its like milder."""
    if layer.recurrent is not None:
        return Reinit(layer.recurrent.address, "orthogonal")
    if activations.get(layer.activation).bounded and layer.norm_after is None:
        return Reinit(layer.weight.address, "xavier_normal")
    return Advice(layer.weight.address, "x = x + block(x)  # a shortcut around every few layers")
