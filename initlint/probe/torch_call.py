"""The arguments of a PyTorch module's forward, and what the user gave as such."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from ..errors import FailureKind, TargetError
from ..foreign import described
from . import more_samples
from .blank_inputs import MASK_NAME, blank
from .torch_values import Maker, is_token_name


@dataclass(frozen=True)
class Call:
    """Arguments of a module's forward."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    given: bool = False
    """Its values are the user's, some of them at least."""
    resizable: bool = False
    """Its batch was chosen by initlint and may be chosen larger."""
    drawn: tuple[str, ...] = ()
    """Names of arguments that held nothing but zeros and have random values now."""
    added: int = 0
    """Samples that were drawn beside the only one given."""

    def moved(self, device: torch.device) -> Call:
        return replace(self, args=_on(self.args, device), kwargs=_on(dict(self.kwargs), device))

    def __str__(self) -> str:
        parts = [_shown(value) for value in self.args]
        parts += [f"{name}={_shown(value)}" for name, value in self.kwargs.items()]
        return ", ".join(parts) or "nothing"


def listed(module: nn.Module, call: Call) -> str:
    """The arguments by the names that forward has for them, as in "x 8x3x64x64 float32"."""
    return ", ".join(f"{name} {_shown(value)}" for name, value in _named(module, call))


def device_of(module: nn.Module) -> torch.device:
    """The device of its first parameter or buffer that is not on "meta"; the CPU for a module without any."""
    tensors = chain(module.parameters(), module.buffers())
    return next((tensor.device for tensor in tensors if not tensor.is_meta), torch.device("cpu"))


def given_calls(module: nn.Module, inputs: Any) -> list[Call]:
    """The user's inputs as arguments, in every way to read them: a tensor, positional ones, a mapping of names.

    Where they hold nothing but zeros, the same with random values comes first. Raises TargetError(USAGE) where forward
    takes no such arguments.
    """
    values = _as_tensors(inputs)
    if isinstance(values, Mapping):
        calls = _by_name(module, values)
    else:
        calls = [Call(tuple(values) if isinstance(values, tuple | list) else (values,))]
    problems = [_unbound(module, call) for call in calls]
    fitting = [call for call, problem in zip(calls, problems, strict=True) if problem is None]
    if not fitting:
        takes = ", ".join(each.name for each in parameters_of(module)) or "no arguments"
        text = f"the inputs do not fit: {problems[0]}; {type(module).__name__}.forward takes {takes}"
        raise TargetError(FailureKind.USAGE, text)
    _refuse_nan(fitting[0])
    device = device_of(module)
    ways = [way for call in fitting for way in (_refilled(module, call), call) if way is not None]
    return [replace(way.moved(device), given=True) for way in ways]


def with_more_samples(module: nn.Module, call: Call, batch: int, seed: int) -> Call | None:
    """The call of one sample with others beside it; None where they cannot be made."""
    names = {id(leaf): name for name, value in _named(module, call) for leaf in tree_leaves(value)}
    more = more_samples.with_more((call.args, dict(call.kwargs)), names, batch, seed)
    return None if more is None else replace(call, args=more[0], kwargs=more[1], added=batch - 1)


def _named(module: nn.Module, call: Call) -> Iterator[tuple[str, Any]]:
    """Every argument with the name that forward has for it."""
    names = [each.name for each in parameters_of(module)]
    positional = [names[place] if place < len(names) else f"argument {place}" for place in range(len(call.args))]
    yield from zip(positional, call.args, strict=True)
    yield from call.kwargs.items()


