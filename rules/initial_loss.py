"""The first loss is far above that of a guess.

## Why it matters

Even probabilities over C classes cost ln C. Where the head's weights are too large the softmax starts out certain, and
mostly wrong; a regression starts far outside the range of its targets. Training first has to shrink the outputs, and
with SGD often does not survive the first gradients.

It is judged where the logits are known: the model ends in a softmax, names its output `logits`, or comes with its loss.
A loss is taken for a cross-entropy if outputs of zero cost ln C; any other one is compared with what it says of them.

## Example

    self.lm_head = nn.Linear(512, vocabulary, bias=False)
    nn.init.normal_(self.lm_head.weight, std=1.0)   # logits of rms 23, first loss about 100 instead of 10

## Fix

Draw the head smaller: `nn.init.normal_(self.lm_head.weight, std=512 ** -0.5)` or less, or start it at zero. Where the
targets of a regression are small, scale them to a standard deviation of one.

## References

- huggingface/transformers#16749: T5's first loss of 110 where 11 is right
- Karpathy 2019, A recipe for training neural networks: "verify loss @ init"
- Derrida 1981, random energy model
- Zhang, Dauphin, Ma 2019, Fixup, arXiv:1901.09321: a head that starts at zero
- `benchmarks/results/`: `calibrate_scale.md` (nets by the size of their logits), `calibrate_regression.md`
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import Context, Layer, LayerSignal, Needs, Severity, Suspicion, heads, rule, to_blame


@dataclass(frozen=True)
class Options:
    warn: float = 30.0  # nats; calibrate_scale.md, heads: logits of rms 20 (ten classes) begin to cost SGD, then Adam
    fail: float = 1e4  # nats; calibrate_scale.md, logits: with an rms of 1e4 and more 0 of 26 nets train
    over: float = 100.0  # calibrate_regression.md: above, one of 386 trains in time (times the loss of zeros)
    lost: float = 1000.0  # calibrate_regression.md: above, all 232 fail
    blamed: float = 3.0  # a head that is louder than its input by this much is to blame itself; as in variance-mismatch


@rule(
    category="signal",
    needs=Needs.FORWARD,
    uses=Needs.WEIGHTS | Needs.BACKWARD,
    options=Options,
    message={
        "default": "the first cross-entropy is {loss}, where even probabilities over {classes} classes cost {even}",
        "over": "the first loss is {loss}, {ratio} times that of outputs that are all zero",
        "nan": "the given loss starts at {loss}, although all outputs are finite",
    },
)
def initial_loss(context: Context, options: Options) -> Iterator[Suspicion]:
    start, outputs = context.signals.loss_start, context.signals.outputs.values()
    if start is not None and not math.isfinite(start.value) and all(each.nonfinite == 0 for each in outputs):
        yield Suspicion(context.model, Severity.ERROR, {"loss": start.value}, message="nan", proven=True)
        return
    if start is not None and not start.classes and start.value >= options.over * start.at_zero > 0.0:
        yield _over(context, start.value, start.value / start.at_zero, options)
        return
    for loud, excess, classes in _excesses(context):
        if excess < options.warn:
            continue
        at, fix = to_blame(context.model, context.signals, context.stats, loud, options.blamed)
        even = math.log(classes)
        data = {"loss": even + excess, "classes": classes, "even": even, "excess": excess, "threshold": options.warn}
        yield Suspicion(at, Severity.ERROR if excess >= options.fail else Severity.WARNING, data, fix)


def _over(context: Context, loss: float, ratio: float, options: Options) -> Suspicion:
    quieter = math.sqrt(ratio / options.over)  # the outputs, if the loss is their squared error
    at, fix = to_blame(context.model, context.signals, context.stats, heads(context.model), options.blamed, quieter)
    data = {"loss": loss, "ratio": ratio, "threshold": options.over}
    return Suspicion(at, Severity.ERROR if ratio >= options.lost else Severity.WARNING, data, fix, message="over")


def _excesses(context: Context) -> Iterator[tuple[list[Layer], float, int]]:
    """(layers that make the logits, nats above even probabilities, classes), by the surest of the three ways."""
    signals, outlets = context.signals, heads(context.model)
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
