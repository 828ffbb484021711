"""Fans of a layer: its own, and those that frameworks count instead."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from .kinds import Role
from .model import Layer, Tensor


@dataclass(frozen=True, slots=True)
class Fans:
    """Inputs summed into one output, and outputs that one input feeds; ``alternatives`` are what frameworks count.

    PyTorch ignores groups in the fan-out, swaps the fans of transposed convolutions, and knows nothing of packing.
    """

    fan_in: int
    fan_out: int
    alternatives: tuple[tuple[int, int], ...] = ()
    matrix: tuple[int, int] = (0, 0)
    """(rows, columns) of the canonical view, for orthogonal and identity matrices."""
    hidden: int = 0
    """Units of a recurrent layer: PyTorch draws all of its tensors from U(+-1/sqrt(hidden)); else 0."""


NO_FANS = Fans(0, 0)


def fans(layer: Layer | None, tensor: Tensor, address: str = "") -> Fans:
    """Fans of the tensor of ``layer``, or of its packed part at ``address``."""
    if layer is None:
        return NO_FANS
    hidden = layer.recurrent.view.fan_in if layer.recurrent is not None else 0
    if tensor.role in (Role.BIAS, Role.RECURRENT_BIAS):
        return Fans(layer.fan_in or 0, 0, hidden=hidden)
    if tensor.role not in (Role.WEIGHT, Role.RECURRENT_WEIGHT, Role.TABLE):
        return NO_FANS
    parts = len(tensor.parts) if tensor.parts and address not in ("", tensor.address) else 1
    view = tensor.view
    rows = view.groups * view.units // parts
    receptive = prod(tensor.shape[2:]) if len(tensor.shape) > 2 else 1
    own = (view.fan_in, max(1, view.units // parts) * receptive)
    if tensor == layer.weight and layer.fan_in and layer.fan_out and parts == 1:
        own = (layer.fan_in, layer.fan_out)
    others = [(view.fan_in, rows * receptive), (view.fan_in, view.units * receptive)]
    if len(tensor.shape) > 1:
        others.append((tensor.shape[1] * receptive, tensor.shape[0] * receptive))
    if receptive > 1:  # what PyTorch counts before a kernel is brought from (*kernel, in, out) into its order
        first, second, *rest = *tensor.shape[2:], tensor.shape[1], tensor.shape[0]
        others.append((second * prod(rest), first * prod(rest)))
    if own[0] < view.fan_in:  # a transposed convolution taken for an ordinary one
        overlap = view.fan_in / own[0]
        others.append((max(1, round(own[1] / overlap)), round(own[0] * overlap)))
    if tensor.parts:  # one gate, or one of q, k and v, even where all of them are looked at
        others.append((view.fan_in, max(1, view.units // len(tensor.parts)) * receptive))
    alternatives = tuple(pair for pair in dict.fromkeys(others) if pair != own)
    return Fans(*own, alternatives, (rows, view.fan_in), hidden)
