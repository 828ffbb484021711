"""The outputs are so faint that no step of training moves them by anything.

## Why it matters

A head of zeros starts with outputs of zero, and one step later they differ. Not so where the forward itself multiplies
the outputs by 1e-6: steps of the usual size, a hundredth of each weight, then move them by less than a millionth. SGD
stands still, and Adam has to blow up all weights before the loss notices.

Measured are the gradients of a random sum of the outputs: what a step of a hundredth of each tensor's size along them
would change. It is not known what size the targets have; where these are as faint, divide both by their size.

A file holds too few gradients for this; modules alone are looked at.

## Example

    return self.head(x) * 1e-6   # a multiplier of outputs in the wrong unit

## Fix

Leave the multiplier out, or make it 1 over the width at most; normalise the targets of a regression.

## References

- `benchmarks/results/calibrate_faint.md`: MLPs by the size of their outputs
- Yang et al. 2022 (arXiv:2203.03466), table 3: output multipliers of 1 / width
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import Backward, Context, Loss, Needs, Severity, Suspicion, rule


@dataclass(frozen=True)
class Options:
    step: float = 1e-2  # of a tensor's size, as the steps of liveness
    moved: float = 1e-5  # calibrate_faint.md: from 5e-4 down Adam fails or is slow; healthy nets move by 4e-3 and more
    faint: float = 1e-3  # outputs above it may well be meant to stay where they are, as those of a saturated gate


@rule(
    category="signal",
    needs=Needs.BACKWARD,
    options=Options,
    message="no step moves the outputs: one of {step} of the size of each tensor changes them by {moved} (threshold "
    "{threshold}), and they start at {rms}",
)
def unmoved_outputs(context: Context, options: Options) -> Iterator[Suspicion]:
    signals = context.signals
    if signals.backward is not Backward.EXACT or signals.loss is not Loss.RANDOM_LINEAR or not signals.outputs:
        return
    rms = max(output.rms for output in signals.outputs.values())
    moved = outputs_moved(context, options)
    if rms < options.faint and 0.0 < moved < options.moved:
        data = {"step": options.step, "moved": moved, "threshold": options.moved, "rms": rms}
        yield Suspicion(context.model, Severity.WARNING, data, proven=True)


def outputs_moved(context: Context, options: Options) -> float:
    """What one step of all tensors changes of a random sum of the outputs; infinite where one is not known."""
    total = 0.0
    for address, gradient in context.signals.gradients.items():
        tensor = context.model.tensor(address)
        if tensor is None:
            return math.inf
        if tensor.address == address:  # and no part of it
            scale = max(gradient.weight_rms, 1 / math.sqrt(max(1, tensor.view.fan_in)))
            total += options.step * scale * gradient.rms * tensor.size
    return total
