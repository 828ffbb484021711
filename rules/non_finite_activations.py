"""Finite parameters give NaN or infinity in the very first forward pass.

## Why it matters

The loss is NaN from step one. The layer where NaN shows is rarely the one to blame: a zero vector that is divided by
its length, weight normalisation of a zero row, a logarithm of zero, a softmax of a row that a mask hides altogether, or
values that outgrew the number format further up. The finding names the first operation whose inputs were finite (or
-inf, as masked logits are) and whose output was not, and the stored tensors that reach it.

## Example

    nn.init.zeros_(layer.weight_v)   # weight_norm divides by |weight_v|

## Fix

Give the named tensor a value for which the operation is defined, or guard the operation with an epsilon.

## References

- pytorch/pytorch#19126, google/flax#1671: zero weights under weight normalisation
- huggingface/peft#2049: DoRA on zero rows
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from initlint.plugin import Context, Fill, Fix, Needs, Role, Severity, Suspicion, Tensor, fresh, is_far, rule

SQUARE_OVERFLOWS = 1.8e19
"""Root of the largest float32: no norm, variance or product of such values is finite."""

SHIFTS = (Role.BIAS, Role.RECURRENT_BIAS, Role.SHIFT)
WORDS = {"nan": "NaN", "masked": "NaN", "inf": "infinity", "overflow": "infinity (values outgrew float32)"}


@rule(
    category="signal",
    needs=Needs.FORWARD,
    uses=Needs.WEIGHTS,
    message={
        "default": "the first forward pass gives {what} at {operation}",
        "enormous": "the first forward pass gives {what} at {operation}: its values are too large to be squared",
        "tensor": "the first forward pass gives {what} at {operation}, which reads {tensors}",
        "masked": "the first forward pass gives {what} at {operation}: a row of what it reads is -inf throughout, "
        "as where a mask hides every position",
        "behind": "the first forward pass gives {what} at {operation}, which reads what comes of {at}",
        "far": "the first forward pass gives {what} at {operation}, behind {at}, of rms {rms}",
    },
    explains=(
        "exploding-signal",
        "vanishing-signal",
        "saturated-activations",
        "dead-units",
        "vanishing-gradient",
        "exploding-gradient",
    ),
)
def non_finite_activations(context: Context, options: object) -> Iterator[Suspicion]:
    origin = context.signals.origin
    if origin is None:
        return
    data: dict[str, str | float] = {
        "what": WORDS.get(origin.kind, origin.kind),
        "operation": origin.operation,
        "kind": origin.kind,
    }
    if origin.tensors:
        data["tensors"] = ", ".join(origin.tensors)
    far = _far(context, (*origin.tensors, *origin.behind))
    likely = _likeliest_first(context, origin.tensors or origin.behind)
    if origin.kind != "masked" and likely:
        at = next(iter((*_enormous(context, origin.tensors), *far, *likely)))
        tensor = context.model.tensor(at)
        fix = None if tensor is None else _fix(context, tensor)
        message = "tensor" if at in origin.tensors else "behind" if at in likely else "enormous"
        data |= {"at": at} if message == "behind" else {}
        if far and at == far[0]:
            data |= {"at": at, "rms": math.sqrt(context.stats[at].mean_square)}
            message = "far"
        yield Suspicion(at, Severity.ERROR, data, fix, message, proven=True)
        return
    layer = next((each for each in context.model.layers if each.name == origin.layer), None)
    message = "masked" if origin.kind == "masked" else "default"
    yield Suspicion(layer or context.model, Severity.ERROR, data, message=message, proven=True)


def _likeliest_first(context: Context, addresses: tuple[str, ...]) -> list[str]:
    """What is zero, then what no map owns, then what gives the largest values."""

    def rank(address: str) -> tuple[bool, bool, float]:
        found, owner = context.stats.get(address), context.model.owner(address)
        signal = None if owner is None else context.signal(owner)
        loud = 0.0 if signal is None or signal.nonfinite else signal.rms
        return not (found is not None and found.all_zero), owner is not None, -loud

    known = [tensor for each in addresses if (tensor := context.model.tensor(each)) is not None]
    trained = [each.address for each in known if each.trainable and each.role not in SHIFTS]
    return sorted(trained, key=rank) or [each.address for each in known]


def _fix(context: Context, tensor: Tensor) -> Fix | None:
    """By the book; one for what is zero by the book already, as the divisor here may be."""
    edit, found = fresh(context.model, tensor), context.stats.get(tensor.address)
    idle = edit == Fill(tensor.address, 0.0) and found is not None and found.all_zero
    return Fill(tensor.address, 1.0) if idle else edit


def _far(context: Context, addresses: tuple[str, ...]) -> list[str]:
    """Those of ``addresses`` that are biases, or no map's, and far above order one."""
    tensors = {tensor.address: tensor for tensor in context.model.tensors}
    return [at for at in addresses if at in tensors and is_far(context.model, tensors[at], context.stats.get(at))]


def _enormous(context: Context, first: tuple[str, ...]) -> list[str]:
    """Addresses of tensors so large that they are to blame, wherever they overflow: those of ``first`` lead."""
    others = [tensor.address for tensor in context.model.tensors if tensor.trainable]
    stats = ((address, context.stats.get(address)) for address in (*first, *others))
    return [address for address, s in stats if s is not None and max(-s.min, s.max) > SQUARE_OVERFLOWS]
