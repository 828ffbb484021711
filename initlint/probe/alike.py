"""Whether the outputs depend on the inputs at all: what nothing gets through learns nothing but an average."""

from __future__ import annotations

from typing import Any

import torch

from ..load.from_torch import output_tensors
from .backward import tensor_inputs
from .torch_run import Call


def share_by_sample(output: Any, call: Call) -> float:
    """How far samples differ in an output, over the usual size of its entries; the largest of all outputs.

    Infinite where it cannot be told: samples that are alike themselves, outputs that have no axis for them, or in half
    precision, whose rounding is no smaller than what may be left of a signal.
    """
    samples = next((len(each) for each in tensor_inputs(call) if each.ndim and _differ(each)), 0)
    shares = [
        _share(each.detach()) if each.ndim and each.shape[0] == samples and _is_exact(each) else torch.inf
        for each in output_tensors(output)
        if each.numel() and (each.is_floating_point() or each.is_complex())
    ]
    return max(shares, default=torch.inf) if samples > 1 else torch.inf


def _differ(tensor: torch.Tensor) -> bool:
    return len(tensor) > 1 and bool((tensor[1:] != tensor[:1]).any())


def _is_exact(tensor: torch.Tensor) -> bool:
    return tensor.dtype in (torch.float32, torch.float64)


def _share(values: torch.Tensor) -> float:
    """A mask of -1e9 among the entries is not their usual size."""
    sizes = values.abs()
    sizes = sizes[(sizes > 0) & sizes.isfinite()]
    if not sizes.numel():
        return 0.0
    return float((values - values[:1]).nan_to_num().abs().amax() / sizes.median())
