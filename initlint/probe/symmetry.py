"""Units of one weight, and weights of twin layers, that are equal bit for bit: before the steps and after them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from ..model import Kind, Layer, Model, Role, Tensor

TOLERANCE = 1e-5
"""Of the scale of the weight. A step moves a weight by 1e-2 of its scale; equal units drift apart by rounding, 1e-7."""

DRAWN = 0.75
"""Share of a sample of 64 values that are different: all, of a draw in float32; 60 in bfloat16; few of an identity."""


@dataclass
class EqualUnits:
    """One weight that has equal units; ``rows`` gives its canonical rows, whatever it holds by now."""

    address: str
    parameter: torch.Tensor
    layer: Layer
    tensor: Tensor
    classes: torch.Tensor
    """By row: the number of its class of equal rows."""

    def rows(self) -> torch.Tensor:
        return rows_of(self.parameter, self.layer, self.tensor)

    def still_equal(self, moved: torch.Tensor, scale: float) -> int:
        """How many units equal another one of their class, up to rounding; those that never ``moved`` do not count."""
        rows = self.rows().double()[moved]
        classes = self.classes[moved]
        if rows.shape[0] < 2:
            return 0
        order = _sorted(_projected(rows), classes)
        rows, classes = rows[order], classes[order]
        alike = (rows[1:] - rows[:-1]).abs().amax(1) <= TOLERANCE * scale
        return int((alike & (classes[1:] == classes[:-1])).sum())


def rows_of(parameter: torch.Tensor, layer: Layer, tensor: Tensor) -> torch.Tensor:
    """Canonical rows (groups * units, fan_in), as a view where the layout allows it."""
    data, view = parameter.detach(), tensor.view
    if layer.kind is Kind.CONV_TRANSPOSE and tensor.role is Role.WEIGHT:
        split = data.reshape(view.groups, data.shape[0] // view.groups, *data.shape[1:])
        data = split.transpose(1, 2)
    return data.reshape(view.groups * view.units, view.fan_in)


def equal_units(model: Model, parameters: Mapping[str, torch.Tensor]) -> Iterator[EqualUnits]:
    """Every trainable weight with units that start equal, within one group and one packed part."""
    for layer in model.layers:
        for tensor in (layer.weight, layer.recurrent):
            if tensor is None or tensor.role not in (Role.WEIGHT, Role.RECURRENT_WEIGHT) or layer.shuffles_units:
                continue
            parameter = parameters.get(tensor.address)
            if parameter is None or tuple(parameter.shape) != tensor.shape or parameter.numel() != tensor.view.size:
                continue
            if parameter.is_complex() or tensor.view.units // max(1, len(tensor.parts)) < 2:
                continue
            classes = _classes(rows_of(parameter, layer, tensor), tensor)
            if classes is not None:
                yield EqualUnits(tensor.address, parameter, layer, tensor, classes)


def _classes(rows: torch.Tensor, tensor: Tensor) -> torch.Tensor | None:
    """Numbers of classes of equal rows; None where all rows differ."""
    block = tensor.view.units // max(1, len(tensor.parts))
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
        probe = flat[:: max(1, flat.numel() // 64)][:64]
        if probe.is_complex() or len(set(probe.tolist())) < DRAWN * probe.numel():
            continue
        alike = seen.setdefault((parameter.shape, parameter.dtype, *probe.tolist()), [])
        first = next((other for other in alike if torch.equal(parameters[other], parameter)), "")
        if first:
            found.append((name, first))
        else:
            alike.append(name)
    return found
