"""Runs a module once under the recorder."""

from __future__ import annotations

from torch import Tensor, nn

from initlint.load.from_torch import TracedModule
from initlint.probe.on_torch import TorchSession


def traced(module: nn.Module, *inputs: Tensor) -> TracedModule:
    return TorchSession(module, inputs, {}).traced
