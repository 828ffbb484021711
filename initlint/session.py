"""A Session holds one opened model and answers for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from .fixes import Fix
from .model import Model
from .probe.signals import Signals
from .settings import ProbeSettings
from .stats import WeightStats


class Session(Protocol):
    """One opened model. Files live in a child process, Python objects in the calling one."""

    @property
    def model(self) -> Model: ...

    def stats(self) -> Mapping[str, WeightStats]:
        """Statistics by address, packed parts included."""
        ...

    def probe(self, settings: ProbeSettings, edits: Sequence[Fix] = ()) -> Signals:
        """Push a batch through the model with ``edits`` applied for this call only."""
        ...

    def close(self) -> None: ...
