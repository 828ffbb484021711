"""Units that are off are kept ajar, to see whether only the batch does not reach them; not so what no batch reaches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch

from ..load.eager import AsInTraining
from . import selections
from .reach import EXPONENTIAL, FEWEST, GELU, OUT_OF_REACH, RECTIFIER, SIGMOID, SLOPE, TANH, UNDERFLOW, USUAL, Edges

Given = Mapping[str, Any]


def _number(given: Given, name: str, default: float) -> float:
    """Of several bounds the widest: nothing is beyond the edge before it is beyond all of them."""
    value = given.get(name)
    if isinstance(value, torch.Tensor):
        values = value.detach().float()
        return float((values.amin() if name.startswith("min") else values.amax()) if values.numel() else math.nan)
    return default if value is None else float(value)


def _fixed(edges: Edges) -> Callable[[Given], Edges]:
    return lambda given: edges


def _between(low: float, high: float, names: tuple[str, str] = ("min", "max")) -> Callable[[Given], Edges]:
    return lambda given: (_number(given, names[0], low), _number(given, names[1], high))


@dataclass(frozen=True)
class Flat:
    """A function that is flat somewhere: its arguments behind the input, and where it is not flat, by these."""

    edges: Callable[[Given], Edges]
    names: tuple[str, ...] = ()


_CLAMP = Flat(_between(-math.inf, math.inf), ("min", "max"))
_IN_PLACE = ("relu", "threshold", "hardtanh", "clamp", "clip", "clamp_min", "clamp_max")
_FUNCTIONS = {
    "relu": Flat(_fixed(RECTIFIER)),
    "relu6": Flat(_fixed((0.0, 6.0))),
    "threshold": Flat(lambda given: (_number(given, "threshold", math.nan), math.inf), ("threshold",)),
    "hardtanh": Flat(_between(-1.0, 1.0, ("min_val", "max_val")), ("min_val", "max_val")),
    "hardswish": Flat(_fixed((-3.0, math.inf))),
    "hardsigmoid": Flat(_fixed((-3.0, 3.0))),
    "clamp": _CLAMP,
    "clip": _CLAMP,
    "clamp_min": Flat(_between(-math.inf, math.inf), ("min",)),
    "clamp_max": Flat(_between(-math.inf, math.inf), ("max",)),
    "sigmoid": Flat(_fixed(SIGMOID)),
    "tanh": Flat(_fixed(TANH)),
    "softmax": Flat(_fixed((-math.inf, UNDERFLOW)), ("dim",)),
    "gelu": Flat(_fixed(GELU)),
    **dict.fromkeys(("silu", "softplus", "selu", "elu"), Flat(_fixed(EXPONENTIAL))),
}
FLAT = {**_FUNCTIONS, **{f"{name}_": _FUNCTIONS[name] for name in _IN_PLACE}}
"""By name of the function."""


@dataclass(frozen=True)
class Seen:
    """The values that went into one call."""

    count: int
    low: float
    high: float
    mean: float
    std: float
    edges: Edges

    @property
    def distance(self) -> float:
        """From the nearest value to the nearer edge; not positive where some value has a slope."""
        return max(self.edges[0] - self.high, self.low - self.edges[1])


class Gauge(AsInTraining):
    """Notes of every call of a function that is flat somewhere what goes into it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Seen] = []

    def call(self, name: str, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        data = flattened(name, args, kwargs)
        if data is not None:
            flat = FLAT[name]
            given = {**dict(zip(flat.names, args[1:], strict=False)), **kwargs}
            self.seen.append(_seen(_gaps(data, given) if name == "softmax" else data, flat.edges(given)))
        return func(*args, **kwargs)


class Ajar(AsInTraining):
    """Non-linearities that are flat somewhere let a little gradient through, where their input varies.

    An input that is the same for every sample (behind zero weights, say) gets none: no other batch would change it.
    Nor do the calls number ``closed``. There are ``samples`` in the batch, if that is known. Likewise what a choice
    that depends on the inputs did not take, and rows of a table that stand for padding: other rows are looked up there.
    """

    def __init__(self, closed: frozenset[int] = frozenset(), samples: int = 0) -> None:
        super().__init__()
        self._closed, self._number, self._samples = closed, count(), samples

    def call(self, name: str, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if name == "embedding":
            args, kwargs = _without_padding(args, kwargs)
        data = flattened(name, args, kwargs)
        if data is None:
            return self._with_operands(name, args, kwargs, func(*args, **kwargs))
        if next(self._number) in self._closed:
            return func(*args, **kwargs)
        before = data.clone()
        output = func(*args, **kwargs)
        if not isinstance(output, torch.Tensor) or output.shape != before.shape:
            return output
        opened = _varies(before, self._samples)
        if not bool(before.detach().isfinite().all()):  # what is masked is at minus infinity
            opened, before = opened * before.isfinite(), before.nan_to_num()
        if name == "softmax":
            given = {**dict(zip(FLAT[name].names, args[1:], strict=False)), **kwargs}
            opened = opened * _is_one_hot(output, given.get("dim"))
        return self._with_operands(name, args, kwargs, output + SLOPE * opened * before)

    def _with_operands(self, name: str, args: Sequence[Any], kwargs: dict[str, Any], output: Any) -> Any:
        """``output`` with a little gradient for all that it was chosen from."""
        selections.note_masks(name, args, output)
        if not (found := selections.operands(name, args, kwargs)):
            return output
        several = not isinstance(output, torch.Tensor)
        chosen = output[0] if several else output
        varies = 1.0 if selections.is_product(name) else _varies(chosen, self._samples)
        for each in found:
            known = each.nan_to_num()
            chosen = chosen + SLOPE * varies * (known - known.detach())
        return type(output)((chosen, *output[1:])) if several else chosen


def out_of_reach(runs: Sequence[Sequence[Seen]], grows: bool = True) -> frozenset[int]:
    """Numbers of the calls that no batch reaches; each of ``runs`` is what a Gauge has seen of one batch.

    The spread of what goes in only ``grows`` where some parameter learns.
    """
    if not runs or any(len(run) != len(runs[0]) for run in runs):
        return frozenset()
    return frozenset(number for number, batches in enumerate(zip(*runs, strict=True)) if _is_closed(batches, grows))


def _is_closed(batches: Sequence[Seen], grows: bool) -> bool:
    distance, spread = min(each.distance for each in batches), max(each.std for each in batches)
    changes = len(batches) == 1 or len(set(batches)) > 1
    if changes and min(each.count for each in batches) < FEWEST:
        return False
    if grows or not spread:
        spread = max(spread, USUAL)
    return distance >= OUT_OF_REACH * spread


def flattened(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    """What the function is applied to, if it is flat somewhere."""
    data = args[0] if args else kwargs.get("input")
    if name not in FLAT or not isinstance(data, torch.Tensor) or not data.is_floating_point() or not data.numel():
        return None
    learned = any(isinstance(each, torch.nn.Parameter) for each in (*args[1:], *kwargs.values()))
    return None if learned else data  # a learned bound moves: it is a choice between it and the data


def _without_padding(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], dict[str, Any]]:
    """The arguments of a look-up (input, weight, padding_idx, ...) in which the row of padding is one like others."""
    others = {key: value for key, value in kwargs.items() if key != "padding_idx"}
    return (*args[:2], None, *args[3:]) if len(args) > 2 else args, others


def _seen(data: torch.Tensor, edges: Edges) -> Seen:
    values = data.detach().double() if data.numel() < 2 else data.detach().float()
    std = float(values.std(correction=0)) if values.numel() > 1 else 0.0
    return Seen(values.numel(), float(values.min()), float(values.max()), float(values.mean()), std, edges)


def _gaps(data: torch.Tensor, given: Given) -> torch.Tensor:
    """How far the largest logit is above the next one: beyond UNDERFLOW a softmax is exactly one-hot."""
    axis = given.get("dim")
    if not isinstance(axis, int) or data.ndim == 0 or data.shape[axis] < 2:
        return torch.zeros(1)
    top = data.detach().float().topk(2, axis).values
    return top.select(axis, 0) - top.select(axis, 1)


def _is_one_hot(output: torch.Tensor, axis: object) -> torch.Tensor:
    """1 where a softmax is 0 or 1 exactly. Elsewhere it has a slope, and what gets no gradient does so by symmetry.

    Over a single entry it is 1 whatever that is.
    """
    values = output.detach()
    if isinstance(axis, int) and values.ndim and values.shape[axis] == 1:
        return torch.zeros_like(values)
    return ((values == 0) | (values == 1)).to(values.dtype)


def _varies(data: torch.Tensor, samples: int = 0) -> torch.Tensor:
    """1 where an entry differs between samples; of a single sample, where it is not zero."""
    values = data.detach()
    if values.ndim > 1 and values.shape[0] > 1:
        axis = _sample_axis(values.shape, samples)
        return (values != values.narrow(axis, 0, 1)).any(axis, keepdim=True).to(values.dtype)
    return (values != 0).to(values.dtype)


def _sample_axis(shape: Sequence[int], samples: int) -> int:
    """The first one, unless members of an ensemble or time steps stand there and another one is as long as a batch."""
    as_long = [axis for axis, size in enumerate(shape[:-1]) if size == samples]
    return as_long[0] if samples > 1 and shape[0] % samples and len(as_long) == 1 else 0
