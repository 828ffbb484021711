"""Positions or other learned inputs are so large that a normalisation leaves next to nothing of the data beside them.

## Why it matters

Tokens of size 1 beside positions of size 100: a layer norm behind the sum brings it back to size 1, of which a
hundredth depends on the data. To every layer behind it all samples look the same. Nothing is loud or silent there, so
that no other signal shows it; what learned positions add differs from place to place, and looks like signal, too.

Measured is what differs from sample to sample at one and the same place, behind the norms that all of the signal
passes, and suspected only what is far above order one itself. Positions of order one beside tokens of size 0.02, as
in transformers without the factor sqrt(width), are left alone: Adam evens that out.

Files with a fixed batch of 1 are not looked at, nor are places that the network folds into its batch.

## Example

    self.positions = nn.Parameter(torch.randn(197, 768) * 100)   # x = norm(patches + self.positions)

## Fix

`nn.init.normal_(self.positions, std=0.02)`, or whatever the size of what they are added to.

## References

- Vaswani et al. 2017 (arXiv:1706.03762), section 3.4: embeddings are multiplied by sqrt(width) before positions join
- `benchmarks/results/calibrate_positions.md`: transformers and others by the size of their positions
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from initlint.plugin import (
    Context,
    Fill,
    Layer,
    Needs,
    Reinit,
    Role,
    Several,
    Severity,
    Suspicion,
    Tensor,
    is_far,
    rule,
)


@dataclass(frozen=True)
class Options:
    warn: float = 0.1  # calibrate_positions.md: from a ratio of 10 on SGD fails
    fail: float = 3e-3  # calibrate_positions.md: from a ratio of 300 on both optimisers fail
    rounding: float = 1e-6  # ten times that of float32: what shows less was fed with constants
    table: float = 10.0  # far above order one (redraw.FAR): nn.Embedding draws from N(0, 1)
    beside: float = 0.1  # of the loudest: what is as loud within a decade is redrawn with it


@rule(
    category="signal",
    needs=Needs.FORWARD | Needs.WEIGHTS,
    options=Options,
    message="its values of rms {rms} drown the inputs: only {share} of what the norm {norm} gives differs from sample "
    "to sample",
    explains=("collapsed-inputs", "vanishing-signal", "vanishing-gradient", "exploding-gradient"),
)
def drowned_inputs(context: Context, options: Options) -> Iterator[Suspicion]:
    shares = {layer.name: _share(context, layer) for layer in context.model.layers}
    drowned = {name: share for name, share in shares.items() if options.rounding < share < options.warn}
    loud = _loud(context, options) if drowned else {}
    if not loud:
        return
    norm, share = min(drowned.items(), key=lambda item: item[1])
    loudest = max(loud, key=lambda address: loud[address])
    named = [address for address, rms in loud.items() if rms >= options.beside * loud[loudest]]
    edits = tuple(_drawn(context, address, min(1.0, loud[address] * share)) for address in named)
    severity = Severity.ERROR if share < options.fail else Severity.WARNING
    data = {"rms": loud[loudest], "share": share, "norm": norm, "threshold": options.warn}
    yield Suspicion(loudest, severity, data, edits[0] if len(edits) == 1 else Several(edits))


def _share(context: Context, layer: Layer) -> float:
    """Of what a norm gives: what differs from sample to sample. Infinite where that was not measured."""
    signal = context.signal(layer)
    if signal is None or layer.learnt_input or not 0.0 < signal.rms < math.inf:
        return math.inf
    return signal.sample_std / signal.rms


def _loud(context: Context, options: Options) -> dict[str, float]:
    """Root mean square, by address, of what is no map's and no bias, and far above order one."""
    found = {}
    for tensor in context.model.tensors:
        stats = context.stats.get(tensor.address)
        if stats is not None and _adds_itself(context, tensor):
            rms = math.sqrt(stats.mean_square)
            table = tensor.role is Role.TABLE and rms > options.table
            if math.isfinite(rms) and (table or is_far(context.model, tensor, stats)):
                found[tensor.address] = rms
    return found


def _adds_itself(context: Context, tensor: Tensor) -> bool:
    free = tensor.trainable and tensor.address not in context.model.uneditable
    return free and tensor.role in (Role.OTHER, Role.TABLE) and tensor.size > 1


def _drawn(context: Context, address: str, std: float) -> Reinit | Fill:
    stats = context.stats[address]
    size = float(f"{std:.2g}")
    return Fill(address, size) if stats.min == stats.max else Reinit(address, "normal", size)
