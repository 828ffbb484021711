"""Where the forward pass gives NaN or infinity: mended in one place, it may come up in the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .loosening import LAST

if TYPE_CHECKING:
    from .trial import Trial


def follow_the_overflow(trial: Trial) -> None:
    """Try the fix with those for where it comes up next, as at all vectors that are divided by their lengths."""
    heads = (each for each in trial.left_over() if each.caused_by is None)
    findings = [each for each in heads if trial.is_overflow(each) and trial.edits(each)]
    if len(findings) != 1 or trial.confirming is None:
        return
    (finding,), after, edits = findings, trial.confirming, trial.edits(findings[0])
    while trial.left > LAST:
        following = (each for each in after.findings if trial.is_overflow(each))
        more = tuple(edit for each in following for edit in trial.edits(each) if edit not in edits)
        if not more:
            return
        edits = (*edits, *more)
        after = trial.attempt((each for each in trial.causes if each is not finding), edits)
        if trial.is_cured(finding, after):
            trial.found(finding, edits)
            trial.note_cured(after, [finding])
            return
