"""What to feed a PyTorch module that nobody gave inputs for: what its library says, else what its layers ask for.

A guess is tried by running it; ``guesses`` yields them in the order of their plausibility.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from ..errors import FailureKind, TargetError
from ..settings import ProbeSettings
from .torch_call import Call, device_of, given_calls, parameters_of, with_more_samples
from .torch_values import Maker

DEFAULT_BATCH = 8
"""Samples of a probe, as for files."""

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
        more = with_more_samples(module, call, batch, 0)
        if more is not None:
            return replace(more, resizable=True, added=0)
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
