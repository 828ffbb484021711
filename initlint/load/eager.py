"""Running a module once under a recorder, as it behaves in training but without chance, and leaving no trace.

The module is in evaluation mode, except that batch norms use the batch's statistics: a fresh model's running ones mean
nothing. Dropout and stochastic depth are off. Parameters, buffers, gradients, modes, hooks and random states are
afterwards what they were, also when the forward raises.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.nn.modules import module as module_hooks
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode, _pop_mode_temporarily

from ..probe.torch_rows import of_attention
from .registered import modules_of, tensors_of
from .stand_ins import standing_in
from .trace import Recorder, Rewritten, storage_of

_DROPOUTS = frozenset(
    {"dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "feature_dropout"}
)
_RECURRENT = {"lstm": "lstm", "gru": "gru", "rnn_tanh": "rnn", "rnn_relu": "rnn"}


def run(module: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], recorder: Recorder) -> Any:
    """Call the module under ``recorder``; returns what its forward returns. Exceptions of the forward pass through.

    A forward that ends the program raises RuntimeError instead.
    """
    with ExitStack() as stack:
        stack.enter_context(untouched(module, recorder.rewritten))
        _forget_optimised(module)
        stack.callback(recorder.put_back)
        dispatch = _Dispatch(recorder)
        stack.enter_context(_scopes(recorder))
        stack.enter_context(_Functions(recorder, dispatch))
        stack.enter_context(dispatch)
        try:
            return module(*args, **kwargs)
        except SystemExit as end:
            raise RuntimeError(f"SystemExit({end.code!r})") from end


@contextmanager
def untouched(module: torch.nn.Module, rewritten: list[Rewritten] | None = None) -> Iterator[None]:
    """Evaluation mode inside; afterwards modes, buffers and random states are as they were, bit for bit.

    Parameters have the memory that they had. What is in it is the Recorder's to put back, or ``restored``'s. Buffers
    that were written into are noted in ``rewritten``.
    """
    modules = modules_of(module)
    modes = [each for each in modules if getattr(each, "training", False)]  # one that is frozen has none
    parameters, held = tensors_of(modules)
    memory = [(parameter, parameter.data) for parameter in parameters]
    buffers = [(buffer, buffer.data, buffer.detach().clone()) for buffer in held if not is_lazy(buffer)]
    states = (torch.get_rng_state(), random.getstate(), np.random.get_state())
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    asking = [(parameter, parameter.requires_grad) for parameter in parameters]
    stack = ExitStack()
    try:
        stack.enter_context(accumulating_nothing(parameters))
        stack.enter_context(_uncompiled())
        stack.enter_context(standing_in())
        for each in modes:
            _switch(each, training=False)
        yield
    finally:
        stack.close()
        for each in modes:
            _switch(each, training=True)
        for parameter, asked in asking:
            if parameter.requires_grad is not asked:
                parameter.requires_grad_(asked)
        for parameter, data in memory:
            if storage_of(parameter) != storage_of(data):
                parameter.data = data
        for buffer, data, saved in buffers:
            if buffer.shape == data.shape and storage_of(buffer) == storage_of(data) and _same_bits(buffer, saved):
                continue
            if rewritten is not None:
                rewritten.append((buffer, buffer.data, buffer.detach().clone()))
            put_back(buffer, data, saved)
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def accumulating_nothing(tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    """Inside, ``.grad`` of the leaves among them is empty; afterwards it is what it was, whatever was added to it."""
    held = [(each, each.grad) for each in tensors if each.is_leaf]
    for leaf, gradient in held:
        if gradient is not None:
            leaf.grad = None
    try:
        yield
    finally:
        for leaf, gradient in held:
            if leaf.grad is not gradient:
                leaf.grad = gradient


@contextmanager
def in_training_mode(module: torch.nn.Module) -> Iterator[None]:
    """Every module is in training mode inside, and has its own mode again afterwards."""
    modes = [each for each in modules_of(module) if getattr(each, "training", True) is False]
    try:
        for each in modes:
            _switch(each, training=True)
        yield
    finally:
        for each in modes:
            _switch(each, training=False)


def put_back(buffer: torch.Tensor, data: torch.Tensor, values: torch.Tensor) -> None:
    """The memory, the shape (observers of quantisation resize theirs at the first batch) and the values; past autograd,
    which may have kept the buffer for the backward pass."""
    if buffer.layout is not torch.strided:  # copying into ``data`` would give new entries to that alias alone
        buffer.data = values.clone()
        return
    if buffer.shape != data.shape or storage_of(buffer) != storage_of(data):
        buffer.data = data
    buffer.data.copy_(values)


def _switch(module: torch.nn.Module, training: bool) -> None:
    """Not by eval(): some merge weights there, and what torch.export makes refuses it.

    Nor by assignment, which has PyTorch look through all that the module holds; scripted ones know no other way.
    """
    own = module.__dict__
    if "training" in own:
        own["training"] = training
    else:
        module.training = training


def _uncompiled() -> AbstractContextManager[object]:
    """What torch.compile made runs eagerly: it would compile the recorder too. Without its compiler nothing is."""
    loaded = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if loaded else nullcontext()


def _forget_optimised(module: torch.nn.Module) -> None:
    """A scripted module that has run before hides from dispatch modes which parameters it works with."""
    scripted = torch.jit.ScriptModule
    for each in [each for each in modules_of(module) if isinstance(each, scripted)]:
        flush = getattr(getattr(each, "forward", None), "_debug_flush_compilation_cache", None)
        if flush is not None:
            with suppress(RuntimeError):  # the older executor, which traced ones have, hides nothing
                flush()


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.layout is not torch.strided:  # PyTorch does not compare sparse tensors
        return all(_same_bits(a, b) for a, b in zip(_stored(one), _stored(other), strict=True))
    if one.shape != other.shape:  # another number of entries
        return False
    if one.is_floating_point():
        return bool(((one == other) | (one.isnan() & other.isnan())).all())
    return torch.equal(one, other)


def _stored(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The strided tensors that a sparse one is made of: its values last."""
    if tensor.layout is torch.sparse_coo:
        return tensor._indices(), tensor._values()
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return tensor.ccol_indices(), tensor.row_indices(), tensor.values()
    return (tensor.to_dense(),)


