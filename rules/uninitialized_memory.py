"""A tensor holds what was in memory before: nobody wrote its values.

## Why it matters

`torch.empty` and `nn.Parameter(torch.Tensor(n, m))` give memory as it is found. Fresh pages are zero, so that the
model seems to work; another run, another machine or a longer program gives 1e37 or NaN. It comes from bare parameters,
from an initialiser that misses a tensor or a part of it, and from `to_empty` without an initialisation after it.

A builder (`pkg.mod:build`, or a function given to `initlint.check`) is called once more with fresh memory full of NaN:
what is NaN then, and was not before, nobody wrote. NaN is then put into one such tensor at a time to see whether the
outputs notice: memory that is written before it is read, such as a cache, gets a note. Files and modules at hand are
judged by their values alone: magnitudes that no draw gives, very large beside very small ones.

Tensors on the meta device have no values at all.

## Example

    self.gate = nn.Parameter(torch.empty(512, 8))   # and reset_parameters() knows nothing of it

## Fix

Initialise the tensor where it is made: `nn.init.kaiming_uniform_(self.gate, a=5**0.5)`, or zeros for a bias.

## References

- pytorch/torchtitan#2450: a gate's bias that no initialiser reached; huggingface/transformers#28122, #31841
- PyTorch documentation, torch.utils.deterministic.fill_uninitialized_memory
"""

from __future__ import annotations

from collections.abc import Iterator

from initlint.plugin import (
    Context,
    Needs,
    Reading,
    Role,
    Severity,
    Suspicion,
    Tensor,
    Unwritten,
    WeightStats,
    fresh,
    rule,
)

from .non_finite_weights import SIGNAL_RULES, WEIGHT_RULES

VARYING = 2.0  # the largest magnitudes are not one number, as the values of a mask are

RUNNING = (Role.RUNNING_MEAN, Role.RUNNING_VARIANCE)


@rule(
    category="numerics",
    needs=Needs.WEIGHTS,
    uses=Needs.BUILDS,
    message={
        "default": "{values} of {count} values are never written, and the outputs depend on them",
        "evaluation": "{values} of {count} values are never written, and the outputs in evaluation mode depend on them",
        "unread": "{values} of {count} values are never written; this input does not read them before they are",
        "unknown": "{values} of {count} values are never written; whether they are read was not measured",
        "values": "magnitudes from below {smallest} ({tiny} values) to {largest} ({huge} above 1e12): memory as found",
        "range": "{huge} of {count} magnitudes lie between {smallest} and {largest}: memory as found, no draw",
        "meta": "{values} of {count} tensors are on the meta device and have no values, {first} for one",
    },
    explains=(*SIGNAL_RULES, "non-finite-weights"),
    overrides=(*WEIGHT_RULES, "non-finite-weights", "zero-norm-gain", "stuck-parameters", "unused-parameters"),
)
def uninitialized_memory(context: Context, options: object) -> Iterator[Suspicion]:
    if without := context.model.valueless:
        data = {"values": len(without), "count": len(context.model.tensors), "first": without[0]}
        yield Suspicion(context.model, Severity.ERROR, data, message="meta")
    tensors = {tensor.address: tensor for tensor in context.model.tensors}
    known = {each.address for each in context.builds.unwritten}
    for each in context.builds.unwritten:
        yield _judge(context, each, tensors.get(each.address))
    for tensor in context.model.tensors:
        stats = context.stats.get(tensor.address)
        if stats is not None and tensor.address not in known and tensor.role not in RUNNING:
            yield from _by_values(context, tensor, stats)


def _judge(context: Context, each: Unwritten, tensor: Tensor | None) -> Suspicion:
    data = {"values": each.values, "count": each.size}
    at, fix = (each.address, None) if tensor is None else (tensor, fresh(context.model, tensor))
    if each.reading is Reading.TRAINING:
        return Suspicion(at, Severity.ERROR, data, fix)
    if each.reading is Reading.EVALUATION:
        return Suspicion(at, Severity.WARNING, data, fix, "evaluation", is_cause=False)
    severity = Severity.WARNING if each.parameter else Severity.NOTE
    if each.reading is Reading.NONE:
        return Suspicion(at, severity, data, fix, "unread", is_cause=False)
    if each.parameter and context.model.owner(each.address) is not None:
        severity = Severity.ERROR  # a layer's own weight is there to be read
    return Suspicion(at, severity, data, fix, "unknown")


def _by_values(context: Context, tensor: Tensor, stats: WeightStats) -> Iterator[Suspicion]:
    """Learned weights decay to denormals, masks hold huge numbers; only found memory has both, or many huge ones."""
    largest = max(abs(stats.min), abs(stats.max))
    data = {"tiny": stats.tiny, "huge": stats.huge, "count": stats.count, "largest": largest}
    severity = Severity.ERROR if tensor.trainable else Severity.NOTE  # a buffer may be written before it is read
    if stats.huge and stats.tiny:
        data["smallest"] = 3e-23  # 2^-75, what WeightStats.tiny counts
        yield Suspicion(tensor, severity, data, fresh(context.model, tensor), "values")
    elif stats.huge > 1 and largest > VARYING * stats.least_huge and tensor.role is not Role.OTHER:
        yield Suspicion(tensor, severity, {**data, "smallest": stats.least_huge}, fresh(context.model, tensor), "range")
