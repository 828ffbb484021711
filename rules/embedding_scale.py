"""A table that is also the output layer is so large that the first predictions are certain, and wrong.

## Why it matters

`nn.Embedding` draws from N(0, 1). As a table in front of a normalisation that is harmless. Where the same tensor maps
back to the vocabulary, behind a last normalisation of size 1, it gives logits of size sqrt(width): a softmax that is
sure of one word, and a loss of about half their variance instead of the logarithm of the vocabulary. BERT and GPT-2
draw with a std of 0.02 for this reason, T5 divides the states by sqrt(width) instead.

What counts are the measured logits, so that factors in front of the head are taken into account; without a probe they
are predicted for states of size 1.

## Example

    self.tokens = nn.Embedding(50257, 768)
    self.head.weight = self.tokens.weight        # logits of size 28

## Fix

`nn.init.normal_(self.tokens.weight, std=0.02)`, or divide the states in front of the head by sqrt(width).

## References

- Press & Wolf 2017 (arXiv:1608.05859); Radford et al. 2019 (GPT-2), std 0.02; huggingface/transformers#16749
- `benchmarks/results/calibrate_scale.md`, only the head scaled
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import Context, Kind, Layer, Needs, Reinit, Severity, Suspicion, Use, rule


@dataclass(frozen=True)
class Options:
    logits: float = 10.0  # calibrate_scale.md, only the head: SGD fails for 7 of 17 nets from 10 to 30, 2 of 10 below


@rule(
    category="scale",
    needs=Needs.WEIGHTS,
    uses=Needs.FORWARD,
    options=Options,
    message="table and output layer in one, with rows of rms {rms}: logits start at {logits} ({how})",
    explains=("exploding-signal",),
    overrides=("variance-mismatch",),
)
def embedding_scale(context: Context, options: Options) -> Iterator[Suspicion]:
    tables = {layer.weight.address for layer in context.model.layers if layer.kind is Kind.EMBEDDING}
    for head in context.model.layers:
        if head.kind is not Kind.LINEAR or head.weight.address not in tables or Use.OUTPUT not in head.uses:
            continue
        stats = context.stats.get(head.weight.address)
        if stats is None:
            continue
        rms = math.sqrt(stats.mean_square)
        logits, how = _logits(context, head, rms)
        if logits >= options.logits:
            data = {"rms": rms, "logits": logits, "how": how}
            yield Suspicion(head.weight, Severity.WARNING, data, Reinit(head.weight.address, "normal", 0.02))


def _logits(context: Context, head: Layer, rms: float) -> tuple[float, str]:
    signal = context.signal(head)
    if signal is not None and math.isfinite(signal.rms):
        return signal.rms, "measured"
    return rms * math.sqrt(head.fan_in or 1), "predicted"
