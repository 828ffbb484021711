"""What is equal bit for bit, before the steps and after them: units and members of one tensor, and twin layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from ..kinds import Kind, Role
from ..model import Layer, Model, Tensor
from .limits import DRAWN, SAMPLE

TOLERANCE = 1e-5
"""Of the scale of the weight. A step moves a weight by 1e-2 of its scale; equal units drift apart by rounding, 1e-7."""
SHARE = 1e-2
"""Of how far a row has moved: a step is scaled by what moves most, beside which other rows may hardly get anywhere.
Rows that differ drift apart as far as they move, equal ones by rounding."""
SEEN = 8.0
"""Units in the last place that a row has to have moved by."""


@dataclass
class EqualRows:
    """One weight that has equal rows."""

    address: str
    parameter: torch.Tensor
    classes: torch.Tensor
    """By row: the number of its class of equal rows."""
    rows_in: Callable[[torch.Tensor], torch.Tensor]
    """The rows of the weight as it is by now, or of its gradient."""
    parts: Mapping[str, slice] = field(default_factory=dict)
    """By address of a packed part: its rows."""
    biases: Sequence[torch.Tensor] = ()
    """One value a row. A unit of zeros is its bias at first, as sampling offsets are: others are others. Of units that
    do something alike, the biases tell too little apart: such nets fail (trainability.md, constant in all)."""
    moved: torch.Tensor | None = None
    """Which rows ever had a gradient."""

    def __post_init__(self) -> None:
        _, self._class_of = torch.unique(self.classes, return_inverse=True)
        self._alike = self._class_of
        """By row: the number of its class of equal units."""
        empty = ~self.rows_in(self.parameter).any(1).to(self._alike.device)
        for bias in self.biases:
            _, values = torch.unique(bias.to(self._alike.device), return_inverse=True)
            values = torch.where(empty, values, 0)
            _, self._alike = torch.unique(torch.stack([self._alike, values]), dim=1, return_inverse=True)
        first = torch.full((int(self._class_of.max()) + 1,), len(self.classes), device=self._class_of.device)
        places = torch.arange(len(self.classes), device=self._class_of.device)
        first = first.scatter_reduce(0, self._class_of, places, "amin")
        self._start = self.rows_in(self.parameter)[first.to(self.parameter.device)].clone()
        """By class: its row before the steps."""

    def note_moves(self, gradient: torch.Tensor | None) -> None:
        if gradient is not None and not gradient.is_sparse:
            moves = self.rows_in(gradient).any(1)
            self.moved = moves if self.moved is None else self.moved | moves

    @property
    def equal(self) -> int:
        """How many rows equal another one at the start."""
        return len(self.classes) - len(set(self.classes.tolist()))

    def have_parted(self, scale: float) -> bool:
        """Whether all rows that were equal differ by more than rounding: no further step makes them equal again."""
        rows, classes = self.rows_in(self.parameter), self._class_of
        order = _sorted(_projected(rows), classes)
        same = classes[order[1:]] == classes[order[:-1]]
        pairs = torch.split(same.nonzero().flatten(), _rows_at_a_time(rows))
        distances = ((rows[order[pair + 1]].double() - rows[order[pair]].double()).abs().amax(1) for pair in pairs)
        return all(bool((distance > TOLERANCE * scale).all()) for distance in distances)

    def still_equal(self, scale: float, part: slice = slice(None)) -> int:
        """How many rows equal another unit's, up to rounding; those that never moved do not count."""
        if self.moved is None:
            return 0
        rows = self.rows_in(self.parameter)[part].double()[self.moved[part]]
        there = self.moved[part].to(self._class_of.device)
        classes, alike = self._class_of[part][there], self._alike[part][there]
        if rows.shape[0] < 2:
            return 0
        order = in_order(rows, alike)
        rows, classes, alike = rows[order], classes[order], alike[order]
        start = self._start[classes.to(self._start.device)].double()
        moved = (rows - start).abs().amax(1)
        seen = moved > SEEN * torch.finfo(self.parameter.dtype).eps * start.abs().amax(1)
        apart = (rows[1:] - rows[:-1]).abs().amax(1)
        equal = (apart <= TOLERANCE * scale) & (apart <= SHARE * moved[1:]) & seen[1:] & seen[:-1]
        return int((equal & (alike[1:] == alike[:-1]).to(equal.device)).sum())


