"""The first loss is far above that of a guess.

## Why it matters

Even probabilities over C classes cost ln C. Where the head's weights are too large the softmax starts out certain, and
mostly wrong. Training first has to shrink the logits, and with SGD often does not survive the first gradients.

It is judged where the logits are known: the model ends in a softmax, names its output `logits`, or comes with its loss.
A loss is taken for a cross-entropy if outputs of zero cost ln C. Less than ln C, as with a focal prior, is fine.

## Example

    self.lm_head = nn.Linear(512, vocabulary, bias=False)
    nn.init.normal_(self.lm_head.weight, std=1.0)   # logits of rms 23, first loss about 100 instead of 10

## Fix

Draw the head smaller: `nn.init.normal_(self.lm_head.weight, std=512 ** -0.5)` or less, or start it at zero.

## References

- huggingface/transformers#16749: T5's first loss of 110 where 11 is right
- Karpathy 2019, A recipe for training neural networks: "verify loss @ init"
- Derrida 1981, random energy model; `benchmarks/results/calibrate_scale.md`: nets by the size of their logits
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import (
    Context,
    Fill,
    Fix,
    Layer,
    LayerSignal,
    Model,
    Needs,
    Severity,
    Suspicion,
    Tensor,
    Use,
    fresh,
    measured_gain,
    rule,
)


@dataclass(frozen=True)
class Options:
    warn: float = 30.0  # nats; calibrate_scale.md, heads: logits of rms 20 (ten classes) begin to cost SGD, then Adam
    fail: float = 1e4  # nats; calibrate_scale.md, logits: with an rms of 1e4 and more 0 of 26 nets train
    blamed: float = 3.0  # a head that is louder than its input by this much is to blame itself; as in variance-mismatch


@rule(
    category="signal",
    needs=Needs.FORWARD,
    uses=Needs.WEIGHTS | Needs.BACKWARD,
    options=Options,
    message={
        "default": "the first cross-entropy is {loss}, where even probabilities over {classes} classes cost {even}",
        "nan": "the given loss starts at {loss}, although all outputs are finite",
    },
)
def initial_loss(context: Context, options: Options) -> Iterator[Suspicion]:
    start, outputs = context.signals.loss_start, context.signals.outputs.values()
    if start is not None and not math.isfinite(start.value) and all(each.nonfinite == 0 for each in outputs):
        yield Suspicion(context.model, Severity.ERROR, {"loss": start.value}, message="nan", proven=True)
        return
    for heads, excess, classes in _excesses(context):
        if excess < options.warn:
            continue
        at, fix = _blame(context, heads, options)
        even = math.log(classes)
        data = {"loss": even + excess, "classes": classes, "even": even, "excess": excess, "threshold": options.warn}
        yield Suspicion(at, Severity.ERROR if excess >= options.fail else Severity.WARNING, data, fix)


def _excesses(context: Context) -> Iterator[tuple[list[Layer], float, int]]:
    """(layers that make the logits, nats above even probabilities, classes), by the surest of the three ways."""
    signals, outlets = context.signals, [layer for layer in context.model.layers if Use.OUTPUT in layer.uses]
    if signals.loss_start is not None and signals.loss_start.classes:
        start = signals.loss_start
        yield outlets, start.value / start.terms - math.log(start.classes), start.classes
        return
    for end in (ends := [each for each in signals.softmaxes.values() if each.at_output and not each.attention]):
        yield [context.model.layer(name) for name in end.layers], end.excess, round(end.length)
    logits = signals.outputs.get("logits")
    maps = [layer for layer in outlets if layer.kind.is_map and context.signal(layer) is not None]
    if logits is not None and len(maps) == 1 and not ends:
        classes = maps[0].weight.view.groups * maps[0].weight.view.units
        if classes > 1:
            yield maps, _expected(logits, classes), classes


def _expected(logits: LayerSignal, classes: int) -> float:
    """E[log mean exp] - E[mean] of independent normal logits: s^2 / 2, above s = sqrt(2 ln C) that of the largest."""
    spread = math.sqrt(max(0.0, logits.rms**2 - logits.mean**2))
    edge = math.sqrt(2.0 * math.log(classes))
    return spread**2 / 2.0 if spread < edge else spread * edge - math.log(classes)


def _blame(context: Context, heads: list[Layer], options: Options) -> tuple[Tensor | Layer | Model, Fix | None]:
    """The loudest head: its bias or its weight; the layer where it only hands on what it was given."""
    heads = [head for head in heads if context.signal(head) is not None]
    head = max(heads, key=lambda each: context.signals.layers[each.name].rms, default=None)
    if head is None:
        return context.model, None
    bias = context.stats.get(head.bias.address) if head.bias is not None else None
    if head.bias is not None and bias is not None and bias.std > context.signals.layers[head.name].std:
        return head.bias, Fill(head.bias.address, 0.0)
    if not head.kind.is_map:
        return head, None
    gain = measured_gain(context.model, head, context.signals) or 0.0
    return head.weight if gain >= options.blamed else head, fresh(context.model, head.weight)
