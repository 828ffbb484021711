"""An ONNX file as the neutral Model, with what statistics and the probe need of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import ModelProto

from ..model import Model, NotChecked
from ..probe.taps import SoftmaxTap, Tap
from ..probe.weights import Weights
from . import drawing, onnx_file, sparse, unrolled
from . import graph as flat
from .anchoring import anchored, is_enclosed
from .assembly import Assembled, assemble, pieces
from .constants import Constants
from .folding import Array
from .stored import Stored


@dataclass(frozen=True)
class Opened:
    """A loaded file: the neutral model, and access to its bytes by address."""

    model: Model
    proto: ModelProto
    base_dir: Path | None
    taps: tuple[Tap, ...]
    roots: Mapping[str, tuple[str, ...]]
    """Stored or computed value name -> addresses of the tensors it holds."""
    constants: Constants
    stored_at: Mapping[str, Stored]
    softmaxes: tuple[SoftmaxTap, ...] = ()

    def chunks(self, address: str) -> Iterator[Array]:
        """Rows (n, fan_in) of the canonical view, in order."""
        return pieces(self.stored_at[address], self.constants)

    @property
    def weights(self) -> Weights:
        """The weights as they are stored."""
        return Weights(
            value_of={address: stored.value for address, stored in self.stored_at.items()},
            read=self._array,
            to_rows=lambda address, array: self.stored_at[address].canonical(array),
            from_rows=lambda address, rows, around: self.stored_at[address].restored(rows, around),
        )

    def _array(self, value: str) -> Array:
        array = self.constants.array(value)
        if array is None:
            raise KeyError(value)
        return array

    def made_anew(self, changed: Mapping[str, Array], made: Sequence[str]) -> dict[str, Array]:
        """Canonical rows of the computed weights at the addresses ``made``, with ``changed`` tensors in place."""
        if not made:
            return {}
        constants = self.constants.with_values(dict(self.stored(address, rows) for address, rows in changed.items()))
        arrays = {address: constants.array(self.stored_at[address].value) for address in made}
        return {at: self.stored_at[at].canonical(array) for at, array in arrays.items() if array is not None}

    def stored(self, address: str, canonical: Array) -> tuple[str, Array]:
        """(value name, array in the file's layout) of new values given as canonical rows."""
        stored = self.stored_at[address]
        original = self.constants.array(stored.value)
        if original is None:
            raise KeyError(address)
        return stored.value, stored.restored(canonical, original)


_ENCLOSED = "it is made inside an If, Loop or Scan, where no fix can be tried and no gradient taken"


def open_onnx(source: Path | bytes) -> Opened:
    """Load ``source``; raises TargetError where it is no model initlint can read."""
    file = onnx_file.read(source)
    unrolled.unroll(file.proto, file.base_dir)
    graph, constants, found = _assembled(file)
    drawn = {root for each in found.stored_at.values() for root in constants.roots(each.value)}
    if drawing.settle(file.proto, drawn):
        graph, constants, found = _assembled(file)
    stored_at = anchored(found.stored_at, graph, constants)
    enclosed = [address for address, stored in stored_at.items() if is_enclosed(stored.value, graph)]
    drawn_anew = [address for address, stored in stored_at.items() if constants.is_drawn(stored.value)]
    model = replace(
        found.model,
        not_checked=(*found.model.not_checked, *(NotChecked(address, _ENCLOSED) for address in enclosed)),
        uneditable=frozenset([*enclosed, *drawn_anew, *found.model.makers]),
    )
    return Opened(model, file.proto, file.base_dir, found.taps, found.roots, constants, stored_at, found.softmaxes)


def _assembled(file: onnx_file.OnnxFile) -> tuple[flat.Graph, Constants, Assembled]:
    graph = flat.build(file.proto)
    constants = Constants(graph, file.base_dir)
    producer = f"{file.proto.producer_name} {file.proto.producer_version}".strip()
    return graph, constants, assemble(graph, constants, "onnx", producer, sparse.too_large(file.proto))
