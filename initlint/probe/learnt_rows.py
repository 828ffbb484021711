"""Rows outside of maps that start equal: tokens, prompts, latents, queries, slots, looked-up ones too.

Attention treats its entries alike. Rows that start equal, with nothing that tells their places apart, then get equal
gradients at every step: n of them are worth one. What the data tell apart, as a table of positions of zeros, gets other
gradients at the first step already; so that costs a look at gradients that are there anyway. What stays equal over the
steps is asked once more: of every output with coefficients of its own, on data that vary, and with training's noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch

from ..kinds import Role
from ..maker import plain
from ..model import Model
from .backward import Gradients, tensor_inputs
from .batches import varied
from .liveness import REFUSALS, Walk
from .objective import Counted
from .signals import Alike
from .symmetry import EqualRows, equal_classes, in_order

SHARE = 0.05
"""Of the rows that move: fewer are worth no step (``duplicate-units`` wastes no thought on a twentieth either)."""
MOST = 0.5
"""Of rows that all start equal: where most part it is the data that part them, and happen not to with some."""
ROUNDING = 1e-4
"""Of a row's largest gradient: equal ones are summed in one order, or differ by 1e-7 per term; of unequal ones the part
that the data bring is larger, unless they are lost in what is common to all."""
ULPS = 2.0
"""The same in units in the last place, where the parameters have 8 or 11 bits."""
PLACES = 4
"""Values of each row that are looked at before all are compared: four of 8 bits each tell most drawn rows apart."""
_OUTSIDE = (Role.OTHER, Role.TABLE)


@dataclass
class LearntRows:
    """Slices of one parameter along one axis, some of which start equal."""

    rows: EqualRows
    axis: int
    felt: bool
    """They have a gradient at the start, which does not tell them apart."""

    @property
    def address(self) -> str:
        return self.rows.address


def learnt_rows(model: Model, parameters: Mapping[str, torch.Tensor], gradients: Gradients) -> list[LearntRows]:
    """Those that the first ``gradients`` do not tell apart; of what has none yet nothing is known."""
    return [each for name in _outside(model, parameters) for each in _watched(model, name, parameters, gradients)]


def _outside(model: Model, parameters: Mapping[str, torch.Tensor]) -> Iterator[str]:
    """Names of the parameters that are no weight, bias or gain of a layer, nor are cut into such, nor make them up."""
    cut = {address.partition("[")[0] for address in model.pieces}
    cut |= {plain(maker.address) for makers in model.makers.values() for maker in makers}
    for name, parameter in parameters.items():
        if sum(size > 1 for size in parameter.shape) < 2 or parameter.is_complex() or parameter.is_sparse:
            continue
        tensor = model.tensor(name)
        if name not in cut and (tensor is None or tensor.role in _OUTSIDE):
            yield name


def _watched(
    model: Model, name: str, parameters: Mapping[str, torch.Tensor], gradients: Gradients
) -> Iterator[LearntRows]:
    parameter, gradient = parameters[name].detach(), gradients.get(name)
    tensor = model.tensor(name)
    is_table = tensor is not None and tensor.role is Role.TABLE
    if gradient is not None and gradient.is_sparse:
        return  # rows that the batch does not name are not in it
    for axis in (0,) if is_table else range(parameter.ndim):
        if parameter.shape[axis] < 2 or parameter.shape[axis] == parameter.numel() or _differ(parameter, axis):
            continue
        rows_in = partial(_slices, axis=axis)
        classes = equal_classes(rows_in(parameter), parameter.shape[axis])
        if classes is None:
            continue
        rows = EqualRows(name, parameters[name], classes, rows_in)
        felt = gradient is not None and bool(gradient.any())
        if gradient is None or not felt or alike(rows, gradient) >= _least(rows, int(rows_in(gradient).any(1).sum())):
            yield LearntRows(rows, axis, felt)


def _slices(data: torch.Tensor, axis: int) -> torch.Tensor:
    """(n, values) along ``axis``."""
    return data.detach().movedim(axis, 0).flatten(1)


def _differ(parameter: torch.Tensor, axis: int) -> bool:
    """Whether a few values of each slice tell that no two are equal, as of all that is drawn."""
    rows = parameter.movedim(axis, 0)
    values: list[tuple[float, ...]] = []
    for number in range(PLACES):  # spread over the slice; one after the other, for the first mostly is enough
        place = [(size - 1) * number // (PLACES - 1) for size in rows.shape[1:]]
        index: tuple[slice | int, ...] = (slice(None), *place)
        here = rows[index].tolist()
        values = (
            [(*before, each) for before, each in zip(values, here, strict=True)] if values else [(x,) for x in here]
        )
        if len(set(values)) == len(values):
            return True
    return False


def alike(watched: EqualRows, gradient: torch.Tensor | None) -> int:
    """How many rows that started equal to another one get the same gradient as one, up to rounding; zeros tell none."""
    if gradient is None or gradient.is_sparse:
        return 0
    moves = watched.rows_in(gradient).double()
    there = moves.any(1)
    classes, moves = watched.classes.to(moves.device)[there], moves[there]
    if len(moves) < 2:
        return 0
    order = in_order(moves, classes)
    classes, moves = classes[order], moves[order]
    rounding = max(ROUNDING, ULPS * torch.finfo(gradient.dtype).eps)
    near = (moves[1:] - moves[:-1]).abs().amax(1) <= rounding * moves[1:].abs().amax(1)
    return int((near & (classes[1:] == classes[:-1])).sum())


def _least(watched: EqualRows, moved: int) -> float:
    """How many rows that stay equal are worth a word, of those that had a gradient."""
    return max(1.0, (MOST if watched.equal == len(watched.classes) - 1 else SHARE) * moved)


def still_alike(walk: Walk, found: Sequence[LearntRows], seed: int) -> tuple[Alike, ...]:
    """What the steps have left equal and nothing else tells apart; to be asked before the parameters are restored."""
    together = [walk.still_equal(each.rows)[each.address] for each in found]
    left = {each.address: (each, count) for each, count in reversed(list(zip(found, together, strict=True))) if count}
    if not left:
        return ()
    before = walk.differentiator.objective
    walk.differentiator.objective = replace(before, alike=False, apart=True)
    try:
        others = list(_gradients(walk, set(left), seed))
        noisy = _noisy(walk, set(left), seed)
    finally:
        walk.differentiator.objective = before
    told = (_judged(each, count, [made[at] for made in others], noisy) for at, (each, count) in left.items())
    return tuple(each for each in told if each is not None)


def _judged(
    found: LearntRows, count: int, others: Sequence[torch.Tensor | None], noisy: Gradients | None
) -> Alike | None:
    """None where too few are left; ``count`` are those that the steps have left equal."""
    rows, moved = found.rows, found.rows.moved
    together = min(count, *(alike(rows, gradient) for gradient in others))
    reached = len(rows.classes) if moved is None else int(moved.sum())
    if together < _least(rows, reached):
        return None
    by_noise = noisy is None or alike(rows, noisy[found.address]) < together
    return Alike(found.address, found.axis, reached, together, by_noise)


def _gradients(walk: Walk, names: set[str], seed: int) -> Iterator[Gradients]:
    """Of all outputs, on every batch and on one whose places differ, should the given data not tell them apart."""
    for number, call in enumerate(walk.calls):
        yield walk.differentiator.gradients(call, number, counted=Counted.ALL, of=names)
    args, kwargs = walk.calls[0]
    other = varied(args, seed), varied(kwargs, seed)
    pairs = zip(tensor_inputs(walk.calls[0]), tensor_inputs(other), strict=True)
    if any(one is not two for one, two in pairs):
        try:
            yield walk.differentiator.gradients(other, 0, counted=Counted.ALL, of=names)
        except REFUSALS:
            return  # it does not take these values: what the others have shown stands


def _noisy(walk: Walk, names: set[str], seed: int) -> Gradients | None:
    """With dropout and all else that training draws; None where the forward of that mode raises."""
    try:
        return walk.differentiator.in_training(walk.calls[0], names, seed, nullcontext())
    except REFUSALS:
        return None
