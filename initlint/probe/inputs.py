"""What to feed a graph that nobody has given inputs for: sizes by name, use and position, values by meaning."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto

import numpy as np
from onnx import TensorProto

from ..settings import ProbeSettings
from . import shapes
from .blank_inputs import MASK_NAME, blank
from .dataflow import Dataflow
from .graph_rewrite import ProbeGraph
from .input_use import InputUse, uses
from .payload import Array
from .signature import Slot, given_arrays, given_shapes, slot_of, usage
from .single_sample import drawn_like, tells_others

DEFAULT_BATCH = 8
"""Samples of a probe: enough to tell a unit that is off for one input from one that is off for all."""

SEQUENCE = 8
"""Inferred sequences have at least so many positions."""

IMAGE = 64
"""Height and width of an image of unstated size; 224 where a network strides too often for that."""

_MOST_VALUES = 2**60
"""What numpy can address at 8 bytes each."""

_CHANNELS = 3
_DIFFUSION_STEPS = 1000
"""Time steps of a diffusion model are drawn below this (Ho et al. 2020)."""

_BATCH_NAME = re.compile(r"^(n|b|bs|bsz|batch.*|.*batch(_?size)?|.*batch.*|num_samples)$", re.IGNORECASE)
_PAST_NAME = re.compile(r"past|cache|history", re.IGNORECASE)
_TOTAL_NAME = re.compile(r"total|\bkv_len|past.*\+", re.IGNORECASE)
_SEQUENCE_NAME = re.compile(r"seq|len|time|token|frame|step|^[stlk]$", re.IGNORECASE)
_IMAGE_NAME = re.compile(r"height|width|^[hwd]$|^h_|^w_|size", re.IGNORECASE)
_CHANNEL_NAME = re.compile(r"channel|^c$", re.IGNORECASE)
_CACHE_INPUT = re.compile(r"past|cache(?!_branch)|(^|[._])(present|mems?)([._]|$)", re.IGNORECASE)


class Meaning(Enum):
    """What the values of an input stand for."""

    NUMBERS = auto()
    TABLE = auto()
    ONES = auto()
    ZEROS = auto()
    POSITIONS = auto()
    LENGTHS = auto()
    BYTES = auto()
    STEPS = auto()


@dataclass(frozen=True)
class Sizes:
    """One guess at everything that the file leaves open."""

    batch: int = DEFAULT_BATCH
    sequence: int = SEQUENCE
    image: int = IMAGE


@dataclass(frozen=True)
class Attempt:
    """Shapes for every input, and how to fill them."""

    shapes: Mapping[str, tuple[int, ...]]
    batch: int
    runs: int
    sizes: Sizes
    free_batch: bool
    """A larger batch would be fed as one."""


@dataclass
class Feeder:
    """Draws inputs for one graph under one set of settings; raises TargetError(USAGE) when built with bad ones."""

    slots: Mapping[str, Slot]
    uses: Mapping[str, InputUse]
    settings: ProbeSettings
    given: dict[str, Array] = field(init=False)
    drawn: list[str] = field(init=False)
    """Given inputs that held nothing but zeros, for which values are drawn."""
    _fixed: dict[str, tuple[int, ...]] = field(init=False)
    _bound: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.given = given_arrays(self.slots, self.settings)
        self._fixed = given_shapes(self.slots, self.settings) | {n: a.shape for n, a in self.given.items()}
        self._bound = dict(self.settings.dims)
        for name, shape in self._fixed.items():
            for dim, size in zip(self.slots[name].dims or (), shape, strict=False):
                if isinstance(dim, str) and dim:
                    self._bound.setdefault(dim, size)
        self._refuse_empty()
        self.drawn = self._blank()
        for name in self.drawn:
            del self.given[name]

    def _blank(self) -> list[str]:
        zero = {name: not array.any() for name, array in self.given.items() if array.size}
        meant = {name: self._meaning(self.slots[name]) for name in zero if not MASK_NAME.search(name)}
        numbers = {name: zero[name] for name, meaning in meant.items() if meaning is Meaning.NUMBERS}
        return blank(numbers, {name: zero[name] for name, meaning in meant.items() if meaning is Meaning.TABLE})

    def _refuse_empty(self) -> None:
        """Raises TargetError(USAGE) where the user's sizes leave no sample, or no signal; a cache may be empty."""
        shapes = self.attempt(Sizes()).shapes
        main = dict(self._main(shapes))
        whole = [name for name in main if 0 not in shapes[name]]
        for name, slot in main.items():
            axis = self._batch_axis(slot)
            said = name in self._fixed or any(self.settings.dims.get(str(dim)) == 0 for dim in slot.dims or ())
            if said and 0 in shapes[name] and (not whole or shapes[name][axis] == 0):
                text = "x".join(map(str, shapes[name]))
                raise usage(f"the inputs do not fit: {name} is empty ({text}); give it at least one value", self.slots)

    def attempts(self) -> Iterator[Attempt]:
        """Guesses to try in turn, each different from those before."""
        batch = self.settings.batch or DEFAULT_BATCH
        guesses = [
            Sizes(batch),
            Sizes(batch, image=224),
            Sizes(1),
            Sizes(1, image=224),
            Sizes(batch, sequence=64, image=128),
            Sizes(1, sequence=128, image=256),
            Sizes(batch, sequence=512, image=299),
            Sizes(batch, sequence=1),
        ]
        tried = []
        for guess in guesses:
            attempt = self.attempt(guess)
            if attempt.shapes not in tried:
                tried.append(attempt.shapes)
                yield attempt

    def attempt(self, sizes: Sizes) -> Attempt:
        shapes = {name: self._shape(slot, sizes) for name, slot in self.slots.items()}
        leading = {shapes[name][self._batch_axis(slot)] for name, slot in self._main(shapes)}
        batch = max(leading, default=1)
        free = any(self._batch_is_open(slot) for slot in self.slots.values())
        wanted = self.settings.batch or DEFAULT_BATCH
        runs = 1 if not self.slots else max(1, -(-wanted // max(batch, 1)))
        if self.given and not self._is_single(batch):
            runs = 1
        return Attempt(shapes, batch, runs, sizes, free and not self.given)

    def larger(self, attempt: Attempt, batch: int) -> Attempt:
        """The same guess with a larger batch."""
        return self.attempt(replace(attempt.sizes, batch=batch))

    def arrays(self, attempt: Attempt, run: int) -> dict[str, Array]:
        """Values for one run; the same settings give the same values. Raises MemoryError."""
        generator = np.random.Generator(np.random.PCG64([self.settings.seed, run]))
        arrays = {name: self._draw(slot, attempt, generator) for name, slot in self.slots.items()}
        if run == 0 or attempt.runs == 1:
            return arrays | self.given
        return arrays | {name: self._another(name, array, generator) for name, array in self.given.items()}

    def _is_single(self, batch: int) -> bool:
        """Whether one sample was given, and its values show what others would be."""
        data = [self.given[name] for name in self._data()]
        return batch == 1 and not self.settings.batch and bool(data) and all(map(tells_others, data))

    def _data(self) -> list[str]:
        """Given inputs that are not the same for every sample, as masks and positions are."""
        kinds = (Meaning.NUMBERS, Meaning.TABLE, Meaning.BYTES, Meaning.STEPS)
        named = (name for name, array in self.given.items() if array.size and not MASK_NAME.search(name))
        return [name for name in named if self._meaning(self.slots[name]) in kinds]

    def _another(self, name: str, array: Array, generator: np.random.Generator) -> Array:
        return drawn_like(array, array.shape, generator) if name in self._data() else array

    def input_rms(self, arrays: Mapping[str, Array]) -> tuple[float, int]:
        """(sum of squares, count) over the floating-point inputs that carry a signal."""
        total, count = 0.0, 0
        for name in self.numbers:
            values = arrays[name].astype(np.float64)
            total, count = total + float((values**2).sum()), count + values.size
        return total, count

    @property
    def numbers(self) -> list[str]:
        """Inputs of floating-point numbers that carry a signal."""
        slots = self.slots.items()
        return [n for n, slot in slots if slot.is_float and (n in self.given or self._meaning(slot) is Meaning.NUMBERS)]

    def _main(self, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, Slot]]:
        """Inputs that carry samples along a batch axis."""
        for name, slot in self.slots.items():
            if len(shapes[name]) > (1 if slot.is_float else 0) and self._meaning(slot) is not Meaning.ZEROS:
                yield name, slot

    def _batch_axis(self, slot: Slot) -> int:
        return self.uses[slot.name].batch_axis or 0

    def _batch_is_open(self, slot: Slot) -> bool:
        if slot.name in self._fixed:
            return False
        axis = self._batch_axis(slot)
        if slot.dims is None:
            return True
        if axis >= len(slot.dims):
            return False
        dim = slot.dims[axis]
        return isinstance(dim, str) and dim not in self._bound

    def _shape(self, slot: Slot, sizes: Sizes) -> tuple[int, ...]:
        if slot.name in self._fixed:
            return self._fixed[slot.name]
        use = self.uses[slot.name]
        dims = slot.dims
        if dims is None:
            rank = use.rank or (2 if use.rows is not None or not slot.is_float else 4)
            dims = ("",) * rank
        return tuple(
            dim if isinstance(dim, int) else self._size(slot, use, dims, axis, dim, sizes)
            for axis, dim in enumerate(dims)
        )

    def _size(self, slot: Slot, use: InputUse, dims: tuple[int | str, ...], axis: int, dim: str, sizes: Sizes) -> int:
        if dim in self._bound:
            return self._bound[dim]
        if axis in use.sizes:
            return use.sizes[axis]
        by_name = self._size_by_name(dim, sizes) if dim else None
        if by_name is not None:
            return by_name
        if use.batch_axis is not None or use.sequence_axis is not None:
            return sizes.sequence if axis == use.sequence_axis else sizes.batch
        if axis == 0:
            return sizes.batch if len(dims) > 1 or not slot.is_float else sizes.sequence
        if _CACHE_INPUT.search(slot.name):
            return 0
        if axis in use.image_axes:
            return sizes.image
        if slot.is_float and len(dims) >= 4:
            return _CHANNELS if axis == 1 else sizes.image
        return sizes.sequence

    def _size_by_name(self, dim: str, sizes: Sizes) -> int | None:
        """The size of a named dimension, also of a sum of names as exporters write it; None where the name is mute."""
        if not dim.isidentifier():
            evaluated = _evaluate(
                dim, lambda name: self._bound[name] if name in self._bound else self._size_by_name(name, sizes)
            )
            if evaluated is not None:
                return evaluated
        if _BATCH_NAME.match(dim):
            return sizes.batch
        if _TOTAL_NAME.search(dim):
            return sizes.sequence
        if _PAST_NAME.search(dim):
            return 0
        if _CHANNEL_NAME.search(dim):
            return _CHANNELS
        if _IMAGE_NAME.search(dim):
            return sizes.image
        return sizes.sequence if _SEQUENCE_NAME.search(dim) else None

    def _meaning(self, slot: Slot) -> Meaning:
        name, use = slot.name.lower(), self.uses[slot.name]
        if slot.is_float:
            if use.state or _CACHE_INPUT.search(name):
                return Meaning.ZEROS
            return Meaning.ONES if "mask" in name or slot.dims == () else Meaning.NUMBERS
        if "use_cache" in name:
            return Meaning.ZEROS
        if use.lengths or ("length" in name and use.rows is None):
            return Meaning.LENGTHS
        if "mask" in name or slot.elem_type == TensorProto.BOOL:
            return Meaning.ONES
        if "position" in name or name.endswith("pos"):
            return Meaning.POSITIONS
        if use.rows is not None:
            return Meaning.TABLE
        if "token_type" in name or "segment" in name or use.indexes_live:
            return Meaning.ZEROS
        if "timestep" in name:
            return Meaning.STEPS
        return Meaning.BYTES if slot.elem_type in (TensorProto.UINT8, TensorProto.INT8) else Meaning.ONES

    def _draw(self, slot: Slot, attempt: Attempt, generator: np.random.Generator) -> Array:
        shape, dtype, meaning = attempt.shapes[slot.name], slot.dtype, self._meaning(slot)
        rows = self.uses[slot.name].rows
        if math.prod(shape) > _MOST_VALUES:  # numpy would call it a wrong value
            raise MemoryError
        if slot.is_float:
            dtype = np.dtype(np.float32)
        if meaning is Meaning.NUMBERS:
            return generator.standard_normal(shape, np.float32)
        if meaning is Meaning.TABLE:
            return generator.integers(0, rows or 1, shape).astype(dtype)
        if meaning is Meaning.POSITIONS:
            positions = np.arange(shape[-1] if shape else 1) % (rows or np.iinfo(np.int32).max)
            return np.broadcast_to(positions if shape else positions[0], shape).astype(dtype)
        if meaning is Meaning.LENGTHS:
            return np.full(shape, self._sequence(attempt) - self.uses[slot.name].last, dtype)
        if meaning is Meaning.BYTES:
            return generator.integers(0, 128, shape).astype(dtype)
        if meaning is Meaning.STEPS:
            return generator.integers(0, _DIFFUSION_STEPS, shape).astype(dtype)
        return np.full(shape, 1 if meaning is Meaning.ONES else 0, dtype)

    def _sequence(self, attempt: Attempt) -> int:
        """Length of the sequences that are fed."""
        for name, use in self.uses.items():
            if use.sequence_axis is not None and use.sequence_axis < len(attempt.shapes.get(name, ())):
                return attempt.shapes[name][use.sequence_axis]
        for name, slot in self._main(attempt.shapes):
            if len(attempt.shapes[name]) > 1 and self._meaning(slot) in (Meaning.TABLE, Meaning.NUMBERS):
                return attempt.shapes[name][1]
        return attempt.sizes.sequence


def feeder_of(graph: ProbeGraph, settings: ProbeSettings) -> Feeder:
    """The feeder of a graph's inputs, those that nothing reads left out.

    Raises Unfeedable where an input is no tensor of numbers, and TargetError(USAGE) for settings that do not fit.
    """
    read = {name for names in Dataflow(graph.nodes).reads for name in names} | set(graph.outputs)
    slots = {name: slot_of(value) for name, value in graph.inputs.items() if name in read}
    known = shapes.infer(graph, {}, {})
    ranks = {name: None if each.dims is None else len(each.dims) for name, each in slots.items()}
    return Feeder(slots, uses(graph, shapes.constants(graph, known), ranks), settings)


_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.floordiv,
}


def _evaluate(expression: str, lookup: Callable[[str], int | None]) -> int | None:
    """The value of a sum or product of names ("past_sequence + sequence"); None where a name is unknown."""

    def value(node: ast.expr) -> int | None:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.Name):
            return lookup(node.id)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            left, right = value(node.left), value(node.right)
            if left is None or right is None or (right == 0 and isinstance(node.op, ast.Div | ast.FloorDiv)):
                return None
            return int(_OPERATORS[type(node.op)](left, right))
        return None

    try:
        found = value(ast.parse(expression, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return found if found is not None and found >= 0 else None
