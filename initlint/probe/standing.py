"""Calls of flat functions that no batch opens, because what they are applied to is made of parameters alone.

``scale.clamp(0.1, 1)`` of a scale below 0.1 passes no gradient, and as no input has a say in it only a step of the
scale itself could change that. Whether training adds noise in front of it (hard-concrete gates) shows in a second look
with the modules in training mode. Noise that opens none of them at any of several looks frees nothing where the outputs
are the same for all inputs: gates of log alpha below -5 fail with either optimiser, though one opens now and then.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from ..load.eager import run
from ..load.from_torch import named_inputs
from ..load.trace import Recorder, Recording
from .ajar import Gauge, Seen, flattened
from .backward import Differentiator
from .torch_run import Call, attributes_kept

Made = Mapping[int, frozenset[str]]
"""By number of a call of a flat function that no input has a say in: the parameters its argument is made of."""


class _Fresh:
    """Which tensors are made of neither parameters nor inputs: noise and constants drawn or made in the forward."""

    def __init__(self) -> None:
        self._known: dict[int, torch.Tensor] = {}  # held, so that no other one gets its identity

    def __contains__(self, tensor: torch.Tensor) -> bool:
        return id(tensor) in self._known

    def note(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], output: Any) -> None:
        if not isinstance(output, torch.Tensor):
            return
        read = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        if name.endswith("_like") or name.startswith("new_") or all(each in self for each in read):
            self._known[id(output)] = output
        else:
            self._known.pop(id(output), None)  # written into


class _Sources(TorchFunctionMode):
    """Notes which value goes into every call of a flat function."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.values: list[str] = []
        self.fresh: set[int] = set()
        """Numbers of the calls that are applied to noise or constants."""
        self._recorder, self._fresh = recorder, _Fresh()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        data = flattened(name, args, kwargs)
        if data is not None:
            if data in self._fresh:
                self.fresh.add(len(self.values))
            self.values.append(self._recorder.value_of(data))
        output = func(*args, **kwargs)
        self._fresh.note(name, args, kwargs, output)
        return output


class _Look(Gauge):
    """One in training mode, where noise may pass flat functions of its own before it joins anything."""

    def __init__(self) -> None:
        super().__init__()
        self._fresh = _Fresh()

    def call(self, name: str, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        data = flattened(name, args, kwargs)
        aside = data is not None and data in self._fresh
        output = func(*args, **kwargs) if aside else super().call(name, func, args, kwargs)
        self._fresh.note(name, args, kwargs, output)
        return output


def made_of_parameters(differentiator: Differentiator, calls: Sequence[Call], outputs_alike: bool = False) -> Made:
    """Numbers as those of Ajar and Gauge; raises what the forward does.

    Noise counts only if it opens something where the ``outputs_alike`` show that no input gets through.
    """
    module, call = differentiator.module, calls[0]
    recorder = Recorder(module)
    for name, tensor in named_inputs(*call):
        recorder.add_input(name, tensor)
    with torch.no_grad(), attributes_kept(module), _Sources(recorder) as sources:
        run(module, call[0], call[1], recorder)
    stored = _without_inputs(recorder.recording, sources.values)
    names = set(differentiator.registered)
    made = {number: each & names for number, each in stored.items() if each & names and number not in sources.fresh}
    if not made:
        return {}
    states = frozenset[str]().union(*stored.values())
    own = [number for number in range(len(sources.values)) if number not in sources.fresh]
    still = [_gauged(differentiator, call) for call in calls]
    if any(len(look) != len(sources.values) for look in still):
        return {}
    looks = [[look[number] for number in own] for look in still]
    for seed in range(_LOOKS_AT_NOISE if outputs_alike else _LOOKS):
        noisy = _Look()
        if differentiator.trained(calls[0], noisy, seed) & states:
            return {}  # training fills what stands beside the parameters
        looks.append(noisy.seen)
    if any(len(look) != len(own) for look in looks):
        return {}
    seen = {number: [look[own.index(number)] for look in looks] for number in made}
    if outputs_alike:
        return {number: each for number, each in made.items() if _stands(seen[number]) or _is_shut(seen[number])}
    return {number: each for number, each in made.items() if _stands(seen[number])}


def _stands(seen: Sequence[Seen]) -> bool:
    return all(each == seen[0] for each in seen)


def _is_shut(seen: Sequence[Seen]) -> bool:
    """Whether no value had a slope in any look."""
    return all(each.distance > 0 for each in seen)


_LOOKS = 2
"""In training mode, with seeds of their own."""
_LOOKS_AT_NOISE = 8
"""Of 32 gates, those of which one opens in eight steps are seen to; with one in eight steps the net learns nothing."""


def _gauged(differentiator: Differentiator, call: Call) -> Sequence[Seen]:
    differentiator.outputs(call, gauge := Gauge())
    return gauge.seen


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
