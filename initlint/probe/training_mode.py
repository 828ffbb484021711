"""What training mode reads alone, and what its noise does to the outputs: the probe itself runs in evaluation mode.

For their noise only those modules are run in that mode whose code both asks for ``training`` and draws random numbers:
most have no noise but dropout, which the probe leaves out on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from inspect import unwrap
from types import CodeType, FunctionType
from typing import Any

import torch
from torch.nn.modules import module as module_hooks
from torch.utils._pytree import tree_leaves

from ..foreign import described
from ..load.eager import AsInTraining
from ..load.from_torch import output_tensors
from ..load.registered import modules_of, named_modules
from ..model import NotChecked
from .backward import Differentiator
from .objective import split
from .signals import Signals, TrainingNoise
from .torch_run import Call

DRAWS = frozenset(
    {"rand", "randn", "rand_like", "randn_like", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"}
    | {"bernoulli_", "normal_", "uniform_", "exponential_", "gumbel_softmax", "rsample", "random", "uniform"}
)
"""Names of what draws random numbers, dropouts apart."""

LOOKS = 2
"""Seeds; what is not finite has to be so with each."""


def with_reads(found: Signals, differentiator: Differentiator, call: Call, unused: Sequence[str]) -> Signals:
    """``found`` with those of the parameters that only a forward in training mode reads."""
    try:
        read = differentiator.read_in_training(call, unused, found.seed)
    except Exception as error:  # noqa: BLE001 - the user's forward in a mode that may want targets, which nobody gave
        return _not_known(found, error, "what is read there alone")
    return replace(found, in_training=tuple(name for name in unused if name in read))


def with_noise(found: Signals, differentiator: Differentiator, call: Call, output: Any) -> Signals:
    """``found`` with what the noise of training does to ``output``, which is that of evaluation mode."""
    try:
        noise = noise_of_training(differentiator, call, output, found.seed)
    except Exception as error:  # noqa: BLE001 - as above
        return _not_known(found, error, "what its noise does")
    return replace(found, training_noise=noise)


def _not_known(found: Signals, error: Exception, unknown: str) -> Signals:
    reason = f"its forward raised {described(error)}, so {unknown} is not known"
    return replace(found, not_probed=(*found.not_probed, NotChecked("training mode", reason)))


def noise_of_training(differentiator: Differentiator, call: Call, output: Any, seed: int) -> TrainingNoise | None:
    """What it does to ``output``, that of evaluation mode; None without noise, or where the modes are not comparable.

    What the forward raises in that mode, as for want of targets, passes through.
    """
    every, counted = list(output_tensors(output)), {id(each) for each in split(output)[0]}
    read = [number for number, each in enumerate(every) if id(each) in counted]
    still = [every[number].detach() for number in read]
    if not _draws_in_training(differentiator.module) or not all(map(_is_finite, still)):
        return None
    looks = [_look(differentiator, call, seed + number) for number in range(LOOKS)]
    if any([each.shape for each in look] != [each.shape for each in every] for look in looks):
        return None
    looks = [[look[number] for number in read] for look in looks]
    if not any(all(map(_is_finite, look)) for look in looks):
        with _watching(differentiator.module) as places:
            _look(differentiator, call, seed)
        return TrainingNoise(math.inf, places[0] if places else "")
    return TrainingNoise(max((_ratio(*pair) for pair in zip(still, *looks, strict=True)), default=0.0))


def _look(differentiator: Differentiator, call: Call, seed: int) -> list[torch.Tensor]:
    return list(output_tensors(differentiator.outputs_of_training(call, AsInTraining(), seed)))


def _is_finite(output: torch.Tensor) -> bool:
    """Masked logits are at minus infinity."""
    return not bool((output.isnan() | (output == math.inf)).any()) if output.is_floating_point() else True


def _ratio(still: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> float:
    """What two draws of the noise make of the same inputs, apart, over what comes without it, or order one."""
    if not still.is_floating_point():
        return 0.0
    known = still.isfinite() & one.isfinite() & other.isfinite()  # masked logits are at minus infinity
    if not bool(known.any()):
        return 0.0
    values, *noisy = (each[known].double() for each in (still, one, other))
    apart = float((noisy[0] - noisy[1]).square().mean().sqrt()) / math.sqrt(2.0)
    return apart / max(float(values.square().mean().sqrt()), 1.0)


@contextmanager
def _watching(module: torch.nn.Module) -> Iterator[list[str]]:
    """Names of the modules that make something that is not finite of what is."""
    names = {id(each): name for name, each in reversed(named_modules(module))}
    places: list[str] = []

    def leave(each: torch.nn.Module, args: Any, output: Any) -> None:
        given, made = ([t for t in tree_leaves(x) if isinstance(t, torch.Tensor)] for x in (args, output))
        if id(each) in names and all(map(_is_finite, given)) and not all(map(_is_finite, made)):
            places.append(names[id(each)])

    handle = module_hooks.register_module_forward_hook(leave)
    try:
        yield places
    finally:
        handle.remove()


def _draws_in_training(module: torch.nn.Module) -> bool:
    """By the names that the code of its modules uses, as long as it is Python, and not PyTorch's own."""
    kinds: set[type] = {type(each) for each in modules_of(module)}
    names = frozenset[str]().union(*map(_names, kinds))
    return "training" in names and not DRAWS.isdisjoint(names)


@cache
def _names(kind: type) -> frozenset[str]:
    """All names that its forward uses, with those of what this calls among its methods and the functions around it."""
    if kind.__module__.startswith("torch."):
        return frozenset()
    found: set[str] = set()
    pending: list[Any] = [*_methods(kind, "forward")]
    seen: set[CodeType] = set()
    while pending and len(seen) < _MAX_FUNCTIONS:
        function = unwrap(pending.pop())
        if not isinstance(function, FunctionType) or (function.__module__ or "").startswith("torch."):
            continue
        around = function.__globals__
        for code in _codes(function.__code__):
            if code not in seen:
                seen.add(code)
                found.update(code.co_names)
                pending += [each for name in code.co_names for each in (*_methods(kind, name), around.get(name))]
    return frozenset(found)


_MAX_FUNCTIONS = 200


def _methods(kind: type, name: str) -> Iterator[Any]:
    """Those of that name of the class and of all that it comes from: one may call the next by ``super``."""
    for each in kind.__mro__:
        held = vars(each).get(name)
        yield held.fget if isinstance(held, property) else getattr(held, "__func__", held)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """With those of the functions, comprehensions and lambdas in it."""
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)
