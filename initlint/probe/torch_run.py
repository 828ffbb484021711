"""One run of a module under watch: what the loader reads, what the probe measures, and the way back for gradients.

A run comes before anyone knows which of its values are outputs of layers. What may be one is therefore kept until the
graph has been read; autograd holds most of it anyway, for its backward pass.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from operator import is_
from typing import Any

import torch

from ..load.eager import run
from ..load.from_torch import named_inputs, output_tensors
from ..load.graph import LINK, Node
from ..load.registered import Registered, modules_of
from ..load.trace import Recorder, Recording, Rewritten, Watcher, storage_of
from .torch_rows import Rows

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a forward."""

Edge = tuple[Any, int]
"""The autograd node that made a tensor, and which of its outputs the tensor is."""

NOT_ASKED = "they were not asked for"

Attributes = list[tuple[dict[str, Any], dict[str, Any]]]
"""Dictionaries that belong to modules, each with what it held."""


@dataclass
class Run:
    """What one run left behind. ``kept`` is to be emptied as soon as it was measured."""

    call: Call
    recording: Recording
    output: Any
    kept: Kept
    registered: Registered
    attributes: Attributes
    """What the modules' attributes were when the forward was over: a loss may read what it put there."""
    overwritten: Mapping[str, torch.Tensor]
    """Parameters and inputs that the forward itself writes into, by name; they have their values back."""
    rewritten: Sequence[Rewritten] = ()
    """Buffers as the forward left them, which the backward pass may read; they have their values back."""
    no_autograd: str = ""
    """Why autograd did not watch."""


def run_kept(module: torch.nn.Module, call: Call, *, autograd: bool, wanted: Collection[str] | None = None) -> Run:
    """Run the module once; ``wanted`` names the values to keep, where that is known. The forward's exceptions pass.

    A forward that works without autograd only (it writes into a parameter) is run again without.
    """
    reason = NOT_ASKED
    if autograd:
        try:
            return _kept(module, call, Kept(wanted), "")
        except RuntimeError as error:
            reason = f"the forward fails where they are recorded ({str(error).strip().splitlines()[0]})"
    return _kept(module, call, Kept(wanted), reason)


def _kept(module: torch.nn.Module, call: Call, kept: Kept, no_autograd: str) -> Run:
    recorder, output, attributes = watched(module, call, kept, autograd=not no_autograd)
    kept.close()
    overwritten = {name: owner for name, (owner, _) in recorder.rescued.items()}
    return Run(
        call,
        recorder.recording,
        output,
        kept,
        recorder.registered,
        attributes,
        overwritten,
        recorder.rewritten,
        no_autograd,
    )


def watched(
    module: torch.nn.Module, call: Call, watcher: Watcher, *, autograd: bool
) -> tuple[Recorder, Any, Attributes]:
    """Run the module once under ``watcher``: (recorder, what it returned, attributes of its modules at the end)."""
    recorder = Recorder(module, watcher)
    for name, tensor in named_inputs(*call):
        recorder.add_input(name, tensor)
        if not tensor.is_nested:
            recorder.recording.sizes[name] = tuple(tensor.shape)
    with ExitStack() as stack:
        stack.enter_context(differentiating() if autograd else torch.no_grad())
        stack.enter_context(attributes_kept(module))
        output = run(module, call[0], call[1], recorder)
        recorder.recording.outputs = [recorder.value_of(tensor) for tensor in output_tensors(output)]
        return recorder, output, _attributes(module)


@contextmanager
def differentiating() -> Iterator[None]:
    """Autograd is on inside, whatever the caller's mode."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # its RNNs have no backward in eval mode
        yield


@contextmanager
def restored(parameters: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Whatever happens inside, the values are afterwards what they were, bit for bit."""
    saved = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    try:
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data.copy_(saved[name])


@contextmanager
def attributes_kept(module: torch.nn.Module, during: Attributes | None = None) -> Iterator[None]:
    """Modules get back the attributes, buffers and parameters they have now; inside they have those of ``during``."""
    before = _attributes(module)
    try:
        if during is not None:
            _set(during)
        yield
    finally:
        _set(before)


