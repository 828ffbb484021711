"""Fixtures that several files of tests ask for by name; and one thread for each of the processes that run them."""

import os
import sys
from functools import cache

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before torch is imported; children inherit it

import pytest  # noqa: E402
from fake_sessions import fakes  # noqa: E402

__all__ = ["fakes"]


@pytest.fixture(autouse=True)
def one_registry() -> None:
    """PyTorch's newer exporter parses the source of all its operators at every export, half of its time: here once."""
    registration = sys.modules.get("torch.onnx._internal.exporter._registration")
    known = getattr(registration, "ONNXRegistry", None)
    if hasattr(known, "from_torchlib") and not hasattr(known.from_torchlib, "cache_info"):
        known.from_torchlib = staticmethod(cache(known.from_torchlib))
