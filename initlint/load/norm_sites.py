"""Where a graph normalises."""

from __future__ import annotations

from dataclasses import dataclass

from ..kinds import Kind
from .graph import Node


@dataclass(frozen=True)
class NormSite:
    """One normalisation: reads ``source``, its result (gain and shift applied) is ``value``."""

    kind: Kind
    source: str
    value: str
    node: Node
    """The node whose output is ``value``."""
    gain: str = ""
    shift: str = ""
    mean: str = ""
    variance: str = ""
    absorbed: frozenset[int] = frozenset()
    """Indices of all nodes that belong to it."""
    is_sum: bool = False
