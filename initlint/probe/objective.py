"""What the backward pass starts from: the user's loss, or a random linear one on the outputs that matter."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import torch
from torch.utils._pytree import tree_map

from ..errors import FailureKind, TargetError
from ..foreign import described
from ..load.from_torch import output_tensors
from ..settings import SEEDS
from .limits import MEMBERS
from .signals import Loss, LossStart


class Counted(Enum):
    """Which outputs count."""

    LOSS = auto()
    """Those that the loss reads."""
    HEADS = auto()
    """These, and all others that may be heads of their own."""
    ALL = auto()


UserLoss = Callable[..., torch.Tensor]
"""``loss(output)`` or ``loss(output, inputs)``, a scalar."""


@dataclass(frozen=True)
class Objective:
    """Makes a scalar of what a forward returned; ``draw`` numbers the random coefficients."""

    given: UserLoss | None = None
    seed: int = 0
    alike: bool = False
    """Slices of an output that are equal share their coefficients too: members of an ensemble, stacked."""
    apart: bool = False
    """Every output has coefficients of its own, also beside one of its shape."""

    @property
    def kind(self) -> Loss:
        return Loss.RANDOM_LINEAR if self.given is None else Loss.GIVEN

    def __call__(self, output: Any, inputs: Any, draw: int) -> torch.Tensor:
        if self.given is None:
            return self.linear(split(output)[0], draw)
        wants_inputs = _positional(self.given) > 1
        loss = self.given(output, inputs) if wants_inputs else self.given(output)
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            what = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise TargetError(FailureKind.USAGE, f"the loss gives {what} where a tensor with one value is needed")
        return loss.reshape(())

    def start(self, output: Any, inputs: Any) -> LossStart:
        """What the user's loss says of ``output``, and of zeros in its place. Exceptions of the loss pass through."""
        value = float(self(output, inputs, 0))
        refusal = ""
        try:
            at_zero = float(self(_zeroed(output), inputs, 0))
        except Exception as error:  # noqa: BLE001 - a loss may need more than numbers; the report says what it raised
            at_zero, refusal = math.nan, described(error)
        shape = next((tensor.shape for tensor in output_tensors(output) if tensor.numel()), torch.Size())
        classes, terms = _cross_entropy(at_zero, shape)
        return LossStart(value, at_zero, classes, terms, refusal)

    def linear(self, outputs: Sequence[torch.Tensor], draw: int) -> torch.Tensor:
        """Sum of outputs times coefficients from N(0, 1 / size); outputs of equal shape share their coefficients."""
        drawn: dict[tuple[torch.Size, int], torch.Tensor] = {}
        total = torch.zeros(())
        for number, output in enumerate(outputs):
            values = torch.view_as_real(output.resolve_conj()) if output.is_complex() else output
            key = values.shape, number if self.apart else 0
            if key not in drawn:
                generator = torch.Generator().manual_seed((1_000_003 * self.seed + 97 * draw + len(drawn)) % SEEDS)
                drawn[key] = torch.randn(values.shape, generator=generator) / max(1, values.numel()) ** 0.5
            coefficients = drawn[key].to(values)
            if self.alike:
                coefficients = _shared(coefficients, values.detach())
            total = total.to(values.device) + (values * coefficients).sum(dtype=_wide(values.dtype))
        return total


def _zeroed(output: Any) -> Any:
    return tree_map(lambda each: torch.zeros_like(each) if isinstance(each, torch.Tensor) else each, output)


_ALIKE = 1e-3
"""Rounding of a mean in float32 is far below, and ln 3 is half as much again as ln 2."""


def _cross_entropy(at_zero: float, shape: torch.Size) -> tuple[int, int]:
    """(classes, terms) for which zeros cost ln C per term, C the length of an axis, or 2; (0, 1) where nothing fits."""
    for classes in (*(size for size in shape if size > 1), 2):
        several = shape.numel() // (classes if classes in shape else 1)
        for terms in (1, several):
            if math.isclose(at_zero, terms * math.log(classes), rel_tol=_ALIKE):
                return classes, terms
    return 0, 1


def _shared(coefficients: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Of equal slices along any axis, those of the first one; a slice of one value throughout tells nothing."""
    for axis in range(values.ndim):
        size = values.shape[axis]
        if not 1 < size <= MEMBERS:
            continue
        slices, chosen = values.unbind(axis), list(range(size))
        for number in range(1, size):
            varies = slices[number].numel() > 1 and bool((slices[number] != slices[number].flatten()[0]).any())
            if varies:
                equal = (first for first in range(number) if torch.equal(slices[first], slices[number]))
                chosen[number] = next(equal, number)
        coefficients = coefficients.index_select(axis, torch.tensor(chosen, device=coefficients.device))
    return coefficients


def split(output: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """(outputs the loss reads, outputs it leaves out): ``logits``, or the first tensor and others of its shape.

    Caches, hidden states and auxiliary outputs are left out; only what depends on a parameter counts.
    """
    everything = [tensor for tensor in output_tensors(output) if _differentiable(tensor)]
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(logits, torch.Tensor) and _differentiable(logits):
        chosen = [logits]
    else:
        top = [tensor for tensor in _top_level(output) if _differentiable(tensor)] or everything[:1]
        chosen = [tensor for tensor in top if tensor.shape == top[0].shape]
    known = {id(tensor) for tensor in chosen}
    return chosen, [tensor for tensor in everything if id(tensor) not in known]


def heads(output: Any) -> list[torch.Tensor]:
    """What the loss reads, and what it leaves out of the outputs that are no caches, nor states of every layer.

    Tensors that stand at the top level: boxes beside logits. A loss of the user's reads them, as likely as not.
    """
    chosen, rest = split(output)
    top = {id(tensor) for tensor in _top_level(output)}
    return [*chosen, *(tensor for tensor in rest if id(tensor) in top)]


def _top_level(output: Any) -> Iterator[torch.Tensor]:
    if isinstance(output, Mapping):
        values: Sequence[Any] = list(output.values())
    elif hasattr(output, "__dataclass_fields__"):
        values = [getattr(output, name) for name in output.__dataclass_fields__]
    else:
        values = output if isinstance(output, list | tuple) else [output]
    return (value for value in values if isinstance(value, torch.Tensor))


def _differentiable(tensor: torch.Tensor) -> bool:
    return tensor.requires_grad and tensor.numel() > 0


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _positional(function: Callable[..., Any]) -> int:
    """How many positional arguments it needs; 1 where it does not say."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is inspect.Parameter.empty for p in parameters)