def rows_of(parameter: torch.Tensor, layer: Layer, tensor: Tensor) -> torch.Tensor:
    """Canonical rows (groups * units, fan_in), as a view where the layout allows it."""
    data, view = parameter.detach(), tensor.view
    if layer.kind is Kind.CONV_TRANSPOSE and tensor.role is Role.WEIGHT:
        split = data.reshape(view.groups, data.shape[0] // view.groups, *data.shape[1:])
        data = split.transpose(1, 2)
    elif is_turned(data, tensor):
        data = data.t()
    return data.reshape(view.groups * view.units, view.fan_in)


def is_turned(parameter: torch.Tensor, tensor: Tensor) -> bool:
    """Held as the (in, out) of a product."""
    shape = tuple(parameter.shape)
    return len(shape) == 2 and shape != tensor.shape and shape[::-1] == tensor.shape


def equal_units(model: Model, parameters: Mapping[str, torch.Tensor]) -> Iterator[EqualRows]:
    """Every trainable weight with units that start equal, within one group and one packed part."""
    for layer in model.layers:
        for tensor in (layer.weight, layer.recurrent):
            if tensor is None or tensor.role not in (Role.WEIGHT, Role.RECURRENT_WEIGHT) or layer.shuffles_units:
                continue
            parameter = parameters.get(tensor.address)
            if parameter is None or parameter.numel() != tensor.view.size:
                continue
            if tuple(parameter.shape) != tensor.shape and not is_turned(parameter, tensor):
                continue
            if parameter.is_complex() or tensor.view.units // max(1, len(tensor.parts)) < 2:
                continue
            rows_in, height = (
                partial(rows_of, layer=layer, tensor=tensor),
                tensor.view.units // max(1, len(tensor.parts)),
            )
            classes = equal_classes(rows_in(parameter), height)
            if classes is not None:
                blocks = {f"{tensor.address}[{part}]": i * height for i, part in enumerate(tensor.parts)}
                parts = {at: slice(start, start + height) for at, start in blocks.items()}
                parts = {at: rows for at, rows in parts.items() if len(set(classes[rows].tolist())) < height}
                biases = _biases(layer, parameters, len(classes))
                yield EqualRows(tensor.address, parameter, classes, rows_in, parts, biases)


def _biases(layer: Layer, parameters: Mapping[str, torch.Tensor], rows: int) -> tuple[torch.Tensor, ...]:
    """What is added to the units, as it is before the steps."""
    held = (parameters.get(each.address) for each in (layer.bias, layer.recurrent_bias) if each is not None)
    return tuple(each.detach().reshape(-1).clone() for each in held if each is not None and each.numel() == rows)


def equal_members(model: Model, parameters: Mapping[str, torch.Tensor]) -> Iterator[EqualRows]:
    """Every drawn weight that stacks copies: of critics, experts or heads, along its first axis."""
    stacks = {name: parameter for name, parameter in parameters.items() if parameter.ndim > 2}
    owners: dict[str, list[Layer]] = {}
    for layer in model.layers if stacks else ():
        for tensor in layer.tensors:
            owners.setdefault(tensor.address, []).append(layer)
    for name, parameter in stacks.items():
        members = _members(parameter, owners.get(name, ()))
        if members < 2 or parameter.is_complex():
            continue
        rows_in = partial(_stacked, members=members)
        first = _firsts(rows_in(parameter))
        if len(set(first)) < members:
            yield EqualRows(name, parameter, torch.tensor(first, device=parameter.device), rows_in)


def _members(parameter: torch.Tensor, owners: Sequence[Layer]) -> int:
    """How many maps of their own it stacks: groups, or matrices; filters of a convolution are units of one map."""
    if all(layer.kind is Kind.LINEAR for layer in owners):
        return parameter.shape[0]
    groups = max(layer.weight.view.groups for layer in owners)
    return groups if parameter.shape[0] % groups == 0 else 0


def _firsts(rows: torch.Tensor) -> list[int]:
    """By member: the number of the first one that equals it, its own where none does or it does not look drawn."""
    first = list(range(len(rows)))
    seen: dict[tuple[float, ...], list[int]] = {}
    samples = rows[:, :: max(1, rows.shape[1] // SAMPLE)][:, :SAMPLE].tolist()
    for number, sample in enumerate(samples):
        if len(sample) < 2 or len(set(sample)) < DRAWN * len(sample):
            continue
        alike = seen.setdefault(tuple(sample), [])
        first[number] = next((other for other in alike if torch.equal(rows[other], rows[number])), number)
        if first[number] == number:
            alike.append(number)
    return first


def _stacked(data: torch.Tensor, members: int) -> torch.Tensor:
    return data.detach().reshape(members, -1)


def equal_classes(rows: torch.Tensor, block: int) -> torch.Tensor | None:
    """Numbers of classes of rows that are equal within ``block`` rows; None where all rows differ."""
    if _differ_at_once(rows):
        return None
    group = torch.arange(rows.shape[0], device=rows.device) // block
    projected = _projected(rows)
    order = _sorted(projected, group)
    projected, group = projected[order], group[order]
    near = (projected[1:] - projected[:-1]).abs() <= _ROUNDING * projected.abs().amax()
    differs = ~near | (group[1:] != group[:-1])
    for pair in torch.split((~differs).nonzero().flatten(), _rows_at_a_time(rows)):
        differs[pair] = (rows[order[pair]] != rows[order[pair + 1]]).any(1)
    if bool(differs.all()):
        return None
    numbers = torch.cat([differs.new_zeros(1), differs]).long().cumsum(0)
    return torch.empty_like(numbers).scatter_(0, order, numbers)


def _differ_at_once(rows: torch.Tensor) -> bool:
    """Whether no two rows begin alike, as those of most draws do not: their first values tell them apart."""
    first = rows[:, 0].tolist()
    return len(set(first)) == len(first)


_BLOCK = 1 << 20
"""Values that are copied at a time: a weight may fill half of the memory."""
_ROUNDING = 1e-12
"""Of the largest projection: more than equal rows can differ by when they are summed in different orders."""


def _projected(rows: torch.Tensor) -> torch.Tensor:
    """Each row times a fixed random direction; the products are summed row by row, so that equal rows agree."""
    generator = torch.Generator().manual_seed(0x1217)
    direction = torch.randn(rows.shape[1], generator=generator, dtype=torch.float64).to(rows.device)
    blocks = torch.split(rows, _rows_at_a_time(rows))
    return torch.cat([(block.double() * direction).sum(1) for block in blocks])


def in_order(rows: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """An order in which equal rows of a group are neighbours, also where they are equal up to rounding only."""
    return _sorted(_projected(rows), group)


def _rows_at_a_time(rows: torch.Tensor) -> int:
    return max(1, _BLOCK // max(1, rows.shape[1]))


def _sorted(projected: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """An order in which equal rows of a group are neighbours."""
    order = projected.argsort(stable=True)
    return order[group[order].argsort(stable=True)]


def twins(parameters: Mapping[str, torch.Tensor]) -> list[tuple[str, str]]:
    """(address, address of an earlier equal one): drawn weights of at least two dimensions that are copies.

    Tables of few values, identities and other made-to-measure weights are equal on purpose.
    """
    seen: dict[tuple[object, ...], list[str]] = {}
    found = []
    for name, parameter in parameters.items():
        if parameter.ndim < 2 or parameter.numel() < 2:
            continue
        flat = parameter.detach().reshape(-1)
        pace = max(1, flat.numel() // SAMPLE)
        probe = flat[: pace * SAMPLE : pace].tolist()
        if parameter.is_complex() or len(set(probe)) < DRAWN * len(probe):
            continue
        alike = seen.setdefault((parameter.shape, parameter.dtype, *probe), [])
        first = next((other for other in alike if torch.equal(parameters[other], parameter)), "")
        if first:
            found.append((name, first))
        else:
            alike.append(name)
    return found
