"""Trainable tensors that no output depends on.

## Why it matters

They take memory, optimiser state and checkpoint space, and never learn. Distributed training stops with an error when
a parameter gets no gradient. Often a layer was replaced and the old one left behind, or `forward` forgets to call one;
often enough it is on purpose, hence a note. Where nothing that is trainable can learn, be it unused or stuck, no step
changes what the model computes: an error.

A backbone that is run under `torch.no_grad()` learns nothing either. That is mostly meant, and `requires_grad_(False)`
says so to the optimiser and to readers; where it is not, it was left over from an evaluation: one note for all of it.
One note stands for all tensors of a module that is wholly unused. What is read, but changes no bit of the outputs
whatever its values, is unused too: a projection of positions that are thrown away. Experts that the probe batch was not
routed to are not counted, nor are tensors with `requires_grad=False`.

A softmax over one value gives 1 whatever the value is: over the wrong axis of the scores of an attention that pools, it
takes a mean, and what makes the scores never learns. Nor do queries and keys whose products are multiplied by 0, as by
`1 // width`. Both are warnings.
A buffer of zeros that multiplies a branch switches it off. Where a forward in training mode does not write it, only a
schedule of the user's can raise it, as one that grows a GAN does: one note per buffer, as it may have been meant to be
a parameter.

## Example

    self.proj = nn.Linear(64, 64)   # never called in forward

## Fix

Call the layer or remove it. `DistributedDataParallel(..., find_unused_parameters=True)` where it is on purpose.

## References

- PyTorch documentation of DistributedDataParallel: `find_unused_parameters`
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from initlint.plugin import Context, Liveness, Needs, Severity, Suspicion, Use, rule

LIVE, UNUSED = Liveness.LIVE, Liveness.UNUSED


@rule(
    category="gradient",
    needs=Needs.LIVENESS,
    message={
        "all": "no output depends on it, and none of the {count} trainable tensors can learn: nothing can be trained",
        "default": "no output depends on it",
        "several": "no output depends on it, nor on {others} more of {module}",
        "training": "outputs depend on it in training mode only, and the probe runs in evaluation mode",
        "training several": "outputs depend on it, and on {others} more of {module}, in training mode only, and the "
        "probe runs in evaluation mode",
        "single": "all it does is to feed a softmax over one value, which gives 1 whatever that is: it can never learn",
        "single several": "all that it, and {others} more of {module}, do is to feed a softmax over one value, which "
        "gives 1 whatever that is: they can never learn",
        "number": "the forward reads it as a plain number (item() or float()), so that no gradient comes back to it",
        "number several": "the forward reads it and {others} more of {module} as plain numbers (item() or float()), so "
        "that no gradient comes back to them",
        "scores": "no output depends on it, nor on what else makes the scores of this attention, which stays as it is",
        "held": "no output depends on it while the buffer {buffer} is zero, which no forward in training mode changes",
        "held several": "no output depends on it, nor on {others} more tensors, while the buffer {buffer} is zero, "
        "which no forward in training mode changes",
        "unwatched": "it requires a gradient but is read under torch.no_grad() only, so it never gets one",
        "unwatched several": "it and {others} more require gradients, but are read under torch.no_grad() only",
    },
)
def unused_parameters(context: Context, options: object) -> Iterator[Suspicion]:
    verdicts = {address: verdict for address, verdict in context.signals.liveness.items() if "[" not in address}
    used = {module for address, verdict in verdicts.items() if verdict is not UNUSED for module in _around(address)}
    later = set(context.signals.in_training)
    can = [None if at in later else verdict for at, verdict in verdicts.items() if verdict is not Liveness.FROZEN]
    futile = {"count": len(can)} if all(verdict in (UNUSED, Liveness.STUCK) for verdict in can) else {}
    ways = {**dict.fromkeys(later, "training"), **dict.fromkeys(context.signals.as_numbers, "number")}
    ways |= dict.fromkeys(context.signals.single_softmax, "single")
    by_module: dict[tuple[str, str], list[str]] = {}
    parts = {at: each for at, each in context.signals.liveness.items() if verdicts.get(at.rpartition("[")[0]) is LIVE}
    ways |= {at: "scores" for at in parts if _makes_scores(context, at)}
    for address, verdict in {**verdicts, **parts}.items():
        if verdict is UNUSED:
            outermost = next((module for module in _around(address) if module not in used), address.rpartition(".")[0])
            by_module.setdefault(("" if futile else outermost, ways.get(address, "default")), []).append(address)
    for (module, way), addresses in by_module.items():
        others = {"others": len(addresses) - 1, "module": module or "the model", "tensors": addresses}
        data = {**(others if len(addresses) > 1 else {}), **futile}
        message = _SEVERAL[way] if len(addresses) > 1 else way
        severity = Severity.ERROR if futile else Severity.WARNING if way in _SURE else Severity.NOTE
        message = "all" if futile and way not in _SURE else message
        yield Suspicion(addresses[0], severity, data, message=message, proven=severity > Severity.NOTE)
    yield from _held(context.signals.switched_off)
    unwatched = context.signals.unwatched
    if unwatched:
        data = {"others": len(unwatched) - 1, "tensors": list(unwatched)} if len(unwatched) > 1 else {}
        yield Suspicion(unwatched[0], Severity.NOTE, data, message="unwatched several" if data else "unwatched")


_SEVERAL = {"default": "several", "training": "training several", "single": "single several"}
_SEVERAL |= {"number": "number several", "scores": "scores"}
_SURE = ("single", "scores")


def _makes_scores(context: Context, part: str) -> bool:
    owner = context.model.owner(part.partition("[")[0])
    return owner is not None and {Use.PRODUCT, Use.SOFTMAX} <= owner.uses


def _held(switched_off: Mapping[str, Sequence[str]]) -> Iterator[Suspicion]:
    by_buffers: dict[tuple[str, ...], list[str]] = {}
    for address, buffers in switched_off.items():
        by_buffers.setdefault(tuple(buffers), []).append(address)
    for buffers, addresses in by_buffers.items():
        data = {"buffer": ", ".join(buffers), "others": len(addresses) - 1, "tensors": addresses}
        yield Suspicion(addresses[0], Severity.NOTE, data, message="held several" if len(addresses) > 1 else "held")


def _around(address: str) -> Iterator[str]:
    """The modules that hold a parameter, the outermost first; not the model itself."""
    names = address.split(".")[:-1]
    return (".".join(names[: depth + 1]) for depth in range(len(names)))
