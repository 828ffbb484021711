"""A dropout with p = 1 drops everything in training, so that what it is applied to never learns.

## Why it matters

PyTorch's `p` is the share that is dropped; in older TensorFlow, and in many papers, it was the share that is kept.
`Dropout(1.0)`, meant to keep all, gives zeros in training: no gradient passes it. Evaluation shows nothing of that, as
dropout is off there.

## Example

    nn.Dropout(p=1.0)   # keeps nothing

## Fix

`nn.Dropout(p=0.0)`, or the share that is to be dropped.

## References

- PyTorch documentation of `torch.nn.Dropout`: p is the probability of an element to be zeroed
"""

from __future__ import annotations

from collections.abc import Iterator

from initlint.plugin import Advice, Context, Needs, Severity, Suspicion, rule


@rule(
    category="gradient",
    needs=Needs.LIVENESS,
    message={
        "default": "a dropout with p = 1 (in {place}) drops all in training, so it never learns",
        "several": "a dropout with p = 1 (in {place}) drops all in training, so it and {others} more tensors never "
        "learn",
    },
)
def total_dropout(context: Context, options: object) -> Iterator[Suspicion]:
    dropped, places = context.signals.dropped, context.signals.dropped_at
    if dropped:
        data = {"place": ", ".join(each or "the model" for each in places), "others": len(dropped) - 1}
        fix, message = Advice(dropped[0], "p=0.0  # the share that is dropped"), "several" if dropped[1:] else "default"
        yield Suspicion(dropped[0], Severity.ERROR, {**data, "tensors": list(dropped)}, fix, message, proven=True)
