"""Statistics of a layer's output, a torch tensor, in few passes: an activation may be larger than any cache."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..load.from_torch import output_tensors
from .signals import LayerSignal
from .taps import Tap

_SQUARED_IN_SINGLE = (1e-15, 1e18)
"""Between these the square of the largest value is a normal float32 number, and so is one of a 10^4th of it."""


def signal_of(tensor: torch.Tensor, unit_axis: int, flat: tuple[float, float] | None) -> LayerSignal:
    """Statistics of one output; ``unit_axis`` is clipped to the tensor's rank.

    Sums are taken in double precision; the variance comes out in that of the values. What is done unit by unit is done
    in numpy, whose calls cost a fifth of torch's where there are a few units only.
    """
    units = _by_unit(tensor.detach(), unit_axis)
    others = [dim for dim in range(units.ndim) if dim != 1]
    high, low = units.amax(others).cpu().numpy(), units.amin(others).cpu().numpy()
    absmax = abs(max(float(high.max()), -float(low.min())))
    if absmax != 0.0 and not _SQUARED_IN_SINGLE[0] < absmax < _SQUARED_IN_SINGLE[1]:  # true for NaN
        units = units.double()
    mean, variance = _moments(units)
    nonfinite = 0.0 if math.isfinite(absmax) else 1.0 - float(units.isfinite().double().mean())
    outside = None if flat is None else _outside(units, others, (low, high), flat)
    with np.errstate(all="ignore"):
        of_all = np.array([variance + mean * mean, mean, variance])
        single = [_singles(each) for each in (mean, np.sqrt(variance), high)]
    square_of_all, mean_of_all, variance_of_all = torch.from_numpy(of_all).mean(1).tolist()
    return LayerSignal(
        samples=units.numel() // units.shape[1],
        rms=square_of_all**0.5,
        mean=mean_of_all,
        std=variance_of_all**0.5,
        absmax=absmax,
        nonfinite=nonfinite,
        saturated=0.0 if outside is None else float(outside.mean()),
        unit_mean=single[0],
        unit_std=single[1],
        unit_max=single[2],
        unit_saturated=array("f", outside.tolist() if outside is not None else []),
    )


def std_along(tensor: torch.Tensor, axes: Sequence[int]) -> float:
    """Root of the mean variance along one of ``axes``, the largest."""
    values = tensor.detach().double()
    return math.sqrt(max(float(values.var(axis, correction=0).mean()) for axis in axes))


def _singles(values: NDArray[Any]) -> array[float]:
    return array("f", values.astype(np.float32, copy=False).tobytes())


def own_units(tensor: torch.Tensor, tap: Tap) -> torch.Tensor:
    """The part of the tapped value, or of its gradient, that is the layer's own."""
    if tap.units is None or not -tensor.ndim <= tap.unit_axis < tensor.ndim:
        return tensor
    first, last = tap.units
    return tensor.narrow(tap.unit_axis, first, last - first)


def _by_unit(data: torch.Tensor, unit_axis: int) -> torch.Tensor:
    """The units along axis 1, without a copy where the memory allows it."""
    if data.dtype not in (torch.float32, torch.float64):
        data = data.float()
    if data.ndim < 2:
        return data.reshape(1, -1)
    axis = unit_axis % data.ndim if -data.ndim <= unit_axis < data.ndim else data.ndim - 1
    if axis == 1:
        return data
    return data.reshape(-1, data.shape[-1]) if axis == data.ndim - 1 else data.movedim(axis, 1)


def _moments(units: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(mean, variance) of each unit as double precision numbers."""
    if units.device.type == "cpu":  # batch norm's kernel takes a fifth of the time
        mean, variance = torch.batch_norm_update_stats(units, None, None, 0.0)
    else:
        variance, mean = torch.var_mean(units, [dim for dim in range(units.ndim) if dim != 1], correction=0)
    return mean.cpu().numpy().astype(np.float64), variance.cpu().numpy().astype(np.float64)


def _outside(
    units: torch.Tensor,
    others: list[int],
    reach: tuple[NDArray[Any], NDArray[Any]],
    flat: tuple[float, float],
) -> torch.Tensor:
    """Share of each unit's values outside ``flat``."""
    share = torch.zeros(units.shape[1], dtype=torch.float64, device=units.device)
    below, above = not (reach[0] >= flat[0]).all(), not (reach[1] <= flat[1]).all()
    if not (below or above):
        return share
    count = units.numel() / units.shape[1]
    flags = torch.empty_like(units)  # as floats: booleans are summed ten times more slowly
    if below:
        share += torch.lt(units, flat[0], out=flags).sum(others).double() / count
    if above:
        share += torch.gt(units, flat[1], out=flags).sum(others).double() / count
    return share


def signals_of_outputs(output: Any) -> Mapping[str, LayerSignal]:
    """By "output" and number; ``logits`` are called by their name, as exporters do."""
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    return {
        "logits" if tensor is logits else f"output{i}": signal_of(tensor, 1 if tensor.ndim > 1 else 0, None)
        for i, tensor in enumerate(output_tensors(output))
        if tensor.is_floating_point() and tensor.numel()
    }
