"""All weights of a layer start at zero: it passes nothing on, and may never learn to.

## Why it matters

A zero weight makes the layer's output independent of its input, and no gradient passes back through it:

- The last layer of a residual branch, a gate, a head, one factor of a product: its own gradient is not zero, so it
  wakes up at the first step. Such layers get a note.
- A zero layer in front of a ReLU whose bias is not positive never wakes up: the slope of ReLU at zero is zero. Two zero
  layers in a row never wake up either: each multiplies the other's gradient by zero. Both are errors.
- A zero layer whose outputs multiply each other, such as a packed projection to queries and keys, holds itself at zero:
  a warning, since a third part of it may be free.
- Elsewhere (in front of tanh, say) it wakes up late, and what comes before it waits: a warning.

## Example

    nn.init.zeros_(self.fc1.weight)   # x = relu(self.fc1(x)): stays zero for ever
    nn.init.zeros_(lora_A); nn.init.zeros_(lora_B)   # exactly one of the two should be zero

## Fix

Draw the weights: `nn.init.kaiming_normal_(self.fc1.weight, nonlinearity="relu")`.

## References

- Zhang et al. 2019 (Fixup, arXiv:1901.09321); Hu et al. 2021 (LoRA, arXiv:2106.09685) section 4.1
- VowpalWabbit PR #1033: zero hidden weights in front of a ReLU never learned
"""

from __future__ import annotations

from collections.abc import Iterator

from initlint.plugin import (
    Context,
    Layer,
    Liveness,
    Needs,
    Reinit,
    Role,
    Severity,
    Suspicion,
    Tensor,
    Use,
    rule,
    stuck_at_zero,
)

IDIOMS = {
    Use.SUM: "it joins a sum, as the end of a residual branch or a shift does",
    Use.PRODUCT: "it is one factor of a product, as a gate is",
    Use.SOFTMAX: "it gives logits of a softmax, which start out uniform",
    Use.COORDINATE: "it gives offsets or coordinates, which start at the identity",
    Use.OUTPUT: "it is a head, which gets its gradient from the loss",
}


@rule(
    category="symmetry",
    needs=Needs.WEIGHTS,
    uses=Needs.LIVENESS,
    message={
        "idiom": "all {count} weights start at zero; {idiom}",
        "stuck": "all {count} weights are zero and can never change: {proof}",
        "product": "all {count} weights are zero and its outputs multiply each other: each holds the other at zero",
        "default": "all {count} weights start at zero, so the layer passes neither signal nor gradient at first",
    },
    explains=("dead-units", "vanishing-signal", "dead-relu-bias", "stuck-parameters", "vanishing-gradient"),
    overrides=("constant-weights", "duplicate-units", "variance-mismatch", "stuck-parameters"),
)
def zero_weights(context: Context, options: object) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        for tensor in layer.tensors:
            if tensor.role in (Role.WEIGHT, Role.RECURRENT_WEIGHT, Role.TABLE):
                if _is_zero(context, tensor.address):
                    yield _judge(context, layer, tensor)
                    continue
                for part in tensor.part_addresses:
                    if _is_zero(context, part):
                        yield _judge_part(context, part)


def _is_zero(context: Context, address: str) -> bool:
    return address in context.stats and context.stats[address].all_zero


def _judge(context: Context, layer: Layer, tensor: Tensor) -> Suspicion:
    is_table = tensor.role is Role.TABLE
    fix = Reinit(tensor.address, "normal", 0.02) if is_table else Reinit(tensor.address, "he_normal")
    if proof := _proof(context, layer, tensor):
        return Suspicion(tensor, Severity.ERROR, {"count": tensor.size, "proof": proof}, fix, "stuck")
    idiom = next((text for use, text in IDIOMS.items() if use in layer.uses), "")
    if layer.multiplies_itself and Use.SUM not in layer.uses:
        return Suspicion(tensor, Severity.WARNING, {"count": tensor.size}, fix, "product")
    if idiom and Use.LAYER not in layer.uses:
        return _idiom(tensor, tensor.size, idiom)
    if tensor.role is Role.RECURRENT_WEIGHT:
        return _idiom(tensor, tensor.size, "the recurrence starts without memory and learns it")
    if is_table and layer.bypassed:
        return _idiom(tensor, tensor.size, "it joins another input, as a table of positions does")
    return Suspicion(tensor, Severity.WARNING, {"count": tensor.size}, fix)


def _proof(context: Context, layer: Layer, tensor: Tensor) -> str:
    """Why it can never change: by structure, by measured gradients; empty where it can, or nobody knows."""
    if context.liveness(tensor) is Liveness.LIVE:
        return ""
    proof = stuck_at_zero(context.model, layer, context.stats) if tensor is layer.weight else ""
    return proof or context.measured_stuck(tensor)


def _judge_part(context: Context, part: str) -> Suspicion:
    count = context.stats[part].count
    if proof := context.measured_stuck(part):
        return Suspicion(part, Severity.ERROR, {"count": count, "proof": proof}, message="stuck")
    return _idiom(part, count, "the other parts of the tensor do not")


def _idiom(at: Tensor | str, count: int, idiom: str) -> Suspicion:
    return Suspicion(at, Severity.NOTE, {"count": count, "idiom": idiom}, message="idiom")
