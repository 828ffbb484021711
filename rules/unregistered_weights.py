"""The forward uses trainable tensors that the optimiser never gets.

## Why it matters

`model.parameters()` lists what is registered. A layer in a plain Python list, a dictionary or a closure runs and has
gradients, but the optimiser does not know it, `model.to(device)` leaves it behind and checkpoints do not hold it: an
error. So is what arithmetic made of a parameter in the constructor, which is no parameter any more, and a layer that is
built in the forward, anew at every call. A registered parameter that is read only through `.data` or `.detach()` is
known to the optimiser but never gets a gradient: an error too. Where only what is made of it is detached or becomes an
integer, as an encoder in front of a code book, that is how the model was meant: one note for all such tensors.

Tensors that are read under `torch.no_grad()` only, or that do not require a gradient, are taken to be frozen
on purpose.

## Example

    self.layers = [nn.Linear(64, 64) for _ in range(4)]   # meant: nn.ModuleList([...])
    self.weight = nn.Parameter(torch.randn(64, 64)) * 0.1 # meant: nn.Parameter(torch.randn(64, 64) * 0.1)
    return functional.linear(x, self.weight.data)         # meant: self.weight

## Fix

Use `nn.ModuleList`, `nn.ModuleDict` or `nn.Parameter`; take the `.data` away. Constants belong into a buffer.

## References

- PyTorch documentation of nn.ModuleList: modules it contains are properly registered
"""

from __future__ import annotations

from collections.abc import Iterator

from initlint.plugin import Context, Liveness, Needs, Severity, Suspicion, rule


@rule(
    category="gradient",
    needs=Needs.BACKWARD,
    uses=Needs.LIVENESS,
    message={
        "default": "the forward uses it and it requires a gradient, but model.parameters() does not list it",
        "nameless": "a parameter of this shape gets a gradient, but no module holds it, so model.parameters() does "
        "not list it: what is built in the forward is another one at every call",
        "detached": "it is read only through .data or .detach(), so it never gets a gradient",
        "stopped": "all that is made of it is detached or rounded to integers, so no gradient comes back to it",
        "several": "what is made of it and of {others} more is detached or rounded to integers: no gradient comes back",
    },
)
def unregistered_weights(context: Context, options: object) -> Iterator[Suspicion]:
    for address in context.signals.unregistered:
        nameless = address.startswith("unregistered ")
        yield Suspicion(address, Severity.ERROR, message="nameless" if nameless else "default", proven=True)
    for address, verdict in context.signals.liveness.items():
        if verdict is Liveness.DETACHED and "[" not in address:
            yield Suspicion(address, Severity.ERROR, message="detached", proven=True)
    stopped = [a for a, verdict in context.signals.liveness.items() if verdict is Liveness.STOPPED and "[" not in a]
    if stopped:
        data = {"others": len(stopped) - 1, "tensors": stopped} if len(stopped) > 1 else {}
        yield Suspicion(stopped[0], Severity.NOTE, data, message="several" if data else "stopped")
