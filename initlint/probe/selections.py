"""Choices between operands: what is not chosen gets no gradient, though the net may well train around it.

``minimum(x, p)`` of a clip level p that no value reaches yet, a branch of ``where``, a mask ``x > p``, ``|x - p|`` of
values on one side of p: as long as what was chosen depends on the inputs, its values may grow to where the choice is
another one (PACT, Choi et al. 2018, arXiv:1805.06085, starts its clip levels far above all activations). What is
chosen for all samples and does not depend on them leaves nothing to grow: there the other operands are shut off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

_OF_TWO = frozenset({"minimum", "maximum", "fmin", "fmax", "min", "max"})
_OVER_AN_AXIS = frozenset({"amin", "amax", "min", "max"})
_CLAMPS = frozenset({"clamp", "clamp_", "clip", "clip_", "clamp_min", "clamp_max"})
_COMPARISONS = frozenset({"gt", "ge", "lt", "le", "eq", "ne", "greater", "greater_equal", "less", "less_equal"})
_OF_MASKS = frozenset(
    {"__invert__", "__and__", "__or__", "__xor__", "logical_not", "logical_and", "logical_or", "logical_xor"}
    | {"float", "double", "half", "bfloat16", "int", "long", "bool", "to", "type", "type_as", "rsub", "__rsub__", "sub"}
    | {"view", "reshape", "expand", "expand_as", "squeeze", "unsqueeze", "__getitem__", "transpose", "permute"}
)
"""What turns masks into masks."""
_PRODUCTS = frozenset({"mul", "mul_", "multiply"})

_MARK = "_initlint_chooses"
"""Attribute of a mask that a comparison of something learned has made."""


def note_masks(name: str, args: Sequence[Any], output: Any) -> None:
    """Mark ``output`` where it is a mask that training may change; masks of padding or of causality are not."""
    if not isinstance(output, torch.Tensor) or output.requires_grad:
        return
    operands = [each for each in args if isinstance(each, torch.Tensor)]
    compares = name in _COMPARISONS and any(each.requires_grad for each in operands)
    if compares or (name in _OF_MASKS and any(map(_is_mask, operands))):
        setattr(output, _MARK, True)


def is_product(name: str) -> bool:
    """Whether it multiplies by masks, so that nothing is left of what they leave out."""
    return name in _PRODUCTS


def operands(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """What the function chose among, as far as it is learned; its shape can be added to the output's."""
    if is_product(name) and len(args) > 1:
        return [one for one, other in (args[:2], args[1::-1]) if _is_mask(other) and _is_learned(one)]
    return [each for each in _candidates(name, args, kwargs) if _is_learned(each)]


def _candidates(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    second = args[1] if len(args) > 1 else kwargs.get("other", kwargs.get("dim"))
    if name in _OF_TWO and isinstance(second, torch.Tensor):
        return [args[0], second]
    if name in _OVER_AN_AXIS and second is not None:
        return [args[0].sum(second, keepdim=_keeps(args, kwargs))]
    if name in ("abs", "absolute"):
        return [args[0]]
    if name == "masked_fill" and len(args) > 1 and _is_mask(args[1]):
        return [args[0]]
    if name == "where" and len(args) == 3:
        masks = [each for each in args[:2] if _is_mask(each)]  # torch.where(mask, x, y), x.where(mask, y)
        return [each for each in args if not any(each is mask for mask in masks)] if masks else []
    if name in _CLAMPS:
        return [*args, *kwargs.values()]
    return []


def _keeps(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    return bool(args[2] if len(args) > 2 else kwargs.get("keepdim", False))


def _is_mask(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and hasattr(tensor, _MARK)


def _is_learned(tensor: Any) -> bool:
    return isinstance(tensor, torch.Tensor) and tensor.requires_grad and tensor.is_floating_point()
