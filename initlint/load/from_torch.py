"""A PyTorch module as the neutral Model: its graph is recorded from one eager run and read like an ONNX graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ..model import SCATTERED, Model, NotChecked
from ..probe.taps import SoftmaxTap, Tap
from .assembly import Assembled, assemble, pieces
from .constants import Constants
from .folding import Array, placeholder
from .graph import Graph
from .registered import Registered
from .stored import Stored
from .trace import Recording, storage_of
from .unfed import without_layer


@dataclass(frozen=True)
class TracedModule:
    """A recorded module: the neutral model, where to measure, and access to weights by address."""

    model: Model
    taps: tuple[Tap, ...]
    constants: TensorConstants
    stored_at: Mapping[str, Stored]
    roots: Mapping[str, tuple[str, ...]]
    """Value name -> addresses of the tensors it holds."""
    recording: Recording
    softmaxes: tuple[SoftmaxTap, ...] = ()

    def chunks(self, address: str) -> Iterator[Array]:
        """Rows (n, fan_in) of the canonical view, in order."""
        stored = self.stored_at[address]
        return pieces(stored, self.constants)

    def held(self, address: str) -> torch.Tensor:
        """A view of the parameter or buffer that holds the tensor; a copy where it is in ``model.uneditable``."""
        return self.recording.constants[self.stored_at[address].value]

    def write(self, address: str, rows: Array) -> None:
        """Put new values, given as canonical rows, into the parameter or buffer itself."""
        tensor = self.held(address)
        original = to_numpy(tensor)
        if original is None:
            raise KeyError(address)
        values = torch.from_numpy(self.stored_at[address].restored(rows, original)).to(tensor.dtype)
        tensor.data.copy_(values.reshape(tensor.shape))


class TensorConstants(Constants):
    """Constants of a recording: the tensors themselves."""

    def __init__(self, graph: Graph, recording: Recording, registered: Registered) -> None:
        super().__init__(graph, None)
        self._tensors = recording.constants
        self._numbers = recording.numbers
        self._registered = registered
        self._strays = recording.unregistered

    def is_fixed(self, name: str) -> bool:
        """Buffers are in no optimiser; nor is a plain tensor in a closure or a list that asks for no gradient."""
        stray = self._strays.get(name)
        constant = stray is not None and not stray.requires_grad and not isinstance(stray, torch.nn.Parameter)
        return constant or name in self._registered.buffers

    def is_own(self, name: str) -> bool:
        return name in self._registered.parameters or super().is_own(name)

    def is_stray(self, name: str) -> bool:
        """What a closure or a list holds."""
        return name in self._strays

    def aliases(self, name: str) -> tuple[str, ...]:
        """Every qualified name of a tied parameter."""
        return self._registered.aliases.get(name, ())

    def spec(self, name: str) -> Array | None:
        if name in self._numbers:
            return placeholder((), np.dtype(np.float32))
        tensor = self._tensors.get(name)
        return None if tensor is None else placeholder(tuple(tensor.shape), _dtype(tensor.dtype))

    def array(self, name: str) -> Array | None:
        if name in self._numbers:
            return np.asarray(self._numbers[name], np.float32)
        tensor = self._tensors.get(name)
        return None if tensor is None else to_numpy(tensor)


def to_numpy(tensor: torch.Tensor) -> Array | None:
    """The values without a copy where numpy has the type; None where there are none (meta, sparse, complex)."""
    if tensor.is_meta or tensor.layout is not torch.strided or tensor.is_complex():
        return None
    plain = tensor.detach()
    if type(plain) is not torch.Tensor and type(plain) is not torch.nn.Parameter:
        plain = plain.as_subclass(torch.Tensor)
    plain = plain.cpu().resolve_conj().resolve_neg()
    if plain.dtype in (torch.bfloat16, *_FLOAT8):
        plain = plain.float()
    return np.asarray(plain.numpy())


_FLOAT8 = tuple(getattr(torch, name) for name in dir(torch) if name.startswith("float8_"))


@cache
def _dtype(dtype: torch.dtype) -> np.dtype[Any]:
    import ml_dtypes

    name = str(dtype).removeprefix("torch.")
    try:
        return np.dtype(getattr(ml_dtypes, name) if hasattr(ml_dtypes, name) else name)
    except TypeError:
        return np.dtype(object)


def read(recording: Recording, registered: Registered, rewritten: Iterable[torch.Tensor] = ()) -> TracedModule:
    """The graph that was recorded of a module, and what that has registered.

    Of buffers that the forward has ``rewritten`` those count that it read before: the others hold what was left there.
    """
    left = {id(buffer) for buffer in rewritten}
    overwritten = {name for name, buffer in registered.buffers.items() if id(buffer) in left} if left else set()
    recording.forget_unread()
    unread = overwritten.difference(*(node.inputs for node in recording.nodes), recording.outputs)
    for name in unread:
        recording.stored.pop(name, None)
    for name, buffer in registered.buffers.items():  # batch statistics stood in for running ones
        if name not in recording.stored and name not in unread:
            recording.stored[name] = name
            recording.constants[name] = buffer.detach()
    _see_through_rounding(recording)
    graph = graph_of(recording)
    constants = TensorConstants(graph, recording, registered)
    assembled = assemble(graph, constants, "torch", f"pytorch {torch.__version__}", not_checked=_not_checked(recording))
    recording.live |= graph.live
    mixed = {address for addresses in assembled.roots.values() for address in addresses[1:]}
    model = replace(
        assembled.model,
        not_checked=(*assembled.model.not_checked, *without_layer(assembled.model, recording, mixed)),
        buffers=frozenset(registered.buffers),
        reordered=frozenset(_reordered(assembled, registered)),
        packed_along=dict(_packed_along(assembled, recording, registered)),
        uneditable=frozenset(_uneditable(assembled, recording, registered)),
    )
    return TracedModule(
        model, assembled.taps, constants, assembled.stored_at, assembled.roots, recording, assembled.softmaxes
    )


def _see_through_rounding(recording: Recording) -> None:
    """What fake quantisation rounds is looked at, and changed, as it is stored."""
    seen: dict[str, torch.Tensor] = {}
    for node in recording.nodes:
        source, result = node.input(0), node.outputs[0] if node.outputs else ""
        before = seen.get(source, recording.constants.get(source) if source in recording.stored else None)
        known = recording.constants.get(result)
        if before is None or (source not in seen and node.op != "Cast"):
            continue
        if node.op == "Cast":
            seen[result] = before
        elif node.op == "Transpose" and len(perm := node.integers("perm") or (1, 0)) == before.ndim:
            seen[result] = before.permute(perm)
        elif node.op == "Reshape" and known is not None and before.is_contiguous():
            seen[result] = before.view(known.shape)
    for name, tensor in seen.items():
        rounded = recording.constants.get(name)
        if rounded is not None and rounded.dtype == tensor.dtype and rounded.shape == tensor.shape:
            recording.constants[name] = tensor


def _reordered(assembled: Assembled, registered: Registered) -> Iterator[str]:
    """Addresses of what is not held in the shape that PyTorch gives it."""
    held = {**registered.buffers, **registered.parameters}
    for tensor in assembled.model.tensors:
        piece = assembled.model.pieces.get(tensor.address, "")
        whole = held.get(tensor.address.removesuffix(piece))
        if whole is not None and _cut(tuple(whole.shape), piece) != tensor.shape:
            yield tensor.address


def _cut(shape: tuple[int, ...], piece: str) -> tuple[int, ...]:
    """The shape of a piece ("[2, :, 0:10]") of what has ``shape``."""
    terms = piece[1:-1].split(", ") if piece else []
    sizes = []
    for size, term in zip(shape, [*terms, *[":"] * (len(shape) - len(terms))], strict=True):
        first, colon, last = term.partition(":")
        if colon:
            sizes.append((int(last) if last else size) - (int(first) if first else 0))
    return tuple(sizes)


def _packed_along(assembled: Assembled, recording: Recording, registered: Registered) -> Iterator[tuple[str, int]]:
    """Address and axis of the packed tensors that are held in another shape than PyTorch's."""
    held = {**registered.buffers, **registered.parameters}
    for tensor in assembled.model.tensors:
        parameter = held.get(tensor.address)
        if tensor.parts and parameter is not None and tuple(parameter.shape) != tensor.shape:
            stored = assembled.stored_at[tensor.address]
            axis = _axis_of_rows(parameter, recording.constants.get(stored.value), stored)
            divides = axis != SCATTERED and parameter.shape[axis] % len(tensor.parts) == 0
            yield tensor.address, axis if divides else SCATTERED


