"""A known scheme, drawn with the wrong fans: those of another layout, or without the groups or the stride.

## Why it matters

Schemes divide by the number of inputs (or outputs) of one unit. PyTorch's `nn.init` counts them from the shape alone:
the fan-out of a grouped or depthwise convolution then counts the filters of all groups, the fans of a transposed
convolution are swapped, and a kernel drawn as (height, width, in, out) and permuted afterwards has neither. Each such
layer is off by a constant factor, and along a stretch without normalisation the factors multiply.

What is judged is their product along such a stretch: a warning where it starves or floods the signal, else a note.
Nothing is said in front of a normalisation, about packed projections, and about what PyTorch draws by default.

## Example

    conv = nn.Conv2d(256, 256, 3, groups=256)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out")   # counts 256 * 9 outputs per input; there are 9

## Fix

`nn.init.normal_(conv.weight, std=math.sqrt(2 / (9 * conv.in_channels // conv.groups)))`, that is he_normal with the
layer's own fans.

## References

- He et al. 2015 (arXiv:1502.01852), section 2.2; huggingface/pytorch-image-models#84, pytorch/pytorch#23854
- Lasagne/Lasagne#858: swapped fans of transposed convolutions
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import (
    Context,
    Fix,
    Layer,
    Needs,
    Several,
    Severity,
    Suspicion,
    fresh,
    misfit,
    plain_paths,
    rule,
)

from .non_finite_weights import SIGNAL_RULES


@dataclass(frozen=True)
class Options:
    loud: float = 5.0  # benchmarks/results/bugs.md, transposed convolution's fan: a decoder 8 times too loud fails
    quiet: float = (
        1 / 30
    )  # benchmarks/results/bugs.md, grouped fan: 1/64 stops SGD; calibrate_scale.md: 0.03 for one layer
    noticed: float = 1.4  # a factor of 2 in variance, the gain between LeCun's and He's scheme: no note below it


@rule(
    category="scale",
    needs=Needs.WEIGHTS,
    uses=Needs.FORWARD,
    options=Options,
    message={
        "default": "{scheme} with other fans than the layer's own ({fan_in} in, {fan_out} out): {gain} times its scale",
        "path": "{scheme} with other fans than the layer's own ({fan_in} in, {fan_out} out): {gain} times its scale, "
        "{total} times along {layers} such layers",
    },
    explains=SIGNAL_RULES,
)
def fan_mismatch(context: Context, options: Options) -> Iterator[Suspicion]:
    for path in plain_paths(context.model, context.signals):
        wrong = [(layer, *found) for layer in path.layers if (found := _wrong(context, layer)) is not None]
        total = math.prod(gain for _, _, gain in wrong)
        harmful = context.model.has_dataflow and (total >= options.loud or total <= options.quiet)
        fix = Several(tuple(fresh(context.model, layer.weight) for layer, _, _ in wrong)) if wrong else None
        for layer, scheme, gain in wrong:
            if harmful or max(gain, 1 / gain) >= options.noticed:
                yield _suspicion(layer, scheme, gain, harmful, total, len(wrong), fix)
    on_paths = {layer.name for path in plain_paths(context.model, context.signals) for layer in path.layers}
    for layer in context.model.layers:
        found = None if layer.name in on_paths else _wrong(context, layer)
        if found is not None and max(found[1], 1 / found[1]) >= options.noticed:
            alone = fresh(context.model, layer.weight)
            yield _suspicion(layer, *found, False, found[1], 1, alone)


def _wrong(context: Context, layer: Layer) -> tuple[str, float] | None:
    """(scheme, gain over what it should be) of a layer whose scale shows; None where its fans are right."""
    stats = context.stats.get(layer.weight.address)
    if stats is None or not layer.kind.is_map or not layer.weight.trainable or layer.norm_after is not None:
        return None
    found = None if layer.weight.computed else misfit(layer, stats)
    return None if found is None else (found.scheme, math.sqrt(found.factor))


def _suspicion(
    layer: Layer, scheme: str, gain: float, harmful: bool, total: float, layers: int, fix: Fix | None
) -> Suspicion:
    data = {"scheme": scheme, "fan_in": layer.fan_in or 0, "fan_out": layer.fan_out or 0, "gain": gain}
    severity = Severity.WARNING if harmful else Severity.NOTE
    message = "path" if layers > 1 else "default"
    return Suspicion(layer.weight, severity, {**data, "total": total, "layers": layers}, fix, message)
