"""One eager run of a PyTorch module, recorded as a graph: every ATen operator with its tensors.

What the Python around it looks like does not matter. A value is one state of one tensor: an operator that writes in
place makes a new value of the same tensor, and views of what was written read the new state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Protocol
from weakref import ReferenceType, ref

import torch

from ..probe.torch_rows import Rows, of_attention, of_logits
from .aten import DATALESS, TABLE
from .attentions import ATTENTIONS, SOFTMAXES, attended
from .comparisons import COMPARISONS, DRAWS, Masks
from .graph import LINK, Node
from .registered import Registered
from .steps import PREVIOUS

Rewritten = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""A buffer, the memory that it had at the end of a forward, and a copy of what was in it."""

NOISE = "initlint::Noise"
"""Pseudo operator: values that carry no data of the inputs; ``zero`` says that they are nothing at all."""


@dataclass
class Recording:
    """The graph of one run; ``constants`` holds the tensors that depend on parameters only."""

    nodes: list[Node] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    stored: dict[str, str] = field(default_factory=dict)
    """Value name -> qualified name, of every parameter and buffer that was read."""
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of what operators gave."""
    live: set[str] = field(default_factory=set)
    detached: set[str] = field(default_factory=set)
    """Qualified names of the parameters that the model itself read past autograd."""
    drops: list[str] = field(default_factory=list)
    """Qualified names of the modules that were running when a dropout with p = 1 was called."""
    unregistered: dict[str, torch.Tensor] = field(default_factory=dict)
    """Leaf tensors that the forward uses and that belong to no parameter, buffer or input."""

    def forget_unread(self) -> None:
        """Copies that nobody reads have no readers' rights: autograd keeps what is about to be overwritten.

        Nor have comparisons of which only Python learns, as a look for infinities is.
        """
        read = set(self.outputs)
        for place in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[place]
            if (node.op == "Reshape" or node.chooses) and read.isdisjoint(node.outputs):
                self.nodes[place] = replace(node, inputs=())
            else:
                read.update(node.inputs)


class Watcher(Protocol):
    """Looks on while a run is recorded."""

    def computed(self, value: str, tensor: torch.Tensor, node: Node, recording: Recording) -> None:
        """``node`` has just made ``value``."""

    def about_to_read(self, tensors: Sequence[torch.Tensor]) -> None:
        """An operator is about to run on ``tensors``; results of earlier ones have their place in autograd by now."""

    def about_to_write(self, tensor: torch.Tensor) -> None:
        """The memory of ``tensor`` is about to be overwritten."""

    def normalised(self, result: str, logits: Rows) -> None:
        """A softmax has just made ``result`` of ``logits``, or an attention that has one inside."""


class Recorder:
    """Builds a Recording; modes below feed it."""

    def __init__(self, module: torch.nn.Module, watcher: Watcher | None = None) -> None:
        self.recording = Recording()
        self.scopes: list[str] = [""]
        self.rescued: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        """By name: a parameter or input that was overwritten, and its values before."""
        self.rewritten: list[Rewritten] = []
        """Buffers that the forward has written into."""
        self._watcher = watcher
        self._masks = Masks(self.recording.live)
        self._values: dict[int, tuple[ReferenceType[torch.Tensor], str, int]] = {}
        """Identity -> (the tensor, name of its present state, time at which it got that)."""
        self._written: dict[int, tuple[int, str]] = {}
        """Storage -> (time, value) of the last write in place."""
        self._clock = 0
        self.registered = Registered.of(module)
        parameters, buffers = self.registered.parameters, self.registered.buffers
        named = [*parameters.items(), *buffers.items()]
        self._names = {id(tensor): name for name, tensor in named}
        self._by_storage: dict[int, tuple[str, torch.Tensor]] = {}
        self._guarded: dict[int, tuple[str, torch.Tensor]] = {}
        for name, tensor in named:
            if (key := storage_of(tensor)) is not None:
                self._by_storage.setdefault(key, (name, tensor))
                if name in parameters or isinstance(tensor, torch.nn.Parameter):
                    self._guarded.setdefault(key, (name, tensor))

    # -- values --------------------------------------------------------------------------------------------------

    def add_input(self, name: str, tensor: torch.Tensor) -> None:
        self._assign(tensor, name)
        if (key := storage_of(tensor)) is not None:
            self._guarded.setdefault(key, (name, tensor))
        self.recording.inputs.append(name)
        self.recording.live.add(name)

    def value_of(self, tensor: torch.Tensor) -> str:
        """The name of the tensor's present state; a tensor never seen is a parameter, a buffer or a stray leaf."""
        known = self._values.get(id(tensor))
        if known is not None and known[0]() is tensor:  # and not a later one at the same place
            _, name, time = known
        else:
            name, time = self._introduce(tensor)
        if not self._written:
            return name
        key = storage_of(tensor)
        written = self._written.get(key) if key is not None else None
        if written is not None and written[0] > time and written[1] != name:
            merged = self._new_value()
            self._append(LINK, (name, written[1]), (merged,), {})
            self._assign(tensor, merged)
            return merged
        return name

    def _introduce(self, tensor: torch.Tensor) -> tuple[str, int]:
        qualified = self._names.get(id(tensor))
        if qualified is None and (key := storage_of(tensor)) is not None and key in self._by_storage:
            candidate, owner = self._by_storage[key]
            if owner.numel() == tensor.numel():
                qualified = candidate
        name = qualified if qualified is not None else self._new_value()
        time = self._assign(tensor, name)
        if qualified is not None:
            self.recording.stored[name] = qualified
            if qualified in self.registered.parameters:
                self._masks.add_parameter(name)
        elif tensor.is_floating_point() and tensor.numel() > 1:
            self.recording.unregistered[name] = tensor
        self.recording.constants[name] = tensor.detach()
        return name, time

    def _assign(self, tensor: torch.Tensor, name: str) -> int:
        self._clock += 1
        self._values[id(tensor)] = ref(tensor), name, self._clock
        return self._clock

    def _new_value(self) -> str:
        self._clock += 1
        return f"%{self._clock}"

    def number(self, value: float) -> str:
        name = self._new_value()
        self.recording.numbers[name] = float(value)
        return name

    # -- nodes ---------------------------------------------------------------------------------------------------

    def record(self, name: str, args: Sequence[Any], kwargs: dict[str, Any], outputs: Any) -> None:
        """One executed operator; ``name`` without overload."""
        plain, in_place = _parted(name)
        results = [outputs] if isinstance(outputs, torch.Tensor) else _tensors((outputs,))
        choosing = DRAWS if plain in DRAWS and not in_place and self._from_data(args) else COMPARISONS
        compares = plain in choosing
        if plain in DATALESS and not compares:
            self._finish(NOISE, (), results, {"zero": "zero" in plain}, in_place, args)
            return
        translation = choosing[plain] if compares else TABLE.get(plain)
        if translation is None:
            operands = tuple(self.value_of(t) for t in _tensors((args, kwargs)))
            self._finish(f"aten::{plain}", operands, results, {}, in_place, args)
            return
        try:
            steps = translation(args, kwargs)
        except (IndexError, TypeError, ValueError, AttributeError):
            operands = tuple(self.value_of(t) for t in _tensors((args, kwargs)))
            self._finish(f"aten::{plain}", operands, results, {}, in_place, args)
            return
        previous = ""
        for position, step in enumerate(steps):
            operands = tuple([self._operand(each, previous) for each in step.inputs])
            if position < len(steps) - 1:
                previous = self._new_value()
                self._append(step.op, operands, (previous,), step.attributes, compares)
            else:
                self._finish(step.op, operands, results, step.attributes, in_place, args, compares)
        if plain in SOFTMAXES and len(args) > 1:
            self.normalised(results[0], of_logits(args[0], int(args[1])))
        elif plain in ATTENTIONS and results:
            self.normalised(results[0], of_attention(*attended(plain, args, kwargs)))

    def _from_data(self, args: Sequence[Any]) -> bool:
        values = [self.value_of(tensor) for tensor in _tensors(args)]
        return any(value in self.recording.live or value in self._masks for value in values)

    def _operand(self, operand: Any, previous: str) -> str:
        if isinstance(operand, torch.Tensor):
            return self.value_of(operand)
        if operand is PREVIOUS:
            return previous
        if isinstance(operand, bool | int | float):
            return self.number(float(operand))
        return ""

    def _finish(
        self,
        op: str,
        operands: tuple[str, ...],
        results: Sequence[torch.Tensor],
        attributes: Mapping[str, Any],
        in_place: bool,
        args: Sequence[Any],
        compares: bool = False,
    ) -> None:
        recording, names = self.recording, [self._new_value() for _ in results]
        node = self._append(op, operands, tuple(names), attributes, compares)
        for tensor, name in zip(results, names, strict=True):
            time = self._assign(tensor, name)
            if not tensor.is_nested:
                recording.sizes[name] = tuple(tensor.shape)
            if in_place and (key := storage_of(tensor)) is not None:
                self._written[key] = (time, name)
            if op != NOISE and name not in recording.live and name not in self._masks:
                recording.constants[name] = tensor.detach()
            if self._watcher is not None:
                self._watcher.computed(name, tensor, node, recording)

    def _append(
        self,
        op: str,
        operands: tuple[str, ...],
        outputs: tuple[str, ...],
        attributes: Mapping[str, Any],
        compares: bool = False,
    ) -> Node:
        index = len(self.recording.nodes)
        scope = self.scopes[-1]
        node = Node(op, f"{scope}/{op}" if scope else op, operands, outputs, None, index, False, scope)
        node.__dict__["attributes"] = dict(attributes)  # the cached property of a node without a protobuf
        self.recording.nodes.append(node)
        self._masks.see(node, compares)
        return node

    def _tell(self, value: str, tensor: torch.Tensor) -> None:
        if self._watcher is not None:
            self._watcher.computed(value, tensor, self.recording.nodes[-1], self.recording)

    def before(self, args: Sequence[Any], kwargs: Mapping[str, Any], written: Sequence[Any]) -> None:
        """An operator is about to run: the last moment to see the tensors among ``written`` as they are."""
        if self._watcher is not None:
            self._watcher.about_to_read(_tensors((args, kwargs) if kwargs else args))
        for tensor in _tensors(written) if written else ():
            self._rescue(tensor)
            if self._watcher is not None:
                self._watcher.about_to_write(tensor)

    def normalised(self, result: torch.Tensor, logits: Rows) -> None:
        """``result`` is what a softmax made of logits, or what an attention with such a softmax gave."""
        if self._watcher is not None and (value := self.value_of(result)) in self.recording.live:
            self._watcher.normalised(value, logits)

    def _rescue(self, tensor: torch.Tensor) -> None:
        """Keep the values of a parameter or input that the forward overwrites, as clipped weights are."""
        key = storage_of(tensor)
        if key is not None and key in self._guarded:
            name, owner = self._guarded[key]
            if name not in self.rescued:
                self.rescued[name] = (owner, owner.detach().clone())

    def put_back(self) -> None:
        """Give overwritten parameters and inputs their values back; autograd does not notice."""
        for owner, values in self.rescued.values():
            owner.data.copy_(values)

    def detached(self, tensor: torch.Tensor) -> None:
        """The model is about to read ``tensor`` past autograd, by ``detach`` or ``.data``."""
        name = self.value_of(tensor)
        if name in self.recording.stored:
            self.recording.detached.add(self.recording.stored[name])

    # -- functions that are recorded as one node ------------------------------------------------------------------

    def opaque(self, op: str, operands: Sequence[Any], results: Sequence[torch.Tensor], **attributes: Any) -> None:
        """A function whose inside was not watched: ``operands`` are tensors or None."""
        names = tuple(self._operand(each, "") for each in operands)
        self._finish(op, names, results, attributes, False, ())

    def hidden(self, op: str, operands: Sequence[Any], **attributes: Any) -> str:
        """A node whose result exists inside an opaque function only; an operand may be such a result's name."""
        names = tuple(each if isinstance(each, str) else self._operand(each, "") for each in operands)
        value = self._new_value()
        self._append(op, names, (value,), attributes)
        return value

    def recurrence(
        self,
        kind: str,
        data: torch.Tensor,
        weights: Sequence[torch.Tensor],
        has_biases: bool,
        layers: int,
        both: bool,
        outputs: Sequence[torch.Tensor],
    ) -> None:
        """One node per layer and direction; a layer reads the outputs of the one below."""
        directions = 2 if both else 1
        per_cell = len(weights) // (layers * directions)
        current = [self.value_of(data)]
        for layer in range(layers):
            results = []
            for direction in range(directions):
                start = (layer * directions + direction) * per_cell
                cell = list(weights[start : start + per_cell])
                bias = cell[2:4] if has_biases else [None, None]
                attributes = {"kind": kind, "reverse": direction == 1, "layer": layer}
                source = current[0] if len(current) == 1 else self.hidden("Concat", current)
                results.append(self.hidden("initlint::Recurrence", (source, *cell[:2], *bias), **attributes))
            current = results
        for tensor in _tensors((outputs,)):
            self.alias(tensor, current)
        halves = outputs[0].chunk(directions, -1) if both else (outputs[0],)
        for value, half in zip(current, halves, strict=True):
            self._tell(value, half)

    def alias(self, tensor: torch.Tensor, sources: Sequence[str]) -> None:
        """``tensor`` is what the values ``sources`` became."""
        value = self._new_value()
        self._append(LINK, tuple(sources), (value,), {})
        self._assign(tensor, value)
        self._tell(value, tensor)


@cache
def _parted(name: str) -> tuple[str, bool]:
    """(the operator without the mark of its in-place form, whether it has that and overwrites its first argument)."""
    in_place = name.endswith("_") and not name.startswith("_")
    return name.rstrip("_") if in_place else name, in_place


def storage_of(tensor: torch.Tensor) -> int | None:
    """Identity of the memory behind a tensor; None for tensors without any (meta, sparse, nested, lazy)."""
    try:
        identity: int = tensor.untyped_storage()._cdata
        return identity
    except (RuntimeError, NotImplementedError, AttributeError, ValueError):
        return None


def _tensors(trees: Iterable[Any]) -> list[torch.Tensor]:
    """The tensors among arguments or results of an operator, in order."""
    found: list[torch.Tensor] = []
    for tree in trees:
        if isinstance(tree, torch.Tensor):
            found.append(tree)
        elif isinstance(tree, (list, tuple)):
            found += _tensors(tree)
        elif isinstance(tree, dict):
            found += _tensors(tree.values())
    return found
