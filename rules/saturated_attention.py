"""An attention looks at one position only, so that its queries and keys get no gradient.

## Why it matters

The rows of an attention's softmax start out nearly even where queries and keys have unit scale and their products are
divided by sqrt(width): every position gets some weight, and gradient. Logits of 10 and more make the softmax a choice
of one position, by chance, and its gradient vanishes: the queries and keys hardly learn, and the network keeps looking
where the draw pointed it.

Where none of the projections is too large, it is the architecture's own (no division by the root), and a note.
Measured is the entropy of the rows over the log of their length, without what a mask takes out. An attention between
fewer than four positions is left alone, and so is any other softmax: routers and tempered targets may be sharp.

## Example

    nn.init.normal_(self.query.weight)   # std 1 at width 512: logits of rms 500
    scores = q @ k.transpose(-2, -1)     # or the division by sqrt(width) is missing

## Fix

`nn.init.xavier_normal_` for both projections; divide the logits by the root of the head's width. A learned scale or
bias between them and the softmax starts at order one; of an exponentiated scale the logarithm does.

## References

- Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.1: why the products are scaled
- Zhai et al. 2023 (arXiv:2303.06296): attention entropy collapse
- `benchmarks/results/calibrate_bias.md`: nets by the entropy of their attentions
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from initlint.plugin import (
    Context,
    Fill,
    Fix,
    Layer,
    Model,
    Needs,
    Reinit,
    Several,
    Severity,
    Suspicion,
    Tensor,
    Use,
    expected_gain,
    rule,
    tame_all,
)


@dataclass(frozen=True)
class Options:
    warn: float = 0.15  # calibrate_bias.md, bare: SGD fails there and Adam is slow; healthy models: above 0.7
    shortest: float = 4.0  # rows of two or three entries are certain by chance: three normal logits of std 3 often are
    far: float = 4.7  # ln 100 = 4.6: where CLIP and Swin v2 clamp the logarithm of the scale of their logits
    loud: float = 2.0  # a projection of more than twice the gain of its scheme is to blame; He and Xavier differ by 1.4


@rule(
    category="signal",
    needs=Needs.FORWARD | Needs.WEIGHTS,
    options=Options,
    message="the attention at {place} starts out certain: its rows have {entropy} of the entropy of even ones "
    "({certain} of them give one of {length} positions all)",
    explains=("stuck-parameters", "vanishing-gradient"),
)
def saturated_attention(context: Context, options: Options) -> Iterator[Suspicion]:
    for place, softmax in context.signals.softmaxes.items():
        if not softmax.attention or softmax.length < options.shortest or softmax.entropy >= options.warn:
            continue
        makers = [context.model.layer(name) for name in softmax.layers]
        makers = [layer for layer in makers if {Use.PRODUCT, Use.SOFTMAX} <= layer.uses]
        data = {
            "place": place,
            "entropy": softmax.entropy,
            "certain": softmax.certain,
            "length": softmax.length,
            "threshold": options.warn,
        }
        at, fix = _blame(context, makers, softmax.joining, options)
        severity = Severity.NOTE if isinstance(at, Model) or at in makers else Severity.WARNING
        yield Suspicion(at, severity, data, fix)


def _blame(
    context: Context, makers: list[Layer], joining: Sequence[str], options: Options
) -> tuple[Tensor | Layer | Model, Fix | None]:
    """The loudest of its projections; the fix draws all of them anew. Or what stands between these and the softmax."""
    gains = {layer.name: _gain(context, layer) for layer in makers}
    far = tame_all(context.model, context.stats, joining, options.far)
    if far is not None and max(gains.values(), default=0.0) <= options.loud:
        return context.model.tensor(far.tensor) or context.model, far
    if not makers:
        return context.model, None
    edits = [edit for layer in makers for edit in _edits(context, layer)]
    loudest = max(makers, key=lambda layer: gains[layer.name])
    at = loudest.weight if gains[loudest.name] > options.loud else loudest
    return at, edits[0] if len(edits) == 1 else Several(tuple(edits))


def _gain(context: Context, layer: Layer) -> float:
    """How much louder than its input it is, a norm than 1."""
    stats = context.stats.get(layer.weight.address)
    if stats is None:
        return 0.0
    return math.sqrt(stats.mean_square) if layer.kind.is_norm else expected_gain(layer, stats)


def _edits(context: Context, layer: Layer) -> Iterator[Reinit | Fill]:
    address = layer.weight.address
    yield Fill(address, 1.0) if layer.kind.is_norm else Reinit(address, "xavier_normal")
    bias = context.stats.get(layer.bias.address) if layer.bias is not None else None
    signal = context.signal(layer)
    if layer.bias is not None and bias is not None and signal is not None and bias.mean_square > signal.std**2:
        yield Fill(layer.bias.address, 0.0)
