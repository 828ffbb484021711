"""A bias does nothing, because the norm behind it takes the mean away.

## Why it matters

It does not: a constant added to a channel is subtracted again by a batch norm or an instance norm, whose own shift does
the bias's work. The bias costs memory, an optimiser state, and some weight decay; its gradient is zero up to rounding.
It is a note. Layer norms subtract the mean over units, not that of a unit, so a bias in front of one is not idle; nor
is the norm's own shift.

## Example

    nn.Sequential(nn.Conv2d(64, 64, 3), nn.BatchNorm2d(64))

## Fix

`bias=False` in the layer in front of the norm.

## References

- Ioffe & Szegedy 2015 (arXiv:1502.03167), section 3.2: "the bias b can be ignored"
- NeuraLint rule f005 (Nikanjam et al. 2021, arXiv:2105.08095): bias before a batch norm
"""

from __future__ import annotations

from collections.abc import Iterator

from initlint.plugin import Advice, Context, Severity, Suspicion, rule


@rule(category="bias", message="its {count} values have no effect: the {norm} behind it takes them away again")
def bias_before_norm(context: Context, options: object) -> Iterator[Suspicion]:
    felt = {layer.bias.address for layer in context.model.layers if layer.bias is not None and not layer.bias_removed}
    for layer in context.model.layers:
        if layer.bias is None or not layer.bias.trainable or not layer.kind.is_map or layer.bias.address in felt:
            continue
        data = {"count": layer.bias.size, "norm": str(layer.norm_after or "norm").replace("-", " ")}
        fix = Advice(layer.bias.address, f"bias=False  # in {layer.name}")
        yield Suspicion(layer.bias, Severity.NOTE, data, fix)