def _attributes(module: torch.nn.Module) -> Attributes:
    """Of every module, and what its dictionaries of buffers and the like hold (scripted modules have none)."""
    own = [each.__dict__ for each in modules_of(module)]
    registered = [attributes[key] for attributes in own for key in _REGISTERED if isinstance(attributes.get(key), dict)]
    return [(each, dict(each)) for each in (*own, *registered)]


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_REGISTERED = ("_buffers", "_parameters", "_modules", *_HOOKS)


def _set(attributes: Attributes) -> None:
    for present, saved in attributes:
        if (not present and not saved) or _same(present, saved):
            continue
        for name in [name for name in present if name not in saved]:
            del present[name]
        for name, value in saved.items():
            if name not in present or present[name] is not value:
                present[name] = value


def _same(present: Mapping[str, Any], saved: Mapping[str, Any]) -> bool:
    """Whether they hold the same objects in the same order; mostly nothing has changed."""
    return (
        len(present) == len(saved) and all(map(is_, present.values(), saved.values())) and all(map(is_, present, saved))
    )


@dataclass
class Kept:
    """A watcher that keeps what may be the output of a layer, as it was before anything overwrote it."""

    wanted: Collection[str] | None = None
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    edges: dict[str, Edge] = field(default_factory=dict)
    rows: dict[str, torch.Tensor] = field(default_factory=dict)
    """Rows of logits, by the value that their softmax gave."""
    passed: set[str] = field(default_factory=set)
    """Values that were seen and not kept."""
    read_by_autograd: set[int] = field(default_factory=set)
    """Identities of leaf tensors that were read while autograd was watching."""
    _pending: dict[int, list[str]] = field(default_factory=dict)
    _at: dict[int, list[str]] = field(default_factory=dict)

    def computed(self, value: str, tensor: torch.Tensor, node: Node, recording: Recording) -> None:
        if not (tensor.is_floating_point() or tensor.is_complex()):
            self.passed.add(value)
            return
        key = storage_of(tensor)
        if not self._may_be_output(value, key, node, recording):
            self.passed.add(value)
            return
        self.tensors[value] = tensor
        self._pending.setdefault(id(tensor), []).append(value)
        if key is not None:
            self._at.setdefault(key, []).append(value)

    def _may_be_output(self, value: str, key: int | None, node: Node, recording: Recording) -> bool:
        """A weighted operation has an operand that does not come from the inputs; a view costs nothing."""
        if self.wanted is not None:
            return value in self.wanted
        if node.op == LINK or key in self._at:
            return True
        weights = recording.constants if value in recording.live else recording.stored  # positions read a table
        return not weights.keys().isdisjoint(node.inputs)

    def about_to_read(self, tensors: Sequence[torch.Tensor]) -> None:
        for tensor in tensors:
            if id(tensor) in self._pending:
                self._note_edge(tensor)
            elif tensor.requires_grad and tensor.is_leaf and torch.is_grad_enabled():
                self.read_by_autograd.add(id(tensor))

    def about_to_write(self, tensor: torch.Tensor) -> None:
        key = storage_of(tensor)
        for value in self._at.pop(key, ()) if key is not None else ():
            held = self.tensors[value]
            if id(held) in self._pending:
                self._note_edge(held)
            self.tensors[value] = held.detach().clone()

    def normalised(self, result: str, logits: Rows) -> None:
        with suppress(RuntimeError, IndexError, ValueError, TypeError):  # a nested or sparse tensor, or an odd mask
            self.rows[result] = logits()

    def _note_edge(self, tensor: torch.Tensor) -> None:
        for value in self._pending.pop(id(tensor)):
            if tensor.grad_fn is not None:
                self.edges[value] = (tensor.grad_fn, tensor.output_nr)

    def close(self) -> None:
        """The run is over."""
        for tensor in list(self.tensors.values()):
            if id(tensor) in self._pending:
                self._note_edge(tensor)
        self._pending.clear()
        self._at.clear()

    def release(self) -> None:
        """Let go of the values; the edges stay."""
        self.tensors.clear()
        self.rows.clear()
