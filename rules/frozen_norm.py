"""Batch norms are frozen on statistics that nobody has measured, as before a checkpoint is loaded.

## Why it matters

A frozen batch norm multiplies by what was once measured and stored in buffers. In a module that is built without its
checkpoint these are still mean 0 and variance 1: the norm normalises nothing, and signals are not those of the net that
will be trained. So rules about scales, signals and the size of gradients give way to this note. What never learns, what
stays equal, and NaN are still told.

Trained like that, from scratch, a deep backbone has no normalisation at all: then use `nn.BatchNorm2d`.

## Example

    backbone = torchvision.models.resnet50(weights=None, norm_layer=FrozenBatchNorm2d)

## Fix

Load the checkpoint before the check, or take norms that learn: `norm_layer=nn.BatchNorm2d`.

## References

- He et al. 2017, Mask R-CNN: batch norms of a pre-trained backbone are frozen (torchvision's FrozenBatchNorm2d)
"""

from __future__ import annotations

from collections.abc import Iterator

from initlint.plugin import Advice, Context, Needs, Severity, Suspicion, rule


@rule(
    category="provenance",
    needs=Needs.STRUCTURE,
    message=(
        "{count} batch norms are frozen at mean 0 and variance 1 (first: behind {first}), so they normalise nothing: "
        "scales and signals are not those of the model with its checkpoint"
    ),
    mutes=("scale", "signal", "vanishing-gradient", "exploding-gradient", "update-ratio"),
)
def frozen_norm(context: Context, options: object) -> Iterator[Suspicion]:
    frozen = context.model.folded_norms
    if frozen and context.model.format == "torch":  # nothing was exported, so nobody can have folded them
        yield Suspicion(
            at=context.model,
            severity=Severity.NOTE,
            data={"count": len(frozen), "first": frozen[0].layer, "evidence": frozen[0].evidence},
            fix=Advice("", "model.load_state_dict(...)  # before the check"),
        )
