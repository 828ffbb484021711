"""A normalisation multiplies everything by zero.

## Why it matters

With a gain of zero the layer gives its shift, whatever comes in. At the end of a residual branch that is good practice:
the branch starts as nothing and wakes up at the first step. In front of a ReLU it is fatal: with a shift that is not
positive the slope of the ReLU is zero and the gain never gets a gradient. Elsewhere it wakes up, but
holds up everything in front of it until it has.

## Example

    nn.init.zeros_(self.bn1.weight)   # torch.relu(self.bn1(self.conv1(x))): meant bn2, the last one of the branch

## Fix

`nn.init.ones_(self.bn1.weight)`.

## References

- Goyal et al. 2017 (arXiv:1706.02677) section 5.1: zero gain in the last norm of each residual block
- timm `norm.py`, `zero_init_last`: only where there is a shortcut
"""

from __future__ import annotations

from collections.abc import Iterator

from initlint.plugin import Context, Fill, Layer, Liveness, Needs, Role, Severity, Suspicion, Use, activations, rule


@rule(
    category="norm",
    needs=Needs.WEIGHTS,
    uses=Needs.LIVENESS,
    message={
        "idiom": "all {count} gains start at zero at the end of a residual branch or a factor",
        "stuck": "all {count} gains are zero and can never change: {proof}",
        "unplaced": "all {count} gains start at zero; what makes up for it cannot be seen without the network",
        "default": "all {count} gains start at zero, so nothing of the input passes at first",
    },
    explains=("dead-units", "vanishing-signal", "stuck-parameters", "vanishing-gradient"),
    overrides=("stuck-parameters",),
)
def zero_norm_gain(context: Context, options: object) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        gain = layer.weight
        stats = context.stats.get(gain.address)
        if not layer.kind.is_norm or gain.role is not Role.GAIN or stats is None or not stats.all_zero:
            continue
        verdict, fix = context.liveness(gain), Fill(gain.address, 1.0)
        proof = _proof(context, layer, verdict)
        if proof:
            yield Suspicion(gain, Severity.ERROR, {"count": gain.size, "proof": proof}, fix, "stuck")
        elif verdict in _ON_PURPOSE or layer.uses & {Use.SUM, Use.PRODUCT, Use.OUTPUT}:
            yield Suspicion(gain, Severity.NOTE, {"count": gain.size}, message="idiom")
        elif not context.model.has_dataflow:  # the end of a branch, or 1 + gain
            yield Suspicion(gain, Severity.NOTE, {"count": gain.size}, message="unplaced")
        else:
            yield Suspicion(gain, Severity.WARNING, {"count": gain.size}, fix)


_ON_PURPOSE = (Liveness.FROZEN, Liveness.UNUSED)


def _proof(context: Context, layer: Layer, verdict: Liveness | None) -> str:
    """Why the gain never gets a gradient: measured, or by the ReLU that it holds at zero; empty where it may."""
    edge = activations.get(layer.activation).dead_below
    if verdict is not None or edge is None or layer.uses != {Use.LAYER}:
        return context.measured_stuck(layer.weight)
    shift = context.stats.get(layer.bias.address) if layer.bias is not None else None
    return f"the {layer.activation} behind it stays off" if shift is None or shift.max <= edge else ""