@contextmanager
def _scopes(recorder: Recorder) -> Iterator[None]:
    """Keep the qualified name of the executing module on the recorder's stack."""
    names = recorder.registered.names

    def enter(each: torch.nn.Module, args: Any) -> None:
        recorder.scopes.append(names.get(id(each), recorder.scopes[-1]))

    def leave(each: torch.nn.Module, args: Any, output: Any) -> None:
        if len(recorder.scopes) > 1:
            recorder.scopes.pop()

    handles = (
        module_hooks.register_module_forward_pre_hook(enter),
        module_hooks.register_module_forward_hook(leave),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Dispatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Shows every ATen operator to the recorder, unless an opaque function is running."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._recorder = recorder
        self.paused = 0
        self.own_detaches = 0
        """Of the model; autograd detaches what it saves for itself, without a function call."""

    def _executed(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        name, written = _described(func)
        places = [args[i] if i < len(args) else kwargs.get(key) for i, key in written] if written else ()
        self._recorder.before(args, kwargs, places)
        outputs = func(*args, **kwargs)
        if name != "detach" or self.own_detaches or not torch.is_grad_enabled():
            self._recorder.record(name, args, kwargs, outputs)
        return outputs

    @contextmanager
    def opaque(self, args: Sequence[Any]) -> Iterator[None]:
        """A function of ``args`` whose operators are not to be seen runs inside."""
        self._recorder.before(args, {}, ())
        innermost = _get_current_dispatch_mode() is self  # the model may have entered one of its own
        self.paused += 1
        try:
            with _pop_mode_temporarily() if innermost else nullcontext():  # a paused mode still costs a call each
                yield
        finally:
            self.paused -= 1


@cache
def _described(func: Any) -> tuple[str, tuple[tuple[int, str], ...]]:
    """An operator's name without overload, and (position, name) of the arguments that its schema marks as written."""
    arguments = enumerate(func._schema.arguments)
    written = [(i, each.name) for i, each in arguments if each.alias_info is not None and each.alias_info.is_write]
    return func.__name__.partition(".")[0], tuple(written)


# Not in the class body: there PyTorch would wrap it, and the wrapper imports its compiler, which takes seconds.
_Dispatch.__torch_dispatch__ = _Dispatch._executed  # type: ignore[assignment,method-assign]


class AsInTraining(TorchFunctionMode):
    """Batch statistics without dropout, in a module that is in evaluation mode."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _DROPOUTS and (args or "input" in kwargs):
            share = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
            return self.dropout(args[0] if args else kwargs["input"], share)
        if name == "batch_norm" and getattr(func, "__module__", "") == "torch.nn.functional":
            return self._batch_norm(func, args, kwargs)
        return self.call(name, func, args, kwargs)

    def dropout(self, data: Any, share: Any) -> Any:
        """What is left of ``data`` where ``share`` of it are to be dropped: all of it."""
        return data

    def call(self, name: str, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Any other function."""
        return func(*args, **kwargs)

    @staticmethod
    def _batch_norm(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
        given = dict(zip(names, args, strict=False)) | kwargs
        data = given.pop("input")
        mean, variance = given.pop("running_mean", None), given.pop("running_var", None)
        if data.numel() > data.shape[1]:  # one value per channel has no variance
            mean = variance = None
            given["training"] = True
        return func(data, mean, variance, **given)


class DroppingAll(AsInTraining):
    """The same, save that a dropout with p = 1 does what it does in training: there is no chance in that."""

    def dropout(self, data: Any, share: Any) -> Any:
        return data * 0.0 if drops_all(share) else data


def drops_all(share: Any) -> bool:
    return isinstance(share, int | float) and share >= 1


_DATA = torch.Tensor.data.__get__  # type: ignore[attr-defined]
_LOOKED_AT = frozenset(
    {"detach", _DATA.__name__, "instance_norm", "scaled_dot_product_attention", "einsum", *_RECURRENT}
)
"""Names of the functions that are more to the recorder than their operators."""


class _Functions(AsInTraining):
    """Recurrences, attentions and instance norms are recorded as what they are."""

    def __init__(self, recorder: Recorder, dispatch: _Dispatch) -> None:
        super().__init__()
        self._recorder, self._dispatch = recorder, dispatch

    def dropout(self, data: Any, share: Any) -> Any:
        if drops_all(share):
            self._recorder.recording.drops.append(self._recorder.scopes[-1])
        return data

    def call(self, name: str, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if name not in _LOOKED_AT:
            return func(*args, **kwargs)
        if name == "detach" or func == _DATA:
            return self._detach(func, args, kwargs)
        if name == "instance_norm" and getattr(func, "__module__", "") == "torch.nn.functional":
            return self._instance_norm(func, args, kwargs)
        if name == "scaled_dot_product_attention":
            return self._attention(func, args, kwargs)
        if name == "einsum" and args and isinstance(args[0], str) and "." not in args[0]:
            return self._einsum(func, args, kwargs)
        if name in _RECURRENT and len(args) >= 8:
            return self._recurrence(_RECURRENT[name], func, args, kwargs)
        return func(*args, **kwargs)

    def _detach(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if args:
            self._recorder.detached(args[0])
        self._dispatch.own_detaches += 1
        try:
            return func(*args, **kwargs)
        finally:
            self._dispatch.own_detaches -= 1

    def _einsum(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Which axes are groups, units or summed is lost once it is written as a batched product."""
        with self._dispatch.opaque(args):
            output = func(*args, **kwargs)
            operands = args[1] if len(args) == 2 and isinstance(args[1], list | tuple) else args[1:]
            self._recorder.opaque("Einsum", operands, [output], equation=args[0])
        return output

    def _attention(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Which operators it is made of depends on the device, the mask and on who wants gradients."""
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale")
        given = dict(zip(names, args, strict=False)) | kwargs
        with self._dispatch.opaque(tuple(given.values())):
            output = func(*args, **kwargs)
            query, key, value, mask = (given.get(name) for name in names[:4])
            self._recorder.opaque("Attention", (query, key, value, mask), [output])
            if query is not None and key is not None:
                causal, scale = bool(given.get("is_causal", False)), given.get("scale")
                self._recorder.normalised(output, of_attention(query, key, mask, causal, scale))
        return output

    def _instance_norm(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        names = ("input", "running_mean", "running_var", "weight", "bias")
        given = dict(zip(names, args, strict=False)) | kwargs
        with self._dispatch.opaque(args):
            output = func(*args, **kwargs)
            operands = (given["input"], given.get("weight"), given.get("bias"))
            self._recorder.opaque("InstanceNormalization", operands, [output])
        return output

    def _recurrence(self, kind: str, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """torch.lstm and its like: all layers and directions in one call, padded or packed."""
        packed = not isinstance(args[3], bool)
        with self._dispatch.opaque(args):
            outputs = func(*args, **kwargs)
            weights, biases = (args[3], args[4]) if packed else (args[2], args[3])
            layers = int(args[5]) if packed else int(args[4])
            both = bool(args[8]) if packed else bool(args[7])
            self._recorder.recurrence(kind, args[0], list(weights), bool(biases), layers, both, outputs)
        return outputs
