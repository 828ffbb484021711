"""Several values of a trainable parameter stand at one place in memory, so the first step raises.

## Why it matters

`tensor.expand(...)` copies nothing: along the new axis all values are the same place in memory. Forward and backward
work, but an optimiser writes in place, which PyTorch refuses: "unsupported operation: more than one element of the
written-to tensor refers to a single memory location". So does loading a checkpoint. And if it were written, all copies
would move as one.

## Example

    self.queries = nn.Parameter(torch.randn(1, 64).expand(16, 64))   # meant: .repeat(16, 1), or expand in the forward

## Fix

Make the copies real (`expand(...).clone()`, `repeat`), or keep the small parameter and expand it in `forward`.

## References

- PyTorch documentation of Tensor.expand: more than one element may refer to a single memory location
"""

from __future__ import annotations

from collections.abc import Iterator

from initlint.plugin import Context, Needs, Severity, Suspicion, rule


@rule(
    category="numerics",
    needs=Needs.FORWARD,
    message="several of its values stand at one place in memory, so the first step of an optimiser raises",
    overrides=("duplicate-units", "constant-weights", "permanent-symmetry", "low-rank-weights"),
)
def overlapping_memory(context: Context, options: object) -> Iterator[Suspicion]:
    for address in context.signals.overlapping:
        yield Suspicion(address, Severity.ERROR, proven=True)
