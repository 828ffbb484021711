"""What may hold tensors that stand still side by side: thresholds, scales, centres that no map owns."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import TYPE_CHECKING

from .causes import place
from .examined import Examined
from .fixes import Edit, Fill, Reinit
from .kinds import Role
from .model import Model, Tensor
from .plugin import Finding, Liveness
from .redraw import TABLE_STD
from .stats import WeightStats

if TYPE_CHECKING:
    from .trial import Trial

FAINT = 1e-3
"""Of the gradient that a fix brings about: it has not done the work of another one that brings about this much more."""

LAST = 2
"""Probes that are kept for symptoms, and for telling causes apart."""


def free_the_stuck(trial: Trial) -> None:
    """All that may hold the others at once; then the likeliest by themselves."""
    held = [each for each in trial.left_over() if _is_held(trial, each)]
    by_address = {each.address: each for each in held}
    for edits in loosenings(trial.model, trial.start.context.stats, by_address):
        if not edits or trial.left <= LAST:
            return
        after = trial.attempt(trial.causes, edits)
        moved = {each.address for each in held if trial.is_cured(each, after)}
        loose = tuple(edit for edit in edits if edit.tensor in moved)
        if loose:
            break
    else:
        return
    for edit in loose if len(edits) > 1 else ():
        if trial.left <= LAST:
            break
        alone = trial.attempt(trial.causes, (edit,))
        if all(_is_as_free(trial, by_address[address], alone, after) for address in moved):
            edits, loose, after = (edit,), (edit,), alone
            break
    head = by_address[loose[0].tensor]
    trial.found(head, edits)
    trial.note_cured(after, [head])
    trial.cause_of |= {place(each): head for each in held if each.address in moved and each is not head}


def _is_as_free(trial: Trial, finding: Finding, alone: Examined, after: Examined) -> bool:
    """Whether it moves about as much as ``after`` all."""
    one, every = (each.context.signals.gradients.get(finding.address) for each in (alone, after))
    faint = one is not None and every is not None and 0.0 < one.rms < FAINT * every.rms
    return trial.is_cured(finding, alone) and not faint


def _is_held(trial: Trial, finding: Finding) -> bool:
    stuck = trial.start.context.signals.liveness.get(finding.address) is Liveness.STUCK
    return stuck and finding.proven and finding.category == "gradient" and not trial.edits(finding)


def loosenings(model: Model, stats: Mapping[str, WeightStats], stuck: Container[str]) -> Iterator[tuple[Edit, ...]]:
    """What to try of the tensors that are ``stuck``, the likeliest first: all of order one, then constants at zero.

    In each what is zero leads, then what has the fewest values.
    """
    free = [
        each
        for each in model.tensors
        if each.address in stuck
        and each.address in stats
        and each.trainable
        and each.role in (Role.OTHER, Role.SLOPE)
        and each.address not in model.uneditable
    ]
    free.sort(key=lambda each: (not stats[each.address].all_zero, each.size))
    yield tuple(_of_order_one(each, stats[each.address]) for each in free if not _is(stats[each.address], 1.0))
    yield tuple(
        Fill(each.address, 0.0) for each in free if _is(stats[each.address]) and not stats[each.address].all_zero
    )


def _is(found: WeightStats, value: float | None = None) -> bool:
    """Whether all values are one and the same, ``value`` if it is given."""
    return found.constant and value in (None, found.max)


def _of_order_one(tensor: Tensor, found: WeightStats) -> Edit:
    """A scale becomes one, and so does every constant; a table of zeros is drawn small, as tables are."""
    if not _is(found):
        return Reinit(tensor.address, "normal", 1.0)
    table = found.all_zero and sum(size > 1 for size in tensor.shape) > 1
    return Reinit(tensor.address, "normal", TABLE_STD) if table else Fill(tensor.address, 1.0)