def _axis_of_rows(parameter: torch.Tensor, value: torch.Tensor | None, stored: Stored) -> int:
    """Along which consecutive rows of ``stored`` are blocks of ``parameter``; shapes alone do not tell."""
    last = -1 if value is None else sum((n - 1) * step for n, step in zip(value.shape, value.stride(), strict=True))
    if value is None or last != parameter.numel() - 1 or not parameter.is_contiguous():
        return SCATTERED
    if storage_of(value) != storage_of(parameter) or value.data_ptr() != parameter.data_ptr():
        return SCATTERED
    memory = np.empty(parameter.numel(), np.int8)  # never touched: only strides are asked for
    rows = stored.rows(np.lib.stride_tricks.as_strided(memory, tuple(value.shape), tuple(value.stride())))
    if not np.may_share_memory(rows, memory):
        return SCATTERED
    if rows.flags.c_contiguous:
        return 0
    return 1 if parameter.ndim == rows.ndim == 2 and rows.T.flags.c_contiguous else SCATTERED


def _uneditable(assembled: Assembled, recording: Recording, registered: Registered) -> Iterator[str]:
    """Addresses of what is neither a parameter or buffer nor a view of one that can be written to."""
    held = {storage_of(tensor) for tensor in (*registered.parameters.values(), *registered.buffers.values())}
    for address, stored in assembled.stored_at.items():
        tensor = recording.constants.get(stored.value)
        if tensor is None or storage_of(tensor) not in held or (0 in tensor.stride() and tensor.numel() > 1):
            yield address


