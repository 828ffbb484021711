"""The noise that a model draws in training mode drowns its outputs, or makes them NaN.

## Why it matters

Noisy layers, stochastic depth written by hand and sampled gates are off in evaluation mode, in which a model is looked
at, and on in each step of training. A noise many times as large as what the weights say hides these from the
loss; a division by a keep probability of 0 gives NaN, and the first step spreads it over all weights.

initlint runs a model that draws numbers of its own twice in training mode, with dropout off, and compares the outputs
for the same inputs.

## Example

    self.sigma = nn.Parameter(torch.full((out, inn), 17.0))   # meant: 0.5 / math.sqrt(inn)
    x = x + branch(x) / keep * (torch.rand(len(x), 1) < keep)  # with keep = 0 in the last block

## Fix

Draw the noise in the size of the weights that it is added to: `sigma_0 / sqrt(fan_in)` with `sigma_0 = 0.5`. Where
something is divided by a probability, see that this is not 0.

## References

- `benchmarks/results/calibrate_faint.md`: MLPs by the size of their noise
- Fortunato et al. 2018 (arXiv:1706.10295), section 3.2: sigma of noisy layers starts at 0.5 / sqrt(fan_in)
- Huang et al. 2016 (arXiv:1603.09382), section 3: the survival probability of the last block is 0.5
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from initlint.plugin import Advice, Context, Fix, Needs, Severity, Suspicion, rule, tame


@dataclass(frozen=True)
class Options:
    fail: float = 20.0  # calibrate_faint.md: from 9 on 0 of 22 nets train, and at 1 all do


@rule(
    category="signal",
    needs=Needs.LIVENESS,
    uses=Needs.WEIGHTS,
    options=Options,
    message={
        "default": "the noise of training mode is {share} times as large as the outputs (threshold {threshold})",
        "tensors": "the noise of training mode is {share} times as large as the outputs (threshold {threshold}); "
        "{scales} are read in that mode only",
        "nan": "the outputs are not finite in training mode, and in that alone: {place} makes NaN or infinity of what "
        "is finite",
    },
)
def training_noise(context: Context, options: Options) -> Iterator[Suspicion]:
    noise, scales = context.signals.training_noise, context.signals.in_training
    if noise is None:
        return
    if noise.share == math.inf:
        place = {"place": noise.place or "the model itself"}
        yield Suspicion(context.model, Severity.ERROR, place, message="nan", proven=True)
    elif noise.share >= options.fail:
        found: dict[str, float | str] = {"share": noise.share, "threshold": options.fail}
        if not scales:
            yield Suspicion(context.model, Severity.ERROR, found, proven=True)
            return
        at, fix = _to_blame(context, scales)
        found["scales"] = ", ".join(scales[:_NAMED]) + (", ..." if len(scales) > _NAMED else "")
        yield Suspicion(at, Severity.ERROR, found, fix, message="tensors", proven=True)


_NAMED = 4
"""Tensors that the message names."""


def _to_blame(context: Context, scales: Sequence[str]) -> tuple[str, Fix | None]:
    """The largest of ``scales``, as far as they were looked at; what only training mode reads at all was not."""
    known = [address for address in scales if address in context.stats]
    if not known:
        return scales[0], Advice(scales[0], "0.5 / math.sqrt(fan_in)  # in the size of the weights beside it")
    at = max(known, key=lambda address: context.stats[address].mean_square)
    tensor = context.model.tensor(at)
    return at, None if tensor is None else tame(context.model, tensor, context.stats[at])
