"""What a trial has found out, told: severities, causes, and fixes with the numbers before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .causes import Place, place, raised, rooted
from .examined import numbers
from .fixes import Reinit
from .holding import placed
from .made import settable
from .plugin import Cause, Finding, Liveness, Severity

if TYPE_CHECKING:
    from .trial import Trial

OWN = "redrawing the weights does not change this, so it comes with the architecture or the inputs"

UNTRIED = "whether other weights would change this was not tried: they are computed of other parameters"


def settled(trial: Trial, folded: Sequence[Finding]) -> tuple[Finding, ...]:
    """``folded`` with the verdicts; a cause takes over the severity that its consequences prove."""
    found = [*(each for each in folded if place(each) not in trial.revealed), *trial.revealed.values()]
    told = rooted([_told(trial, finding) for finding in found])
    return tuple(_readdressed(trial, each) for each in raised(told, _mended(trial, told)))


def _readdressed(trial: Trial, finding: Finding) -> Finding:
    """At the tensor that is to blame, where that is no layer's."""
    cause = finding.caused_by
    if cause is not None and place(cause) in trial.freed:
        return replace(finding, caused_by=Cause(cause.rule, trial.freed[place(cause)][0]))
    addresses = trial.freed.get(place(finding), ())
    if not addresses or cause is not None or not finding.verified or addresses[0] == finding.address:
        return finding
    owner, tensor = trial.model.owner(addresses[0]), trial.model.tensor(addresses[0])
    more = f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
    said = f"{finding.message}; with {addresses[0]}{more} of order one it is gone"
    one = not more and tensor is not None and tensor.size == 1
    milder = one and not finding.proven  # bugs.md: Adam divides one factor out
    severity = min(finding.severity, Severity.WARNING) if milder else finding.severity
    layer = None if owner is None else owner.name
    return replace(finding, severity=severity, layer=layer, tensor=addresses[0], message=said)


def _mended(trial: Trial, told: Sequence[Finding]) -> set[tuple[Place, Place]]:
    """(cause, consequence) where a fix that was tried has cured both: of whole tensors that were stuck, or of where
    the forward pass overflows."""
    stuck = trial.start.context.signals.liveness
    pairs = {
        (place(each.caused_by), place(each))
        for each in told
        if each.caused_by is not None and (stuck.get(each.address) is Liveness.STUCK or trial.is_overflow(each))
    }
    return {(cause, each) for cause, each in pairs if cause in trial.verified and each in trial.confirmed}


def _told(trial: Trial, finding: Finding) -> Finding:
    at = place(finding)
    if finding not in trial.subjects:
        return finding
    if at in trial.own:
        return _own(trial, finding)
    cause = trial.cause_of.get(at)
    if cause is not None:
        finding = replace(finding, caused_by=Cause(cause.rule, cause.address))
    elif any(place(each) == at for each in trial.causes):
        finding = replace(finding, caused_by=None)
    if at not in trial.verified:
        return _without_failed_fix(trial, finding)
    before, after = (numbers(each, finding, at in trial.joint) for each in (trial.start, trial.confirmed[at]))
    changed = [name for name, value in before.items() if name in after and after[name] != value]
    return replace(
        finding,
        fix=placed(trial.model, trial.fixes.get(at, finding.fix)),
        verified=True,
        before={name: before[name] for name in changed},
        after={name: after[name] for name in changed},
    )


def _own(trial: Trial, finding: Finding) -> Finding:
    """What no redraw has changed."""
    sealed = _is_sealed(trial, finding)
    cause = finding.caused_by
    overflows = {place(each) for each in trial.subjects if trial.is_overflow(each)} - trial.verified
    if cause is not None and (sealed or place(cause) in overflows):
        return finding
    said = f"{finding.message}; {UNTRIED if sealed else OWN}"
    cause = finding.caused_by if sealed else None
    return _without_failed_fix(trial, replace(finding, severity=Severity.NOTE, caused_by=cause, message=said))


def _without_failed_fix(trial: Trial, finding: Finding) -> Finding:
    """What was tried and has not helped is no fix."""
    edits = trial.edits(finding)
    failed = place(finding) not in trial.confirmed and edits and trial.tried.issuperset(edits)
    return replace(finding, fix=None) if failed else finding


def _is_sealed(trial: Trial, finding: Finding) -> bool:
    """Whether a weight that it may come from was in no redraw."""
    stats = trial.start.context.stats
    weights = (layer.weight for layer in trial.suspects(finding) if layer.kind.is_map or layer.kind.is_recurrent)
    made = (each.address for each in weights if each.trainable and each.address in trial.model.uneditable)
    return not all(settable(trial.model, [Reinit(each, "he_normal")], stats) for each in made)
