"""What to feed a PyTorch module: what the user gave, else what its library says, else what its layers ask for.

A guess is tried by running it; ``guesses`` yields them in the order of their plausibility.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from ..settings import ProbeSettings
from .blank_inputs import MASK_NAME, blank
from .torch_values import Maker, dtype_of, is_token_name

DEFAULT_BATCH = 8
"""Samples of a probe, as for files."""


@dataclass(frozen=True)
class Call:
    """Arguments of a module's forward."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    resizable: bool = False
    """Its batch was chosen by initlint and may be chosen larger."""
    drawn: tuple[str, ...] = ()
    """Names of arguments that held nothing but zeros and have random values now."""

    def moved(self, device: torch.device) -> Call:
        return replace(self, args=_on(self.args, device), kwargs=_on(dict(self.kwargs), device))

    def __str__(self) -> str:
        parts = [_shown(value) for value in self.args]
        parts += [f"{name}={_shown(value)}" for name, value in self.kwargs.items()]
        return ", ".join(parts) or "nothing"


def device_of(module: nn.Module) -> torch.device:
    """The device of its first parameter or buffer that is not on "meta"; the CPU for a module without any."""
    tensors = chain(module.parameters(), module.buffers())
    return next((tensor.device for tensor in tensors if not tensor.is_meta), torch.device("cpu"))


# -- given ----------------------------------------------------------------------------------------------------------


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
    return [way.moved(device) for way in ways]


def _refilled(module: nn.Module, call: Call) -> Call | None:
    """The same with random values for what holds nothing but zeros; None where there is nothing of the kind."""
    if not any(_is_blank(each) for each in tree_leaves((call.args, dict(call.kwargs)))):
        return None
    maker = Maker(module, 0, torch.device("cpu"))
    names = [each.name for each in parameters_of(module)]
    positional = [names[place] if place < len(names) else f"argument {place}" for place in range(len(call.args))]
    numbers: dict[str, bool] = {}
    ids: dict[str, bool] = {}
    for name, value in (*zip(positional, call.args, strict=True), *call.kwargs.items()):
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
    args = tuple(filled(name, value) for name, value in zip(positional, call.args, strict=True))
    return Call(args, {name: filled(name, value) for name, value in call.kwargs.items()}, drawn=tuple(drawn))


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


# -- guessed --------------------------------------------------------------------------------------------------------

Guess = Callable[[int], Call]
"""Makes the arguments for a batch of that many samples."""


def guesses(module: nn.Module, settings: ProbeSettings) -> Iterator[Guess]:
    """Guesses in the order of plausibility; the same settings make the same values."""
    maker = Maker(module, settings.seed, device_of(module))
    if settings.shapes:
        yield from _shaped(module, settings, maker)
        return
    yield from _conventional(module, maker)
    needed = _required(module)
    if not needed:
        yield lambda batch: Call()
        return
    primary, others = needed[0], needed[1:]
    for make in maker.primaries(primary.name):
        for variant in maker.variants([each.name for each in others]):
            yield _combined(primary, make, others, variant)


def _combined(
    primary: inspect.Parameter,
    make: Callable[[int], torch.Tensor],
    others: Sequence[inspect.Parameter],
    variant: Callable[[str, torch.Tensor], Any],
) -> Guess:
    def guess(batch: int) -> Call:
        first = make(batch)
        call: dict[str, Any] = {each.name: variant(each.name, first) for each in others}
        positional = [first] if primary.kind is not primary.KEYWORD_ONLY else []
        keywords = {} if positional else {primary.name: first}
        for each in others:
            if each.kind is each.POSITIONAL_ONLY:
                positional.append(call.pop(each.name))
        return Call(tuple(positional), {**keywords, **call}, resizable=True)

    return guess


def _required(module: nn.Module) -> list[inspect.Parameter]:
    """Parameters without a default; the first parameter where all have one (transformers), since it is the data."""
    named = parameters_of(module)
    return [each for each in named if each.default is each.empty] or named[:1]


def _shaped(module: nn.Module, settings: ProbeSettings, maker: Maker) -> Iterator[Guess]:
    """Shapes as given with --input-shape; raises TargetError(USAGE) for a name that forward does not know."""
    named = parameters_of(module)
    shapes = {(name or (named[0].name if named else "")): shape for name, shape in settings.shapes.items()}
    known = {each.name: each for each in named}
    for name in shapes:
        if name not in known:
            takes = ", ".join(known) or "no arguments"
            text = f"--input-shape names {name!r}, and {type(module).__name__}.forward takes {takes}"
            raise TargetError(FailureKind.USAGE, text)
    others = [each for each in _required(module) if each.name not in shapes]
    for make in maker.fills():
        for variant in maker.variants([each.name for each in others]):
            yield _given_shapes(shapes, known, others, make, variant)