def _refilled(module: nn.Module, call: Call) -> Call | None:
    """The same with random values for what holds nothing but zeros; None where there is nothing of the kind."""
    if not any(_is_blank(each) for each in tree_leaves((call.args, dict(call.kwargs)))):
        return None
    maker = Maker(module, 0, torch.device("cpu"))
    numbers: dict[str, bool] = {}
    ids: dict[str, bool] = {}
    named = list(_named(module, call))
    for name, value in named:
        tensors = [each for each in tree_leaves(value) if isinstance(each, torch.Tensor) and _is_dense(each)]
        if not tensors or MASK_NAME.search(name):
            continue
        if any(each.is_floating_point() for each in tensors):
            numbers[name] = all(map(_is_blank, tensors))
        elif maker.tables and (is_token_name(name) or not (numbers or ids)) and tensors[0].dtype != torch.bool:
            ids[name] = all(map(_is_blank, tensors))
    drawn = blank(numbers, ids)
    salts = count()

    def filled(name: str, value: Any) -> Any:
        if name not in drawn:
            return value
        return tree_map(lambda each: maker.like(each, next(salts)) if isinstance(each, torch.Tensor) else each, value)

    if not drawn:
        return None
    values = [filled(name, value) for name, value in named]
    given = len(call.args)
    return Call(tuple(values[:given]), dict(zip(call.kwargs, values[given:], strict=True)), drawn=tuple(drawn))


def _is_dense(tensor: torch.Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_meta and not tensor.is_complex() and tensor.numel() > 0


def _is_blank(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and _is_dense(value) and not bool(value.any())


def _refuse_nan(call: Call) -> None:
    """Raises TargetError(USAGE): whatever the weights, all that NaN touches is NaN. Infinity is a mask's."""
    for place, value in (*enumerate(call.args, 1), *call.kwargs.items()):
        tensors = (each for each in tree_leaves(value) if isinstance(each, torch.Tensor) and each.is_floating_point())
        if any(each.layout is torch.strided and not each.is_meta and bool(each.isnan().any()) for each in tensors):
            name = f"number {place}" if isinstance(place, int) else place
            raise TargetError(FailureKind.USAGE, f"the given input {name} holds NaN; mend the data, or give others")


def _by_name(module: nn.Module, values: Mapping[str, Any]) -> list[Call]:
    """By parameter name; names that mean nothing to forward are those of a file, or keys of its one argument."""
    if set(values) == {""}:
        return [Call((values[""],))]
    named = Call((), values)
    if {each.name for each in parameters_of(module)} & set(values):
        return [named]
    return [named, Call(tuple(values.values())), Call((values,))]


def read_file(path: str) -> Mapping[str, Any]:
    """The arrays of an .npz or .safetensors file, in order; raises TargetError(USAGE)."""
    try:
        if path.endswith(".npz"):
            with np.load(path, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        from safetensors.torch import load_file

        tensors: Mapping[str, Any] = load_file(path)
        return tensors
    except Exception as error:  # noqa: BLE001 - zipfile, numpy and safetensors raise unrelated types
        text = f"the inputs file {Path(path).name} cannot be read: {described(error)}"
        raise TargetError(FailureKind.USAGE, text) from None


def _as_tensors(tree: Any) -> Any:
    if isinstance(tree, np.ndarray | np.generic):
        array = np.asarray(tree)
        if array.dtype.kind not in "biufc":
            raise TargetError(FailureKind.USAGE, f"inputs hold {array.dtype} values, and a probe needs numbers")
        return torch.from_numpy(np.ascontiguousarray(array).copy())
    if isinstance(tree, Mapping):
        return {name: _as_tensors(value) for name, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*map(_as_tensors, tree))
    if isinstance(tree, list | tuple):
        return type(tree)(map(_as_tensors, tree))
    return tree


def _on(tree: Any, device: torch.device) -> Any:
    if isinstance(tree, torch.Tensor):
        return tree if tree.device == device else tree.to(device)
    if isinstance(tree, dict):
        return {name: _on(value, device) for name, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_on(value, device) for value in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(_on(value, device) for value in tree)
    return tree


def _unbound(module: nn.Module, call: Call) -> str | None:
    """Why forward cannot take the arguments, or None."""
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(*call.args, **call.kwargs)
    except TypeError as error:
        return str(error)
    return None


def parameters_of(module: nn.Module) -> list[inspect.Parameter]:
    """Named parameters of forward; one "input" where it only says ``*args`` or cannot be asked."""
    only_input = [inspect.Parameter("input", inspect.Parameter.POSITIONAL_ONLY)]
    try:
        found = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        return only_input
    named = [each for each in found if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    return named or (only_input if any(each.kind is each.VAR_POSITIONAL for each in found) else [])


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        shape = "x".join(map(str, value.shape)) or "scalar"
        return f"{shape} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__
