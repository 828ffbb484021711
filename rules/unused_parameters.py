"""Trainable tensors that no output depends on.

## Why it matters

They take memory, optimiser state and checkpoint space, and never learn. Distributed training stops with an error when
a parameter gets no gradient. Often a layer was replaced and the old one left behind, or `forward` forgets to call one;
often enough it is on purpose, hence a note.

Experts that the probe batch was not routed to are not counted, nor are tensors with `requires_grad=False`.

## Example

    self.proj = nn.Linear(64, 64)   # never called in forward

## Fix

Call the layer or remove it. `DistributedDataParallel(..., find_unused_parameters=True)` where it is on purpose.

## References

- PyTorch documentation of DistributedDataParallel: `find_unused_parameters`
"""

from __future__ import annotations

from collections.abc import Iterator

from initlint.plugin import Context, Liveness, Needs, Severity, Suspicion, rule


@rule(
    category="gradient",
    needs=Needs.LIVENESS,
    message="no output depends on it{others}",
)
def unused_parameters(context: Context, options: object) -> Iterator[Suspicion]:
    by_module: dict[str, list[str]] = {}
    for address, verdict in context.signals.liveness.items():
        if verdict is Liveness.UNUSED and "[" not in address:
            by_module.setdefault(address.rpartition(".")[0], []).append(address)
    for module, addresses in by_module.items():
        others = f", nor on {len(addresses) - 1} more of {module or 'the model'}" if len(addresses) > 1 else ""
        yield Suspicion(addresses[0], Severity.NOTE, {"others": others, "tensors": addresses})