def _given_shapes(
    shapes: Mapping[str, tuple[int, ...]],
    known: Mapping[str, inspect.Parameter],
    others: Sequence[inspect.Parameter],
    fill: Callable[[str, tuple[int, ...]], torch.Tensor],
    variant: Callable[[str, torch.Tensor], Any],
) -> Guess:
    def guess(batch: int) -> Call:
        values: dict[str, Any] = {name: fill(name, shape) for name, shape in shapes.items()}
        first = next(iter(values.values()))
        values |= {each.name: variant(each.name, first) for each in others}
        ordered = [name for name in known if name in values]
        positional = [values.pop(name) for name in ordered if known[name].kind is known[name].POSITIONAL_ONLY]
        return Call(tuple(positional), values)

    return guess


def _conventional(module: nn.Module, maker: Maker) -> Iterator[Guess]:
    """Lightning's example_input_array, timm's default_cfg, the config and dummy_inputs of transformers."""
    example = getattr(module, "example_input_array", None)
    if example is not None:
        yield from _from_example(module, example)
    settings = getattr(module, "default_cfg", None) or getattr(module, "pretrained_cfg", None)
    size = settings.get("input_size") if isinstance(settings, Mapping) else None
    size = size or getattr(module, "input_size", None)
    if isinstance(size, list | tuple) and all(isinstance(each, int) for each in size) and len(size) == 3:
        shape = tuple(size)
        yield lambda batch: Call((maker.numbers((batch, *shape)),), resizable=True)
    elif isinstance(in_size := getattr(module, "in_size", None), list | tuple) and len(in_size) == 2:  # pytorchcv
        channels = getattr(module, "in_channels", 3)
        yield lambda batch: Call((maker.numbers((batch, int(channels), *in_size)),), resizable=True)
    if (by_config := _from_config(module, maker)) is not None:
        yield by_config
    if isinstance(dummy := _dummy(module), Mapping):
        yield from _from_example(module, dict(dummy))


def _dummy(module: nn.Module) -> Any:
    try:
        return getattr(module, "dummy_inputs", None)
    except Exception:  # noqa: BLE001 - a property of somebody else's class: a guess less, nothing more
        return None


def _from_example(module: nn.Module, example: Any) -> Iterator[Guess]:
    """As it is, its samples repeated with other values up to the batch first."""
    try:
        call = given_calls(module, example)[0]
    except TargetError:
        return

    def repeated(batch: int) -> Call:
        return replace(
            call, args=_enlarged(call.args, batch), kwargs=_enlarged(dict(call.kwargs), batch), resizable=True
        )

    yield repeated
    yield lambda batch: call


def _enlarged(tree: Any, batch: int) -> Any:
    """Float tensors with fewer samples get more: the same ones plus noise of their own size."""
    if isinstance(tree, torch.Tensor):
        if tree.ndim == 0 or tree.shape[0] >= batch:
            return tree
        times = -(-batch // max(tree.shape[0], 1))
        wide = tree.repeat(times, *[1] * (tree.ndim - 1))[:batch].clone()
        if wide.is_floating_point():
            generator = torch.Generator().manual_seed(0)
            noise = torch.randn(wide.shape, generator=generator).to(wide)
            wide[tree.shape[0] :] += noise[tree.shape[0] :] * wide.std().nan_to_num(1.0)
        return wide
    if isinstance(tree, dict):
        return {name: _enlarged(value, batch) for name, value in tree.items()}
    return type(tree)(_enlarged(value, batch) for value in tree) if isinstance(tree, list | tuple) else tree


def _from_config(module: nn.Module, maker: Maker) -> Guess | None:
    """A configuration as transformers has it: main_input_name, vocab_size, image_size, num_channels."""
    config, main = getattr(module, "config", None), getattr(module, "main_input_name", None)
    if config is None or not isinstance(main, str):
        return None
    text = getattr(config, "text_config", None) or config
    vision = getattr(config, "vision_config", None) or config
    wants = {each.name for each in parameters_of(module)}

    def guess(batch: int) -> Call:
        values: dict[str, Any] = {}
        vocabulary = getattr(text, "vocab_size", None)
        if isinstance(vocabulary, int) and "input_ids" in wants and main != "pixel_values":
            values["input_ids"] = maker.integers((batch, maker.sequence), vocabulary)
            if "decoder_input_ids" in wants and getattr(config, "is_encoder_decoder", False):
                values["decoder_input_ids"] = maker.integers((batch, maker.sequence), vocabulary)
        size = getattr(vision, "image_size", None)
        if "pixel_values" in wants and size is not None:
            sides = tuple(size) if isinstance(size, list | tuple) else (int(size), int(size))
            values["pixel_values"] = maker.numbers((batch, int(getattr(vision, "num_channels", 3)), *sides))
        if main == "input_values":
            values["input_values"] = maker.numbers((batch, 4000))  # a quarter of a second of sound at 16 kHz
        if main == "input_features" and (mels := getattr(config, "num_mel_bins", None)):
            length = 2 * int(getattr(config, "max_source_positions", 1500))
            values["input_features"] = maker.numbers((batch, int(mels), length))
            if getattr(config, "is_encoder_decoder", False) and isinstance(vocabulary, int):
                values["decoder_input_ids"] = maker.integers((batch, maker.sequence), vocabulary)
        return Call((), values, resizable=True)

    return guess if guess(1).kwargs else None


def float_dtype(module: nn.Module) -> torch.dtype:
    """The type of the module's first floating-point parameter."""
    return dtype_of(module)
