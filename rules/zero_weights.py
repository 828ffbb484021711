"""All weights of a layer start at zero: it passes nothing on, and may never learn to.

## Why it matters

A zero weight makes the layer's output independent of its input, and no gradient passes back through it. In one place
that is a fault, in another it is good practice:

- The last layer of a residual branch, a gate, a head, one factor of a product: its own gradient is not zero, so it
  wakes up at the first step. Such layers get a note.
- A zero layer in front of a ReLU whose bias is not positive never wakes up: the slope of ReLU at zero is zero. Two zero
  layers in a row never wake up either: each multiplies the other's gradient by zero. Both are errors.
- Elsewhere (in front of tanh, say) it wakes up late, and what comes before it waits: a warning.

## Example

    nn.init.zeros_(self.fc1.weight)   # x = relu(self.fc1(x)): stays zero for ever
    nn.init.zeros_(lora_A); nn.init.zeros_(lora_B)   # exactly one of the two should be zero

## Fix

Draw the weights: `nn.init.kaiming_normal_(self.fc1.weight, nonlinearity="relu")`.

## References

- Goyal et al. 2017 (arXiv:1706.02677) section 5.1: zero gain at the end of residual branches
- Zhang et al. 2019 (Fixup, arXiv:1901.09321); Hu et al. 2021 (LoRA, arXiv:2106.09685) section 4.1
- VowpalWabbit PR #1033: zero hidden weights behind a ReLU never learned
"""

from __future__ import annotations

from collections.abc import Iterator

from initlint.plugin import (
    Context,
    Kind,
    Layer,
    Needs,
    Reinit,
    Role,
    Severity,
    Suspicion,
    Tensor,
    Use,
    activations,
    rule,
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
    message={
        "idiom": "all {count} weights start at zero; {idiom}",
        "stuck": "all {count} weights are zero and can never change: {proof}",
        "default": "all {count} weights start at zero, so the layer passes neither signal nor gradient at first",
    },
    explains=("dead-units", "vanishing-signal", "dead-relu-bias"),
    overrides=("constant-weights", "duplicate-units", "variance-mismatch"),
)
def zero_weights(context: Context, options: object) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        for tensor in layer.tensors:
            if tensor.role not in (Role.WEIGHT, Role.RECURRENT_WEIGHT, Role.TABLE):
                continue
            if is_zero(context, tensor):
                yield _judge(context, layer, tensor)
            else:
                for address in tensor.part_addresses if tensor.parts else ():
                    if is_zero(context, address):
                        data = {"count": context.stats[address].count, "idiom": "the other parts of the tensor are not"}
                        yield Suspicion(at=address, severity=Severity.NOTE, data=data, message="idiom")


def is_zero(context: Context, at: Tensor | str) -> bool:
    stats = context.stats.get(at if isinstance(at, str) else at.address)
    return stats is not None and stats.all_zero and stats.count > 0


def _judge(context: Context, layer: Layer, tensor: Tensor) -> Suspicion:
    count = tensor.size
    fix = Reinit(tensor.address, "normal", 0.02) if tensor.role is Role.TABLE else Reinit(tensor.address, "he_normal")
    proof = _proof(context, layer) if tensor is layer.weight else ""
    if proof:
        return Suspicion(tensor, Severity.ERROR, {"count": count, "proof": proof}, fix, "stuck")
    idiom = next((text for use, text in IDIOMS.items() if use in layer.uses), "")
    if idiom and Use.LAYER not in layer.uses:
        return Suspicion(tensor, Severity.NOTE, {"count": count, "idiom": idiom}, message="idiom")
    if tensor.role is Role.RECURRENT_WEIGHT:
        text = "the recurrence starts without memory and learns it"
        return Suspicion(tensor, Severity.NOTE, {"count": count, "idiom": text}, message="idiom")
    return Suspicion(tensor, Severity.WARNING, {"count": count}, fix)


def _proof(context: Context, layer: Layer) -> str:
    """Why the weights can never get a gradient; empty where that is not certain."""
    if not layer.kind.is_map:
        return ""
    if layer.uses == {Use.LAYER} and _constant_output_is_dead(context, layer):
        return f"the {layer.activation} behind it stays off, where its slope is zero"
    after = context.model.maps_after(layer)
    if layer.uses == {Use.LAYER} and after and all(_is_zero_pair(context, layer, each) for each in after):
        return f"{after[0].name} behind it is zero too, so neither ever gets a gradient"
    before = context.model.maps_before(layer)
    if before and all(_is_zero_pair(context, each, layer) for each in before):
        return f"{before[0].name} before it is zero too, so neither ever gets a gradient"
    return ""


def _constant_output_is_dead(context: Context, layer: Layer) -> bool:
    """With zero weights the output is the bias, or behind a norm the norm's shift; is it where the slope is zero?"""
    activation = activations.get(layer.activation)
    offset = layer.bias
    if layer.norm_after is not None:
        norms = [each for each in context.model.consumers(layer) if each.kind.is_norm]
        offset = norms[0].bias if len(norms) == 1 else None
    if activation.dead_below is None or layer.activation == "prelu":
        return False
    highest = context.stats[offset.address].max if offset is not None and offset.address in context.stats else 0.0
    return highest <= activation.dead_below


def _is_zero_pair(context: Context, first: Layer, second: Layer) -> bool:
    """``first`` feeds only ``second``, both are zero, and nothing between them makes a constant of the zero."""
    if first.uses != {Use.LAYER} or not (first.kind.is_map and second.kind.is_map) or first.kind is Kind.EMBEDDING:
        return False
    if second.name not in first.consumers or not (is_zero(context, first.weight) and is_zero(context, second.weight)):
        return False
    bias_is_zero = first.bias is None or is_zero(context, first.bias)
    return bias_is_zero and activations.get(first.activation)(0.0) == 0.0
