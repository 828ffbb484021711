"""The first operation of an eager run that turned finite values into NaN or infinity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..load.from_torch import TracedModule
from ..load.graph import Node
from ..load.trace import NOISE, Recording
from .signals import LayerSignal, NonFiniteOrigin
from .torch_rows import Rows


@dataclass
class Watch:
    """Remembers the first value that was not finite; constants may hold -inf, as masks do."""

    first: str = ""
    kind: str = ""

    def computed(self, value: str, tensor: torch.Tensor, node: Node, recording: Recording) -> None:
        if self.first or not tensor.is_floating_point() or tensor.is_meta or not tensor.numel():
            return
        live = value in recording.live
        nan = bool(tensor.isnan().any())
        if nan or (live and bool(tensor.isinf().any())):
            self.first, self.kind = value, "nan" if nan else "inf"

    def about_to_read(self, tensors: Sequence[torch.Tensor]) -> None:
        """Of no interest."""

    def about_to_write(self, tensor: torch.Tensor) -> None:
        """Of no interest."""

    def normalised(self, result: str, logits: Rows) -> None:
        """Of no interest."""


def origin_of(traced: TracedModule, watch: Watch, signals: Mapping[str, LayerSignal]) -> NonFiniteOrigin | None:
    """What ``watch`` saw, in the words of the model."""
    node = next((each for each in traced.recording.nodes if watch.first in each.outputs), None)
    if node is None or node.op == NOISE:
        return None
    layer = next((name for name, signal in signals.items() if signal.nonfinite > 0), "")
    addresses: dict[str, None] = {}
    for value in (watch.first, *node.inputs):
        addresses.update(dict.fromkeys(traced.roots.get(value, ())))
    where = f"{node.op.rpartition('::')[2]} at {node.scope}" if node.scope else node.op.rpartition("::")[2]
    return NonFiniteOrigin(layer, where, tuple(addresses), watch.kind)
