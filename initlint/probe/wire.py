"""The channel between a session and its child process: a JSON header and raw bytes per message, never pickle.

A message is ``MAGIC``, the lengths of header and body, the header (JSON), the body (all raw blocks one after the
other). In the header a JSON object is a mapping, a JSON list is a tagged value: ``["Layer", field, ...]`` for one of
our frozen dataclasses, ``["tuple", item, ...]``, ``["array", typecode, offset, length]`` and so on. Only the classes
listed in ``_CLASSES`` can be made by a message, so the worst that a subverted child can send is wrong numbers.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Callable, Mapping
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

from .. import activations, fixes, kinds, maker, model, settings, stats
from . import signals, taps

MAGIC = b"init"
_PREFIX = struct.Struct("<4sIQ")
"""Magic, header length, body length."""

_LIMIT = 1 << 32
"""Longest header or body that is believed: a serialised model is at most 2 GiB (protobuf's own limit)."""

_DATACLASSES: tuple[type[Any], ...] = (
    activations.Affine,
    model.View,
    model.Tensor,
    model.Layer,
    model.NotChecked,
    model.Factor,
    model.FoldedNorm,
    maker.Maker,
    model.Model,
    stats.WeightStats,
    signals.LayerSignal,
    signals.SoftmaxSignal,
    signals.LossStart,
    signals.TrainingNoise,
    signals.NonFiniteOrigin,
    signals.GradientSignal,
    signals.Twin,
    signals.Members,
    signals.Alike,
    signals.Signals,
    settings.ProbeSettings,
    fixes.Held,
    fixes.Reinit,
    fixes.Fill,
    fixes.Several,
    fixes.Advice,
    taps.Tap,
)
_ENUMS: tuple[type[StrEnum], ...] = (
    kinds.Kind,
    kinds.Role,
    kinds.Use,
    kinds.Source,
    signals.Forward,
    signals.Backward,
    signals.Loss,
    signals.Liveness,
)
_CLASSES: dict[str, type[Any]] = {cls.__name__: cls for cls in (*_DATACLASSES, *_ENUMS)}
_FIELDS: dict[type[Any], tuple[str, ...]] = {cls: tuple(f.name for f in fields(cls)) for cls in _DATACLASSES}


class ChannelClosed(Exception):
    """The other end is gone: end of file, or a message cut short."""


class ChannelCorrupt(Exception):
    """What arrived is no message of ours."""


def send(stream: BinaryIO, value: object) -> None:
    """Write one message; raises OSError (BrokenPipeError) when nobody reads any more."""
    encoder = _Encoder()
    header = json.dumps(encoder.encode(value), separators=(",", ":")).encode("ascii")
    stream.write(_PREFIX.pack(MAGIC, len(header), encoder.size))
    stream.write(header)
    for block in encoder.blocks:
        stream.write(block)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """Read one message; raises ChannelClosed at the end of the stream and ChannelCorrupt on foreign bytes."""
    magic, header_length, body_length = _PREFIX.unpack(_read(stream, _PREFIX.size))
    if magic != MAGIC:
        raise ChannelCorrupt(f"a message starts with {magic!r}")
    if max(header_length, body_length) > _LIMIT:
        raise ChannelCorrupt(f"a message of {header_length + body_length} bytes is announced")
    header = _read(stream, header_length)
    body = _read(stream, body_length)
    try:
        return _Decoder(memoryview(body)).decode(json.loads(header))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ChannelCorrupt(f"{type(error).__name__}: {error}") from error


def _read(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if data is None or len(data) < count:
        raise ChannelClosed
    return data


class _Encoder:
    """Turns values into what JSON can say, collecting raw blocks on the way."""

    def __init__(self) -> None:
        self.blocks: list[memoryview] = []
        self.size = 0

    def encode(self, value: Any) -> Any:
        kind = type(value)
        if value is None or kind in (str, int, float, bool):
            return value
        if kind in _FIELDS:
            return [kind.__name__, *(self.encode(getattr(value, name)) for name in _FIELDS[kind])]
        if kind is tuple or kind is list:
            return [kind.__name__, *map(self.encode, value)]
        if isinstance(value, _ENUMS):
            return [kind.__name__, value.value]
        if isinstance(value, frozenset):
            return ["frozenset", *map(self.encode, sorted(value))]  # sorted: equal values give equal messages
        if isinstance(value, Mapping):
            return {_key(key): self.encode(item) for key, item in value.items()}
        if getattr(value, "shape", None) == ():
            return self.encode(value.item())  # a numpy scalar; the reader need not have numpy
        return self._encode_block(value)

    def _encode_block(self, value: Any) -> list[Any]:
        if isinstance(value, array):
            return ["array", value.typecode, *self._block(memoryview(value).cast("B"))]
        if isinstance(value, (bytes, bytearray, memoryview)):
            return ["bytes", *self._block(memoryview(value).cast("B"))]
        if isinstance(value, Path):
            return ["path", str(value)]
        if hasattr(value, "__array__"):
            return self._encode_ndarray(value)
        raise TypeError(f"a {type(value).__name__} cannot travel to the process that runs the model")

    def _encode_ndarray(self, value: Any) -> list[Any]:
        """Arrays of numpy and whatever converts itself to one; whoever holds such a value has imported numpy."""
        import numpy as np

        matrix = np.ascontiguousarray(value)
        if matrix.dtype.hasobject:
            raise TypeError("an array of Python objects cannot travel to the process that runs the model")
        block = self._block(memoryview(matrix.tobytes()))
        return ["ndarray", matrix.dtype.name, list(np.shape(value)), *block]

    def _block(self, view: memoryview) -> tuple[int, int]:
        place = (self.size, len(view))
        self.blocks.append(view)
        self.size += len(view)
        return place


def _key(key: object) -> str:
    if isinstance(key, str):
        return str(key)
    raise TypeError(f"a mapping with the key {key!r} cannot travel: keys must be strings")


class _Decoder:
    """The inverse of ``_Encoder``."""

    def __init__(self, body: memoryview) -> None:
        self.body = body

    def decode(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self.decode(item) for key, item in value.items()}
        if not isinstance(value, list):
            return value
        tag, *rest = value
        made = _CLASSES.get(tag)
        if made is not None:
            return made(*map(self.decode, rest))
        return _TAGS[tag](self, rest)

    def _items(self, rest: list[Any]) -> list[Any]:
        return [self.decode(item) for item in rest]

    def _array(self, rest: list[Any]) -> array[Any]:
        typecode, offset, length = rest
        made = array(typecode)
        made.frombytes(self._block(offset, length))
        return made

    def _ndarray(self, rest: list[Any]) -> Any:
        import numpy as np

        name, shape, offset, length = rest
        if name not in np.sctypeDict:
            import ml_dtypes

            dtype = np.dtype(getattr(ml_dtypes, name))
        else:
            dtype = np.dtype(name)
        return np.frombuffer(bytearray(self._block(offset, length)), dtype).reshape(shape)

    def _block(self, offset: int, length: int) -> memoryview:
        block = self.body[offset : offset + length]
        if len(block) != length:
            raise ValueError("a block lies outside the body")
        return block


_TAGS: dict[str, Callable[[_Decoder, list[Any]], Any]] = {
    "tuple": lambda decoder, rest: tuple(decoder._items(rest)),
    "list": lambda decoder, rest: decoder._items(rest),
    "frozenset": lambda decoder, rest: frozenset(decoder._items(rest)),
    "array": lambda decoder, rest: decoder._array(rest),
    "bytes": lambda decoder, rest: bytes(decoder._block(*rest)),
    "path": lambda decoder, rest: Path(rest[0]),
    "ndarray": lambda decoder, rest: decoder._ndarray(rest),
}
