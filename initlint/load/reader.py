"""Reading constants as weights."""

from __future__ import annotations

from functools import cached_property

from ..kinds import Role
from ..model import NotChecked, View
from .constants import Constants
from .folding import Array, is_float, is_weight_dtype
from .graph import Graph
from .stored import Stored


class WeightReader:
    """What the finders of weighted operations ask of a graph; what cannot be read lands in ``not_checked``."""

    def __init__(self, graph: Graph, constants: Constants) -> None:
        self.graph = graph
        self.constants = constants
        self.not_checked: list[NotChecked] = []

    def is_live(self, name: str) -> bool:
        return name in self.graph.live

    def weight(self, name: str) -> Array | None:
        """Shape and dtype of a constant that can be a weight (numbers, not indices); the values mean nothing."""
        if not name or not self.constants.known(name):
            return None
        array = self.constants.spec(name)
        if array is None:
            for root in self.constants.roots(name):
                what = "its values" if root == name else f"how it becomes {name!r}"
                self.not_checked.append(NotChecked(root, f"initlint cannot work out {what}"))
            return None
        return array if is_weight_dtype(array.dtype) else None

    def vector(self, name: str, role: Role, size: int, suffix: str = "", fixed: bool = False) -> Stored | None:
        """A constant of ``size`` values as a bias, gain or shift; None where it is something else."""
        array = self.weight(name)
        if array is None or array.size != size or self.constants.is_drawn(name):
            return None
        if role is Role.BIAS and self._is_filler(name):
            return None
        view = View(1, size, 1)
        return Stored(name, role, (size,), view, lambda a: a.reshape(-1), suffix=suffix, fixed=fixed)

    def _is_filler(self, name: str) -> bool:
        """Zeros that an exporter computes for a module without bias; they count where weights are computed too."""
        computed = all(root in self.graph.producer for root in self.constants.roots(name))
        return computed and self._stores_weights

    @cached_property
    def _stores_weights(self) -> bool:
        specs = (self.constants.spec(name) for name in self.graph.initializers)
        return any(spec is not None and spec.ndim > 1 and is_float(spec.dtype) for spec in specs)