def graph_of(recording: Recording) -> Graph:
    """The recording in the form that every analysis reads."""
    known = dict.fromkeys([*recording.stored, *recording.numbers, *recording.unregistered])
    return Graph(
        nodes=recording.nodes,
        inputs=tuple(SimpleNamespace(name=name) for name in recording.inputs),  # type: ignore[misc]
        outputs=tuple(recording.outputs),
        initializers=known,  # type: ignore[arg-type]
        opset=0,
        domains={},
        sizes=recording.sizes,
    )


def _not_checked(recording: Recording) -> Iterator[NotChecked]:
    for name, qualified in recording.stored.items():
        if recording.constants[name].is_meta:
            yield NotChecked(qualified, "it is on the meta device, so it has no values yet")


def named_inputs(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in the call, named by its place."""
    for place, value in [*((f"input{i}", a) for i, a in enumerate(args)), *kwargs.items()]:
        for number, tensor in enumerate(output_tensors(value)):
            yield (place if number == 0 else f"{place}.{number}"), tensor


def output_tensors(tree: Any) -> Iterator[torch.Tensor]:
    """The tensors in a nest of mappings, sequences and dataclasses, in order."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from output_tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from output_tensors(value)
    elif hasattr(tree, "__dataclass_fields__"):
        for name in tree.__dataclass_fields__:
            yield from output_tensors(getattr(tree, name))
