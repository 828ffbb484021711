"""A layer that a normalisation follows has a bias all the same.

## Why it matters

A house rule as a single file: no package, no installation. The norm's own shift makes a bias in front of it redundant;
leaving it out saves memory and optimiser state.

## Example

    nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64))

## Fix

`nn.Linear(64, 64, bias=False)`

## References

- `initlint explain bias-before-norm` for those that provably do nothing
"""

from __future__ import annotations

from collections.abc import Iterator

from initlint.plugin import Context, NoOptions, Severity, Suspicion, rule


@rule(category="house", message="{norm} follows and shifts its output anyway")
def bias_free_maps(context: Context, options: NoOptions) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        if layer.kind.is_map and layer.bias is not None and layer.norm_after is not None:
            yield Suspicion(layer.bias, Severity.NOTE, {"norm": str(layer.norm_after)})
