"""Standard streams that nobody reads, or that were closed before initlint started."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO


def discard(stream: TextIO) -> None:
    """Send what is still to be written, also by the interpreter when it ends, to nowhere."""
    with contextlib.suppress(OSError, ValueError):  # a stream of a test has no descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def replace_missing() -> None:
    """Python starts with None in place of a stream that is closed (`initlint ... >&-`)."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process


def lost_reader() -> bool:
    """Whether click met a closed pipe, which it would call exit status 1: here that reads as "findings"."""
    return type(sys.stdout).__name__.endswith("PacifyFlushWrapper")
