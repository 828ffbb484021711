"""The first operation of a backward pass that turned finite gradients into NaN or infinity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..foreign import described
from ..load.from_torch import TracedModule, output_tensors
from ..load.graph import Node
from .autograd_graph import nodes_behind
from .backward import Differentiator
from .signals import GradientSignal, NonFiniteOrigin
from .torch_run import Call, Run, run_kept


@dataclass
class _Watch:
    """Remembers the first node of autograd's graph that was given finite gradients and did not hand such on."""

    first: Any = None
    kind: str = ""

    def over(self, output: Any) -> None:
        for node in nodes_behind(output_tensors(output)):
            node.register_hook(partial(self._handed_on, node))

    def _handed_on(self, node: Any, after: Any, before: Any) -> None:
        if self.first is None and all(map(_is_finite, before)) and not all(map(_is_finite, after)):
            self.first = node
            broken = next(each for each in after if not _is_finite(each))
            self.kind = "nan" if bool(broken.isnan().any()) else "inf"


def _is_finite(gradient: torch.Tensor | None) -> bool:
    return gradient is None or gradient.is_sparse or bool(gradient.isfinite().all())


def gradient_origin(
    differentiator: Differentiator, traced: TracedModule, call: Call, gradients: Mapping[str, GradientSignal]
) -> NonFiniteOrigin | None:
    """Looked for in a pass of its own, and only where a gradient is not finite."""
    broken = tuple(address for address, signal in gradients.items() if not math.isfinite(signal.rms))
    if not broken:
        return None
    layers = [layer.name for layer in traced.model.layers if layer.weight.address in broken]
    watch, operation = _Watch(), "an operation"
    try:
        values = {value for node in traced.recording.nodes for value in node.outputs}
        run = run_kept(differentiator.module, call, autograd=True, wanted=values)
        watch.over(run.output)
        differentiator.of_run(run, 0)
        if watch.first is not None:
            operation = _place(watch.first, run)
    except Exception as error:  # noqa: BLE001 - the user's forward, once more: what the first pass has shown stands
        operation = f"an operation that cannot be told (looked for, the model raised {described(error)})"
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
