"""Trainable tensors that no output depends on.

## Why it matters

They take memory, optimiser state and checkpoint space, and never learn. Distributed training stops with an error when
a parameter gets no gradient. Often a layer was replaced and the old one left behind, or `forward` forgets to call one;
often enough it is on purpose, hence a note.

One note stands for all tensors of a module that is wholly unused. What is read, but changes no bit of the outputs
whatever its values, is unused too: a projection of positions that are thrown away. Experts that the probe batch was not
routed to are not counted, nor are tensors with `requires_grad=False`.

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

UNUSED = Liveness.UNUSED


@rule(
    category="gradient",
    needs=Needs.LIVENESS,
    message={
        "default": "no output depends on it",
        "several": "no output depends on it, nor on {others} more of {module}",
    },
)
def unused_parameters(context: Context, options: object) -> Iterator[Suspicion]:
    verdicts = {address: verdict for address, verdict in context.signals.liveness.items() if "[" not in address}
    used = {module for address, verdict in verdicts.items() if verdict is not UNUSED for module in _around(address)}
    by_module: dict[str, list[str]] = {}
    for address, verdict in verdicts.items():
        if verdict is UNUSED:
            outermost = next((module for module in _around(address) if module not in used), address.rpartition(".")[0])
            by_module.setdefault(outermost, []).append(address)
    for module, addresses in by_module.items():
        if len(addresses) == 1:
            yield Suspicion(addresses[0], Severity.NOTE)
            continue
        data = {"others": len(addresses) - 1, "module": module or "the model", "tensors": addresses}
        yield Suspicion(addresses[0], Severity.NOTE, data, message="several")


def _around(address: str) -> Iterator[str]:
    """The modules that hold a parameter, the outermost first; not the model itself."""
    names = address.split(".")[:-1]
    return (".".join(names[: depth + 1]) for depth in range(len(names)))
