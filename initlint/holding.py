"""What the code of a fix has to know of a model: which call of PyTorch draws what the trial has drawn."""

from __future__ import annotations

import math
from dataclasses import replace
from math import prod

from .fans import fans
from .fixes import Fill, Fix, Held, Reinit, Several
from .model import SCATTERED, Model, Tensor
from .schemes import std_of

ALIKE = 1e-3
"""Relative difference of two standard deviations that come from the same fans; neighbouring fans differ by more."""


def placed(model: Model, fix: Fix | None) -> Fix | None:
    """``fix`` with what its code has to know. A rule knows an address; how it is held, the model knows."""
    if isinstance(fix, Several):
        edits = [_placed(model, each) for each in fix.fixes]
        return None if None in edits else Several(tuple(each for each in edits if each is not None))
    return _placed(model, fix) if isinstance(fix, Reinit | Fill) else fix


def _placed(model: Model, edit: Reinit | Fill) -> Reinit | Fill | None:
    held = _held(model, edit)
    return None if held is None else replace(edit, held=held)


def _held(model: Model, edit: Reinit | Fill) -> Held | None:
    """None where no code that is short changes just the parts that the trial has changed."""
    tensor = model.tensor(edit.tensor)
    if tensor is None:
        return Held(buffer=model.is_buffer(edit.tensor))
    names = tensor.part_addresses
    axis = model.packed_along.get(tensor.address, 0)
    if axis == SCATTERED:
        if edit.tensor != tensor.address or (isinstance(edit, Reinit) and edit.scheme == "orthogonal"):
            return None
        names, axis = (tensor.address,), 0  # drawn alike, all of them can be drawn at once
    return Held(
        buffer=model.is_buffer(edit.tensor),
        parts=len(names),
        part=names.index(edit.tensor) if len(names) > 1 and edit.tensor in names else -1,
        axis=axis,
        std=_std(model, tensor, edit) if isinstance(edit, Reinit) else 0.0,
        piece=model.pieces.get(tensor.address, ""),
    )


def _std(model: Model, tensor: Tensor, edit: Reinit) -> float:
    """The standard deviation to be spelled out; 0 where PyTorch's function for the scheme finds the same one."""
    if (
        edit.scheme == "orthogonal"
        and tensor.address in model.reordered
        and 1 in (tensor.view.units, tensor.view.fan_in)
    ):
        return edit.gain / math.sqrt(tensor.size)  # a vector of length 1, which may be held without a second axis
    if edit.scheme in ("orthogonal", "normal"):
        return 0.0
    own = fans(model.owner(tensor.address), tensor, tensor.part_addresses[0] if tensor.parts else "")
    inputs, outputs = own.fan_in or tensor.view.fan_in, own.fan_out or tensor.view.units
    wanted = edit.gain * std_of(edit.scheme, inputs, outputs)
    shape = tensor.shape
    if tensor.address in model.reordered or len(shape) < 2:
        return wanted
    if tensor.parts and edit.tensor != tensor.address:
        shape = (shape[0] // len(tensor.parts), *shape[1:])
    gain = edit.gain if edit.scheme.startswith("xavier") else 1.0
    counted = gain * std_of(edit.scheme, shape[1] * prod(shape[2:]), shape[0] * prod(shape[2:]))
    return 0.0 if math.isclose(wanted, counted, rel_tol=ALIKE) else wanted
