"""The gradient of a trainable tensor is exactly zero and stays so, whatever the input.

## Why it matters

Gradient descent moves a weight by its gradient. One zero factor on the way from the weight to the loss is harmless, as
in LoRA or at the end of a residual branch: that factor gets a gradient itself and lets the others through at the next
step. Two zero factors in a row hold each other at zero for ever, and so does a zero layer in front of a ReLU.

initlint takes at least four scaled gradient steps, on two batches where the inputs allow it and with different random
losses, and puts all values back afterwards. A tensor is stuck if no step gave it a gradient although the outputs depend
on it. Units that the batches did not switch on, what a choice left out (experts, a clip level above all values, a
table of which only the padding was looked up) and outputs that the loss leaves out are not stuck; what lies beyond the
edge of a flat part by four deviations of its values, at the nearest, no batch reaches.
Nor is stuck what would have no gradient with any other values either: at the end everything that stands still is
drawn anew, all at once, and what then has no gradient and moves no output has no influence.

A packed tensor is judged part by part, as the gates of an LSTM; rows of a tensor (units, experts, queries) that start
at zero are judged by themselves. One such row is proof enough, and an error: drawn anew it would learn. Rows that are
looked up, masked, or chosen by a router are not judged. Fewer rows than a width is padded with are a note.

## Example

    self.scale = nn.Parameter(torch.zeros(1))      # ReZero: fine
    nn.init.zeros_(self.branch[-1].weight)         # fine too, but not both: x + self.scale * self.branch(x)

## Fix

Start one of the two factors away from zero: `nn.init.kaiming_normal_(self.branch[-1].weight)`.

## References

- Hu et al. 2021 (LoRA, arXiv:2106.09685) section 4.1; Bachlechner et al. 2020 (ReZero, arXiv:2003.04887)
- NVIDIA, Train With Mixed Precision: sizes in multiples of 8
- yz93/LAVT-RIS issue 25: two zero layers in one gate, zero gradient
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from initlint.plugin import (
    FAR,
    Context,
    Fill,
    Fix,
    Liveness,
    Needs,
    Severity,
    Suspicion,
    Tensor,
    fresh,
    fresh_at,
    is_far,
    rule,
    tame,
)


@dataclass(frozen=True)
class Options:
    align: int = 8  # NVIDIA, Train With Mixed Precision: widths are padded to multiples of 8, which adds at most 7 rows


@rule(
    category="gradient",
    needs=Needs.LIVENESS,
    uses=Needs.WEIGHTS,
    options=Options,
    message={
        "default": "its gradient stayed exactly zero over {steps} steps (batches: {batches}), so it can never learn",
        "far": "its gradient stayed exactly zero over {steps} steps (batches: {batches}) from values of rms {rms} on, "
        "so it can never learn",
        "rows": "{rows} of {of} rows start at zero and had no gradient in {steps} steps, so they can never learn",
    },
)
def stuck_parameters(context: Context, options: Options) -> Iterator[Suspicion]:
    signals = context.signals
    data = {"steps": signals.steps, "batches": signals.batches}
    tensors = {tensor.address: tensor for tensor in context.model.tensors}
    for address, verdict in signals.liveness.items():
        packed = context.model.tensor(address)
        tensor = address if packed is None else packed.address
        told = tensor != address and signals.liveness.get(tensor) is Liveness.STUCK
        if verdict is Liveness.STUCK and not told:
            at = _far_part(context, packed) if packed is not None and address == tensor else address
            rms = math.sqrt(context.stats[at].mean_square) if at in context.stats else 0.0
            message = "far" if rms > FAR else "default"
            yield Suspicion(at, Severity.ERROR, {**data, "rms": rms}, _fix(context, at), message, proven=True)
    for address, rows in signals.stuck_rows.items():
        if address in tensors:
            shape = tensors[address].shape
            padded = len(shape) == 2 and shape[0] % options.align == 0 and rows < options.align
            severity = Severity.NOTE if padded else Severity.ERROR
            fix = None if padded else fresh(context.model, tensors[address])
            yield Suspicion(address, severity, {"rows": rows, "of": shape[0], **data}, fix, "rows", proven=True)


def _far_part(context: Context, tensor: Tensor) -> str:
    """The only part that is far above order one, as the bias of one gate; else the tensor."""
    far = [part for part in tensor.part_addresses if is_far(context.model, tensor, context.stats.get(part))]
    return far[0] if len(far) == 1 else tensor.address


def _fix(context: Context, address: str) -> Fix | None:
    """A zero weight, or packed part, is drawn, a zero gain becomes one; what is far above order one is brought there.

    What is neither is held by something else.
    """
    tensor, stats = context.model.tensor(address), context.stats.get(address)
    if tensor is None or stats is None:
        return None
    if not stats.all_zero:
        edit = tame(context.model, tensor, stats)
        return None if edit is None else replace(edit, tensor=address)
    edit = fresh_at(context.model, tensor, address)
    return None if edit == Fill(address, 0.0) else edit
