"""A batch norm's running statistics are nothing that a batch can have.

## Why it matters

In training mode the running mean and variance are written and never read: the network trains, and then answers nonsense
in evaluation. A negative variance gives NaN there, one of zero multiplies the channel by 1 / sqrt(eps), about 300. They
come from memory that nobody filled, from `nn.init.zeros_` over all buffers, and from weight loaders that mix up names.
The moving average forgets a wrong finite value in some dozens of steps, so that this is a warning; NaN stays for good
and is reported as non-finite-weights.

Mean 0 and variance 1 are what a fresh norm has. Single channels of variance zero are only noted: in trained
networks they belong to channels that are off. A `momentum` of 0 keeps a fresh norm at mean 0 and variance 1 through
all of training, so that evaluation runs a net that nobody has trained.

## Example

    for buffer in model.buffers():
        nn.init.zeros_(buffer)   # running_var: 0

## Fix

`nn.init.ones_(norm.running_var)`, `nn.init.zeros_(norm.running_mean)`, or `norm.reset_running_stats()`.

## References

- Ioffe & Szegedy 2015 (arXiv:1502.03167), section 3.1: statistics at inference
- torch.nn.modules.batchnorm `reset_running_stats`: mean 0, variance 1
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import (
    Advice,
    Context,
    Fill,
    Needs,
    Role,
    Severity,
    Suspicion,
    Tensor,
    WeightStats,
    named_role,
    rule,
)


@dataclass(frozen=True)
class Options:
    tiny: float = 1e-10  # far below every eps (1e-5 by default, 1e-3 in TensorFlow): eps alone decides the scale
    huge: float = 1e12  # 2^40, from which on no activation is sane; as in uninitialized-memory
    warn_share: float = 0.5  # trained networks have single channels that are off, not half of them


@rule(
    category="norm",
    needs=Needs.WEIGHTS,
    uses=Needs.FORWARD,
    options=Options,
    message={
        "negative": "a running variance of {least}: evaluation gives NaN",
        "default": "{count} of {units} running variances are zero: in evaluation eps alone scales these channels",
        "unmoved": "a momentum of 0 keeps mean 0 and variance 1 here: evaluation runs another net than training",
        "huge": "a {what} of {least}: in evaluation the channel is a constant",
    },
)
def bad_running_statistics(context: Context, options: Options) -> Iterator[Suspicion]:
    for address in context.signals.unmoved_statistics:
        yield Suspicion(
            address,
            Severity.WARNING,
            fix=Advice(address, f"momentum=0.1  # in {address.rpartition('.')[0]}"),
            message="unmoved",
            proven=True,
        )
    for tensor in context.model.tensors:
        stats = context.stats.get(tensor.address)
        if stats is not None and stats.count > stats.nan + stats.inf:
            role = named_role(tensor)
            if role in (Role.RUNNING_MEAN, Role.RUNNING_VARIANCE):
                yield from _judge(tensor, role is Role.RUNNING_VARIANCE, stats, options)


def _judge(tensor: Tensor, variance: bool, stats: WeightStats, options: Options) -> Iterator[Suspicion]:
    fix = Fill(tensor.address, 1.0 if variance else 0.0)
    if max(stats.max, -stats.min) >= options.huge:
        data = {"what": "running variance" if variance else "running mean", "least": max(stats.max, -stats.min)}
        yield Suspicion(tensor, Severity.WARNING, data, fix, "huge")
    elif variance and stats.min < 0:
        yield Suspicion(tensor, Severity.WARNING, {"least": stats.min}, fix, "negative")
    elif variance:
        tiny = sum(value <= options.tiny for value in stats.values)
        if tiny:
            severity = Severity.WARNING if tiny >= options.warn_share * len(stats.values) else Severity.NOTE
            yield Suspicion(tensor, severity, {"count": tiny, "units": len(stats.values)}, fix)
