"""Calls of flat functions that no batch opens, because what they are applied to is made of parameters alone.

``scale.clamp(0.1, 1)`` of a scale below 0.1 passes no gradient, and as no input has a say in it only a step of the
scale itself could change that. Whether training adds noise in front of it (hard-concrete gates) shows in a second look
with the modules in training mode.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..load.eager import run
from ..load.from_torch import named_inputs
from ..load.trace import Recorder, Recording
from .ajar import Gauge, flattened
from .backward import Differentiator
from .torch_run import Call, attributes_kept

Made = Mapping[int, frozenset[str]]
"""By number of a call of a flat function that no input has a say in: the parameters its argument is made of."""


class _Sources(TorchFunctionMode):
    """Notes which value goes into every call of a flat function."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.values: list[str] = []
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        data = flattened(getattr(func, "__name__", ""), args, kwargs)
        if data is not None:
            self.values.append(self._recorder.value_of(data))
        return func(*args, **kwargs)


def made_of_parameters(differentiator: Differentiator, calls: Sequence[Call]) -> Made:
    """Numbers as those of Ajar and Gauge; raises what the forward does."""
    module, call = differentiator.module, calls[0]
    recorder = Recorder(module)
    for name, tensor in named_inputs(*call):
        recorder.add_input(name, tensor)
    with torch.no_grad(), attributes_kept(module), _Sources(recorder) as sources:
        run(module, call[0], call[1], recorder)
    stored = _without_inputs(recorder.recording, sources.values)
    names = set(differentiator.registered)
    made = {number: found & names for number, found in stored.items() if found & names}
    if not made:
        return {}
    states = frozenset[str]().union(*stored.values())
    looks = [_gauged(differentiator, call) for call in calls]
    for seed in range(_LOOKS):
        noisy = Gauge()
        if differentiator.trained(calls[0], noisy, seed) & states:
            return {}  # training fills what stands beside the parameters
        looks.append(noisy)
    if any(len(look.seen) != len(sources.values) for look in looks):
        return {}
    return {n: each for n, each in made.items() if all(look.seen[n] == looks[0].seen[n] for look in looks)}


_LOOKS = 2
"""In training mode, with seeds of their own."""


def _gauged(differentiator: Differentiator, call: Call) -> Gauge:
    differentiator.outputs(call, gauge := Gauge())
    return gauge


def _without_inputs(recording: Recording, values: Sequence[str]) -> dict[int, frozenset[str]]:
    """By place among ``values``: the stored tensors it is made of, where no input is among its sources."""
    makers = {output: node for node in recording.nodes for output in node.outputs}
    inputs = frozenset(recording.inputs)
    found = {}
    for number, value in enumerate(values):
        sources = _sources(value, makers)
        if inputs.isdisjoint(sources):
            found[number] = frozenset(recording.stored[each] for each in sources if each in recording.stored)
    return found


def _sources(value: str, makers: Mapping[str, Any]) -> Collection[str]:
    seen, pending = {value}, [value]
    while pending:
        node = makers.get(pending.pop())
        fresh = [each for each in node.inputs if each and each not in seen] if node is not None else []
        seen.update(fresh)
        pending += fresh
    return seen
