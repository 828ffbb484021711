"""A stored tensor holds NaN or infinity, so every output that it touches is NaN too.

## Why it matters

One NaN in a weight makes the first forward pass NaN, and with it the loss and every gradient. No optimiser recovers
from that. It comes from memory that nobody initialised, from a conversion to half precision that overflowed, or from
arithmetic in an initialiser (0 / 0 in a normalised zero row).

Infinities in tensors that are not trained are left alone: attention masks are made of -inf.

## Example

    self.gate = nn.Parameter(torch.empty(512, 8))   # never written: holds whatever was in memory

## Fix

Initialise the tensor: `nn.init.kaiming_normal_(self.gate, nonlinearity="relu")`, or zeros for a bias.

## References

- pytorch/torchtitan#2450: a gate's bias that no initialiser reached
- huggingface/transformers#28122, #31841: new heads with values up to 1e37 or NaN
"""

from __future__ import annotations

from collections.abc import Iterator

from initlint.plugin import Context, Fill, Fix, Needs, Reinit, Role, Severity, Suspicion, Tensor, WeightStats, rule

SIGNAL_RULES = (
    "non-finite-activations",
    "exploding-signal",
    "vanishing-signal",
    "saturated-activations",
    "dead-units",
    "vanishing-gradient",
    "exploding-gradient",
    "half-precision-range",
)
WEIGHT_RULES = (
    "zero-weights",
    "constant-weights",
    "duplicate-units",
    "variance-mismatch",
    "shifted-mean",
    "fan-mismatch",
    "recurrent-radius",
    "outlier-weights",
    "low-rank-weights",
    "half-precision-range",
    "looks-trained",
    "dead-relu-bias",
)


@rule(
    category="numerics",
    needs=Needs.WEIGHTS,
    message="{nan} of {count} values are NaN and {inf} are infinite",
    explains=SIGNAL_RULES,
    overrides=WEIGHT_RULES,
)
def non_finite_weights(context: Context, options: object) -> Iterator[Suspicion]:
    for tensor in context.model.tensors:
        stats = context.stats.get(tensor.address)
        if stats is not None and _is_faulty(tensor, stats) and not _is_consequence(context, tensor):
            data = {"nan": stats.nan, "inf": stats.inf, "count": stats.count}
            yield Suspicion(at=tensor, severity=Severity.ERROR, data=data, fix=fix_for(tensor))


def _is_faulty(tensor: Tensor, stats: WeightStats) -> bool:
    if stats.nan:
        return True
    return stats.inf > 0 and tensor.role is not Role.OTHER


def _is_consequence(context: Context, tensor: Tensor) -> bool:
    """Running statistics of a norm behind a faulty weight: one forward pass in training mode spoils them."""
    owner = context.model.owner(tensor.address)
    if owner is None or tensor.role not in (Role.RUNNING_MEAN, Role.RUNNING_VARIANCE):
        return False
    return any(
        context.model.is_upstream(layer.name, owner.name) and _is_faulty(each, context.stats[each.address])
        for layer in context.model.layers
        for each in layer.tensors
        if each.trainable and each.address in context.stats
    )


def fix_for(tensor: Tensor) -> Fix:
    if tensor.role in (Role.WEIGHT, Role.RECURRENT_WEIGHT):
        return Reinit(tensor.address, "he_normal")
    if tensor.role is Role.TABLE:
        return Reinit(tensor.address, "normal", 0.02)
    return Fill(tensor.address, 1.0 if tensor.role in (Role.GAIN, Role.RUNNING_VARIANCE) else 0.0)
