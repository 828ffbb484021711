"""The first operation of an eager run that turned finite values into NaN or infinity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from ..load.dataflow import SOFTMAXES
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
    dark: dict[str, Node] = field(default_factory=dict)
    """Infinite values that no input reaches, and what made them: a mask, or a weight that outgrew float32."""
    lows: dict[str, str] = field(default_factory=dict)
    """Values with -inf and nothing worse, as masked logits, and the first one that each comes from."""
    hidden: set[str] = field(default_factory=set)
    """Those of them with a row that holds nothing else."""

    def computed(self, value: str, tensor: torch.Tensor, node: Node, recording: Recording) -> None:
        if self.first or not tensor.is_floating_point() or tensor.is_meta or not tensor.numel():
            return
        live = value in recording.live
        nan = bool(tensor.isnan().any())
        infinite = not nan and bool(tensor.isinf().any())
        low = live and infinite and not bool((tensor == torch.inf).any())
        origin = next((self.lows[each] for each in node.inputs if each in self.lows), value)
        if low:
            self.lows[value] = origin
            if tensor.dim() and bool((tensor == -torch.inf).all(-1).any()):
                self.hidden.add(value)
        elif nan and node.op in SOFTMAXES and not self.hidden.isdisjoint(node.inputs):
            self.first, self.kind = value, "masked"
        elif nan or (live and infinite):
            self.first, self.kind = origin, "nan" if nan and origin == value else "inf"
        elif infinite:
            self.dark[value] = node

    def ended(self) -> None:
        """Without anything worse the first -inf is what there is."""
        if not self.first and self.lows:
            self.first, self.kind = next(iter(self.lows)), "inf"

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
    addresses = _stored(traced, (watch.first, *node.inputs))
    for maker in _makers(watch, node):
        if own := _stored(traced, maker.inputs):
            node, addresses = maker, own
    behind = () if addresses else _behind(traced, node)
    where = f"{node.op.rpartition('::')[2]} at {node.scope}" if node.scope else node.op.rpartition("::")[2]
    return NonFiniteOrigin(layer, where, addresses, watch.kind, behind)


def _makers(watch: Watch, node: Node) -> Iterator[Node]:
    """What made the infinities that ``node`` reads, and that no input reaches, the first of them last."""
    waiting = [node]
    while waiting:
        found = [watch.dark[value] for value in waiting.pop().inputs if value in watch.dark]
        yield from found
        waiting += found


def _stored(traced: TracedModule, values: Iterable[str]) -> tuple[str, ...]:
    """Addresses of the tensors in ``values``: those that are not finite, if some are not."""
    addresses = tuple(dict.fromkeys(address for value in values for address in traced.roots.get(value, ())))
    broken = (each for each in addresses if not traced.held(each).isfinite().all()) if len(addresses) > 1 else ()
    return tuple(broken) or addresses


def _behind(traced: TracedModule, node: Node) -> tuple[str, ...]:
    """Addresses of the stored tensors next before ``node``: those of the maps whose output it reads."""
    recording = traced.recording
    makers = {value: each for each in recording.nodes for value in each.outputs}
    found: dict[str, None] = {}
    waiting, seen = [node], {id(node)}
    while waiting:
        for value in waiting.pop(0).inputs:
            maker = makers.get(value)
            if maker is None or id(maker) in seen:
                continue
            seen.add(id(maker))
            own = _stored(traced, maker.inputs)
            found.update(dict.fromkeys(own))
            waiting += [] if own else [maker]
    return tuple(found)
