"""A session without a probe: a model whose weights are known and that cannot, or should not, be run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..builds import NOT_BUILT, Builds
from ..fixes import Fix
from ..model import Model
from ..settings import ProbeSettings
from ..stats import WeightStats
from .signals import Forward, Signals


@dataclass(frozen=True)
class UnrunSession:
    """Answers for the weights; ``reason`` says why there are no signals and how to get some."""

    model: Model
    chunks: Callable[[str], Iterable[Any]]
    reason: str

    def stats(self) -> Mapping[str, WeightStats]:
        from ..measure import measure_all

        return measure_all(self.model, self.chunks)

    def edited_stats(self, edits: Sequence[Fix], seed: int) -> Mapping[str, WeightStats]:
        from .edits import edited_stats

        return edited_stats(self.model, self.chunks, edits, seed)

    def probe(self, settings: ProbeSettings, edits: Sequence[Fix] = ()) -> Signals:
        return Signals(Forward.NONE, reason=self.reason, seed=settings.seed)

    def builds(self) -> Builds:
        return NOT_BUILT

    def close(self) -> None:
        """Nothing to release."""

    def __enter__(self) -> UnrunSession:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
