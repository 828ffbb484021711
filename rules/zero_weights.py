"""All weights of a layer start at zero: it passes nothing on, and may never learn to.

## Why it matters

A zero weight (or a drawn one times a mask that nobody set) passes nothing on, and no gradient back.
- The end of a residual branch, a gate, a head, one factor of a product has a gradient and wakes up at once: a note.
- A zero layer in front of a ReLU whose bias is not positive never wakes up (relu'(0) is 0). Nor do two zero layers in a
  row; with a bias between them they do, too late: errors.
- A zero layer whose outputs multiply each other (packed queries and keys) holds most of itself at zero; elsewhere (in
  front of tanh, say) it wakes up late: warnings. Without a network a note, unless all weights are zero.

## Example

    nn.init.zeros_(lora_A); nn.init.zeros_(lora_B)   # exactly one of the two should be zero

## Fix

`nn.init.kaiming_normal_(self.fc1.weight)`

## References

- `benchmarks/results/calibrate_zeros.md`: how many in a row still train
- Zhang et al. 2019 (Fixup, arXiv:1901.09321); Hu et al. 2021 (LoRA, arXiv:2106.09685); VowpalWabbit PR #1033
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from initlint.plugin import (
    Context,
    Layer,
    Liveness,
    Needs,
    Role,
    Severity,
    Suspicion,
    Tensor,
    Use,
    all_maps_zero,
    fresh_at,
    rule,
    stuck_at_zero,
    zero_on_purpose,
    zeros_in_a_row,
)


@rule(
    category="symmetry",
    needs=Needs.WEIGHTS,
    uses=Needs.LIVENESS,
    message={
        "idiom": "all {count} {weights} start at zero; {idiom}",
        "stuck": "all {count} {weights} are zero and can never change: {proof}",
        "product": "all {count} {weights} are zero and its outputs multiply each other: each holds the other at zero",
        "row": "all {count} {weights} start at zero, in one of {row} such layers that the signal cannot but pass: "
        "each waits for the others",
        "all": "all {count} {weights} start at zero, and so do those of all other layers: each waits for the others",
        "default": "all {count} {weights} start at zero, so the layer passes neither signal nor gradient at first",
    },
    explains=("dead-units", "vanishing-signal", "dead-relu-bias", "stuck-parameters", "vanishing-gradient"),
    overrides=("constant-weights", "duplicate-units", "variance-mismatch", "stuck-parameters"),
)
def zero_weights(context: Context, options: object) -> Iterator[Suspicion]:
    zero = {address for address, stats in context.stats.items() if stats.all_zero}
    waiting = zeros_in_a_row(context.model, context.stats)
    for layer in context.model.layers:
        for tensor in (each for each in layer.tensors if each.trainable and each.address not in context.alike):
            if tensor.role not in (Role.WEIGHT, Role.RECURRENT_WEIGHT, Role.TABLE):
                continue
            if tensor.address in zero:
                yield _judge(context, layer, tensor, waiting)
            else:
                yield from (_judge_part(context, tensor, part) for part in tensor.part_addresses if part in zero)


def _judge(context: Context, layer: Layer, tensor: Tensor, waiting: Mapping[str, int]) -> Suspicion:
    fix, told = fresh_at(context.model, tensor, tensor.address), _told(tensor)
    if proof := _proof(context, layer, tensor):
        return Suspicion(tensor, Severity.ERROR, {**told, "proof": proof}, fix, "stuck")
    if not context.model.has_dataflow:
        return _idiom(tensor, told, "whether something wakes it up cannot be seen without the network")
    if layer.name in waiting and tensor is layer.weight:
        return Suspicion(tensor, Severity.ERROR, {**told, "row": waiting[layer.name]}, fix, "row")
    product = layer.multiplies_itself and Use.SUM not in layer.uses
    if not product and (idiom := zero_on_purpose(context.model, layer, tensor, context.stats)):
        return _idiom(tensor, told, idiom)
    if all_maps_zero(context.model, context.stats):
        return Suspicion(tensor, Severity.WARNING, told, fix, "all")
    return Suspicion(tensor, Severity.WARNING, told, fix, "product" if product else "default")


def _proof(context: Context, layer: Layer, tensor: Tensor) -> str:
    """Why it can never change, by structure or by measured gradients; empty where it can, or nobody knows."""
    proved = tensor is layer.weight and stuck_at_zero(context.model, layer, context.stats)
    return "" if context.liveness(tensor) is Liveness.LIVE else proved or context.measured_stuck(tensor)


def _judge_part(context: Context, tensor: Tensor, part: str) -> Suspicion:
    told = {**_told(tensor), "count": context.stats[part].count}
    if proof := context.measured_stuck(part):
        return Suspicion(part, Severity.ERROR, {**told, "proof": proof}, fresh_at(context.model, tensor, part), "stuck")
    return _idiom(part, told, "the other parts of the tensor do not")


def _told(tensor: Tensor) -> dict[str, object]:
    return {"count": tensor.size, "weights": "weights made of it" if tensor.computed else "weights"}


def _idiom(at: Tensor | str, told: dict[str, object], idiom: str) -> Suspicion:
    return Suspicion(at, Severity.NOTE, {**told, "idiom": idiom}, message="idiom")
