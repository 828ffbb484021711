"""Fixtures that several files of tests ask for by name; and one thread for each of the processes that run them."""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # before torch is imported; children inherit it

from fake_sessions import fakes  # noqa: E402

__all__ = ["fakes"]
