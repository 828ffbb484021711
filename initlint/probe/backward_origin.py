"""The first operation of a backward pass that turned finite gradients into NaN or infinity."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..load.from_torch import TracedModule, output_tensors
from ..load.graph import Node
from .backward import Differentiator
from .signals import GradientSignal, NonFiniteOrigin
from .torch_run import Call, Run, run_kept


class _Everything:
    """Names of all values."""

    def __contains__(self, value: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 1


@dataclass
class _Watch:
    """Remembers the first node of autograd's graph that was given finite gradients and did not hand such on."""

    first: Any = None
    kind: str = ""
    handles: list[Any] = field(default_factory=list)

    def over(self, output: Any) -> None:
        pending = [t.grad_fn for t in output_tensors(output) if t.grad_fn is not None]
        seen = set(pending)
        while pending:
            node = pending.pop()
            self.handles.append(node.register_hook(self._seen_by(node)))
            for each, _ in node.next_functions:
                if each is not None and each not in seen:
                    seen.add(each)
                    pending.append(each)

    def _seen_by(self, node: Any) -> Any:
        def hook(after: Any, before: Any) -> None:
            if self.first is None and all(map(_is_finite, before)) and not all(map(_is_finite, after)):
                self.first = node
                broken = next(each for each in after if not _is_finite(each))
                self.kind = "nan" if bool(broken.isnan().any()) else "inf"

        return hook


def _is_finite(gradient: torch.Tensor | None) -> bool:
    return gradient is None or gradient.is_sparse or bool(gradient.isfinite().all())


def gradient_origin(
    differentiator: Differentiator, traced: TracedModule, call: Call, gradients: Mapping[str, GradientSignal]
) -> NonFiniteOrigin | None:
    """Looked for in a pass of its own, and only where a gradient is not finite."""
    broken = tuple(address for address, signal in gradients.items() if not math.isfinite(signal.rms))
    if not broken:
        return None
    run = run_kept(differentiator.module, call, autograd=True, wanted=_Everything())
    watch = _Watch()
    watch.over(run.output)
    differentiator.of_run(run, 0)
    layers = [layer.name for layer in traced.model.layers if layer.weight.address in broken]
    operation = _place(watch.first, run) if watch.first is not None else "an operation"
    return NonFiniteOrigin(layers[-1] if layers else "", operation, broken, watch.kind or "nan")


def _place(node: Any, run: Run) -> str:
    """Operator and place of what ``node`` is the derivative of; autograd's own name where it was not recorded."""
    made: dict[str, Node] = {value: each for each in run.recording.nodes for value in each.outputs}
    for value, (grad_fn, _) in run.kept.edges.items():
        if grad_fn is node and value in made:
            maker = made[value]
            name = maker.op.rpartition("::")[2]
            return f"{name} at {maker.scope}" if maker.scope else name
    return str(node.name()).partition("Backward")[0]
