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

from initlint.plugin import Context, Needs, Role, Severity, Suspicion, Tensor, WeightStats, fresh, rule

SIGNAL_RULES = (
    "non-finite-activations",
    "exploding-signal",
    "vanishing-signal",
    "saturated-activations",
    "dead-units",
    "vanishing-gradient",
    "exploding-gradient",
    "initial-loss",
    "saturated-attention",
    "collapsed-inputs",
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
    "oversized-bias",
    "saturating-bias",
    "bad-running-statistics",
)


@rule(
    category="numerics",
    needs=Needs.WEIGHTS,
    message={
        "default": "{nan} of {count} values are NaN and {inf} are infinite",
        "computed": "of the {count} values that the forward makes of it, {nan} are NaN and {inf} are infinite",
    },
    explains=SIGNAL_RULES,
    overrides=WEIGHT_RULES,
)
def non_finite_weights(context: Context, options: object) -> Iterator[Suspicion]:
    for tensor in context.model.tensors:
        stats = context.stats.get(tensor.address)
        if stats is not None and _is_faulty(tensor, stats) and not _is_consequence(context, tensor):
            data = {"nan": stats.nan, "inf": stats.inf, "count": stats.count}
            message = "computed" if tensor.computed else "default"
            yield Suspicion(tensor, Severity.ERROR, data, fresh(context.model, tensor), message, proven=True)


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
