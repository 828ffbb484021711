"""A file of weights as a Model: layers are guessed from names and shapes, so nothing is known of what computes what."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from ..kinds import Kind, Role
from ..model import Layer, Model, NotChecked, Tensor, View
from . import weights_file
from .blocks import blocks
from .folding import Array
from .stored import Stored, StoredTransposedConv

NO_NETWORK = "a file of weights holds no network to run; name the Python that builds it (pkg.mod:attr) or an ONNX file"
"""Why there are no signals."""

_GUESSED = "what each tensor does was guessed from its name and shape, since the file does not say it"

_TABLE = re.compile(r"(^|[._])(emb|embed|embedding|embeddings|embed_\w+|\w*_embed(ding)?s?|wte|wpe|shared)$")
_TRANSPOSED = re.compile(r"transpose|deconv|(^|[._])(up|upconv|convt)\d*($|[._])")
_SLOPE = re.compile(r"prelu")
_RECURRENT = re.compile(r"^(.*?\.)?weight_ih((?:_l\d+)?(?:_reverse)?)$")
_GATES: Mapping[int, tuple[Kind, tuple[str, ...]]] = {
    4: (Kind.LSTM, ("i", "f", "g", "o")),
    3: (Kind.GRU, ("r", "z", "n")),
    1: (Kind.RNN, ()),
}
_RUNNING = {"running_mean": Role.RUNNING_MEAN, "running_var": Role.RUNNING_VARIANCE}


@dataclass(frozen=True)
class OpenedWeights:
    """The neutral model and access to the arrays by address."""

    model: Model
    arrays: Mapping[str, Array]
    stored_at: Mapping[str, Stored]

    def chunks(self, address: str) -> Iterator[Array]:
        stored = self.stored_at[address]
        yield from blocks(stored.rows(self.arrays[address]), stored.view.fan_in, lambda: None)


def open_weights(path: Path) -> OpenedWeights:
    """Raises TargetError where the file cannot be read or holds code."""
    file = weights_file.read(path)
    guess = _Guess(file.arrays)
    tensors = tuple(guess.tensors.values())
    left_out = (NotChecked(name, reason) for name, reason in file.left_out.items())
    notes = (NotChecked("the whole file", _GUESSED), *left_out) if tensors else tuple(left_out)
    parameters = sum(tensor.size for tensor in tensors if tensor.trainable)
    model = Model("weights", tuple(guess.layers), tensors, parameters, notes, producer=file.producer)
    return OpenedWeights(model, file.arrays, guess.stored)


class _Guess:
    """Layers in the file's order; what fits no layer is a tensor of its own."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = arrays
        self.layers: list[Layer] = []
        self.tensors: dict[str, Tensor] = {}
        self.stored: dict[str, Stored] = {}
        for name in arrays:
            if name not in self.tensors:
                self._visit(name)
        for name in arrays:
            if name not in self.tensors and arrays[name].size > 1:
                self._vector(name, Role.OTHER)

    def _visit(self, name: str) -> None:
        array, owner = self._arrays[name], name.rpartition(".")[0]
        recurrent = _RECURRENT.match(name)
        if recurrent and array.ndim == 2:
            self._recurrence(name, (recurrent[1] or "").rstrip("."), recurrent[2])
        elif name.endswith("in_proj_weight") and array.ndim == 2:
            parts = ("q", "k", "v") if array.shape[0] == 3 * array.shape[1] else ()
            self._map(name, owner, Kind.LINEAR, name.removesuffix("weight") + "bias", parts)
        elif not name.endswith("weight"):
            return
        elif array.ndim == 2 and _TABLE.search(owner):
            weight = self._take(name, Role.TABLE, View(1, *array.shape))
            self.layers.append(Layer(owner, Kind.EMBEDDING, weight, fan_out=array.shape[1]))
        elif array.ndim == 2:
            self._map(name, owner, Kind.LINEAR, f"{owner}.bias")
        elif array.ndim in (3, 4, 5):
            self._map(name, owner, Kind.CONV, f"{owner}.bias")
        elif array.ndim == 1:
            self._norm(name, owner)

    def _map(self, name: str, owner: str, kind: Kind, bias: str, parts: tuple[str, ...] = ()) -> None:
        shape = self._arrays[name].shape
        units, fan_in, kernel = shape[0], prod(shape[1:]), prod(shape[2:])
        if kind is Kind.CONV and _TRANSPOSED.search(owner) and self._is_transposed(name, bias):
            kind, units, fan_in = Kind.CONV_TRANSPOSE, shape[1], shape[0] * kernel
        weight = self._take(name, Role.WEIGHT, View(1, units, fan_in), parts, kind is Kind.CONV_TRANSPOSE)
        shift = self._sibling(bias, Role.BIAS, units, parts)
        fan_out = units * kernel
        self.layers.append(Layer(owner or name, kind, weight, shift, fan_in=fan_in, fan_out=fan_out))

    def _is_transposed(self, name: str, bias: str) -> bool:
        shape = self._arrays[name].shape
        return bias not in self._arrays or self._arrays[bias].size == shape[1]

    def _norm(self, name: str, owner: str) -> None:
        size = self._arrays[name].size
        if size == 1 or _SLOPE.search(owner):
            if _SLOPE.search(owner):
                self.layers.append(Layer(owner, Kind.PRELU, self._vector(name, Role.SLOPE)))
            return
        running = [self._sibling(f"{owner}.{key}", role, size) for key, role in _RUNNING.items()]
        others = tuple(each for each in running if each is not None)
        shift = self._sibling(f"{owner}.bias", Role.SHIFT, size)
        kind = Kind.BATCH_NORM if others else (Kind.LAYER_NORM if shift else Kind.RMS_NORM)
        self.layers.append(Layer(owner or name, kind, self._vector(name, Role.GAIN), shift, others=others))

    def _recurrence(self, name: str, owner: str, tail: str) -> None:
        prefix = f"{owner}." if owner else ""
        other = f"{prefix}weight_hh{tail}"
        matrix, recurrent = self._arrays[name], self._arrays.get(other)
        if recurrent is None or recurrent.ndim != 2 or matrix.shape[0] % max(recurrent.shape[1], 1):
            return
        rows, hidden = recurrent.shape
        kind, parts = _GATES.get(rows // max(hidden, 1), (Kind.RNN, ()))
        short = tail.removeprefix("_")
        layer = owner if short in ("", "l0") else ".".join(filter(None, (owner, short)))
        weight = self._take(name, Role.WEIGHT, View(1, rows, matrix.shape[1]), parts)
        self.layers.append(
            Layer(
                layer or name,
                kind,
                weight,
                self._sibling(f"{prefix}bias_ih{tail}", Role.BIAS, rows, parts),
                self._take(other, Role.RECURRENT_WEIGHT, View(1, rows, hidden), parts),
                self._sibling(f"{prefix}bias_hh{tail}", Role.RECURRENT_BIAS, rows, parts),
                fan_in=matrix.shape[1],
                fan_out=hidden,
                segment="reverse" if tail.endswith("_reverse") else "forward",
            )
        )

    def _sibling(self, name: str, role: Role, size: int, parts: tuple[str, ...] = ()) -> Tensor | None:
        array = self._arrays.get(name.removeprefix("."))
        fits = array is not None and array.size == size
        return self._vector(name.removeprefix("."), role, parts) if fits else None

    def _vector(self, name: str, role: Role, parts: tuple[str, ...] = ()) -> Tensor:
        return self._take(name, role, View(1, self._arrays[name].size, 1), parts)

    def _take(self, name: str, role: Role, view: View, parts: tuple[str, ...] = (), transposed: bool = False) -> Tensor:
        array = self._arrays[name]
        trainable = role not in _RUNNING.values()
        stored = StoredTransposedConv if transposed else Stored
        self.stored[name] = stored(name, role, array.shape, view)
        self.tensors[name] = Tensor(name, array.shape, array.dtype.name, role, view, trainable, parts)
        return self.tensors[name]
