"""What NaN in a tensor does to the outputs of a module: whether the forward reads memory that nobody wrote."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..builds import Reading
from ..load.eager import AsInTraining, untouched
from ..load.from_torch import output_tensors
from ..load.trace import storage_of
from .torch_run import Call

MAX_READ = 24
"""Tensors whose effect on the outputs is tried one by one: each costs a forward pass, or two."""


class Poison:
    """Puts NaN into one tensor at a time, a harmless value where else nobody wrote, and looks at the outputs."""

    HARMLESS = 0.01
    """Finite under logarithms, roots and divisions, and too small to overflow in a deep net."""

    def __init__(self, module: nn.Module, call: Call, masks: Mapping[str, torch.Tensor]) -> None:
        device = next((each.device for each in output_tensors(call)), torch.device("cpu"))
        self._module, self._call, self._masks = module.to(device), call, masks
        self._tensors = {name: each for name, each in stored_tensors(module).items() if name in masks}

    def readings(self) -> dict[str, Reading]:
        """Raises what the forward raises without any NaN."""
        for address in self._tensors:
            self._fill(address, poison=False)
        healthy = {training: not self._is_spoilt(training) for training in (True, False)}
        found: dict[str, Reading] = {}
        for address in list(self._tensors)[:MAX_READ]:
            self._fill(address, poison=True)
            if healthy[True] and self._spoils(training=True):
                found[address] = Reading.TRAINING
            elif healthy[False] and self._spoils(training=False):
                found[address] = Reading.EVALUATION
            elif all(healthy.values()):
                found[address] = Reading.NONE
            self._fill(address, poison=False)
        return found

    def _fill(self, address: str, *, poison: bool) -> None:
        tensor = self._tensors[address].detach()
        mask = self._masks[address].to(tensor.device)
        if tensor.is_floating_point() or tensor.is_complex():
            value: float = float("nan") if poison else self.HARMLESS
        else:
            value = torch.iinfo(tensor.dtype).max if poison else 0
        tensor[mask] = torch.tensor(value, dtype=tensor.dtype, device=tensor.device)

    def _spoils(self, *, training: bool) -> bool:
        try:
            return self._is_spoilt(training)
        except Exception:  # noqa: BLE001 - without the poison it did not raise
            return True

    def _is_spoilt(self, training: bool) -> bool:
        args, kwargs = self._call
        with untouched(self._module), torch.no_grad(), quietly():
            if training:
                with AsInTraining():
                    output = self._module(*args, **kwargs)
            else:
                output = self._module(*args, **kwargs)
        return any(bool(is_nan(each).any()) for each in output_tensors(output) if each.is_floating_point())


def stored_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers that have values."""
    named = (*module.named_parameters(), *module.named_buffers())
    return {name: each for name, each in named if not is_lazy(each) and storage_of(each) is not None}


def is_nan(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.float() if tensor.element_size() == 1 else tensor).isnan()


@contextmanager
def quietly() -> Iterator[None]:
    """The checked build has warned already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
