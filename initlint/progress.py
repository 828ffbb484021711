"""One line on the terminal that says what is going on while it takes more than a second."""

from __future__ import annotations

import os
import sys
import threading
from time import perf_counter
from types import TracebackType
from typing import Self

from .reporters.wording import printable, shortened

_PATIENCE = 1.0
"""Seconds until the line appears, and between its updates."""

_WIDTH = 40
"""Columns for the target's name."""

_ERASE = "\r\x1b[K"


class Progress:
    """A context manager to be called with the name of each stage. Silent unless stderr is a terminal that can
    erase a line."""

    def __init__(self, target: str) -> None:
        self._target = shortened(printable(target), _WIDTH, "...")
        self._stage = ""
        self._started = perf_counter()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._show, daemon=True)

    def __call__(self, stage: str) -> None:
        self._stage = stage

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _show(self) -> None:
        shown = False
        while not self._over.wait(_PATIENCE):
            seconds = perf_counter() - self._started
            sys.stderr.write(f"{_ERASE}{self._target}: {self._stage} ({seconds:.0f} s)")
            sys.stderr.flush()
            shown = True
        if shown:
            sys.stderr.write(_ERASE)
            sys.stderr.flush()
