"""Fixtures that several files of tests ask for by name; and one thread for each of the processes that run them."""

import os
import signal
import sys
from collections.abc import Iterator
from functools import cache

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before torch is imported; children inherit it

import pytest  # noqa: E402
from child_here import ChildHere  # noqa: E402
from fake_sessions import fakes  # noqa: E402

from initlint import session  # noqa: E402

__all__ = ["fakes"]


_ANEW = (
    ("torch.onnx._internal.exporter._registration", "ONNXRegistry", "from_torchlib"),
    ("torch._export.utils", "", "_materialize_cpp_cia_ops"),
)
"""(module, class, function): what PyTorch's newer exporter asks anew at every export; it parses the source of all its
operators and looks up all of PyTorch's, which takes two thirds of its time."""


@pytest.fixture(autouse=True)
def asked_once() -> None:
    """The answers are always the same."""
    for module, owner, name in _ANEW:
        holder = sys.modules.get(module)
        holder = getattr(holder, owner, None) if owner else holder
        function = getattr(holder, name, None)
        if function is not None and not hasattr(function, "cache_info"):
            setattr(holder, name, staticmethod(cache(function)) if owner else cache(function))


@pytest.fixture
def opened_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are opened in this process, for tests of what is said of a model: starting a child costs half a second."""
    monkeypatch.setattr(session, "_Child", ChildHere)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Children hear Ctrl-C even where this run does not, as in the background of a shell: to ignore is inherited."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
