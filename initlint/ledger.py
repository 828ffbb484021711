"""What a run does to its baseline, and what it has to say of that and of the exceptions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .baseline import REASON, Baseline, Entry, Standing, amend, is_there, load, pruned, renewed
from .errors import UsageError
from .files_read import files_read, is_same_file, refuse_overwriting
from .report import Report, Run, Suppressed
from .reporters.coverage import expiry
from .reporters.sentences import WHOLE_MODEL
from .reporters.wording import listing, plural
from .settings import Settings
from .target_names import shown


@dataclass(frozen=True)
class Ledger:
    """What a run does with its baseline; ``baseline`` is None without one."""

    baseline: Baseline | None = None
    writes: bool = False
    prunes: bool = False

    def entered(self, run: Run) -> Run:
        """The run as it is once ``close`` has written its findings to the baseline, if it writes them."""
        return Run(tuple(map(_entered, run.reports))) if self.writes else run

    def close(self, run: Run) -> Iterator[str]:
        """Write or prune the baseline, and tell what there is to say of it and of the exceptions. Raises UsageError."""
        if self.baseline is not None:
            told = self._written if self.writes else (self._pruned if self.prunes else self._vanished)
            yield from told(run, self.baseline)
        yield from unused(run)

    def _written(self, run: Run, baseline: Baseline) -> Iterator[str]:
        standings = _standings(run)
        if standings:
            now, gone = amend(baseline, standings, renewed), len(run.vanished)
            dropped = f"; dropped {plural(gone, 'finding')} no longer there" if gone else ""
            yield f"{shown(baseline.path)} now holds {plural(len(now.entries), 'known finding')}{dropped}"

    def _pruned(self, run: Run, baseline: Baseline) -> Iterator[str]:
        if run.vanished:
            amend(baseline, _standings(run), pruned)
            count = plural(len(run.vanished), "finding")
            yield f"{shown(baseline.path)}: dropped {count} no longer there: {_places(run.vanished)}"

    def _vanished(self, run: Run, baseline: Baseline) -> Iterator[str]:
        if run.vanished:
            count = plural(len(run.vanished), "known finding")
            advice = "--prune-baseline drops what is gone"
            yield f"{shown(baseline.path)}: {count} no longer there: {_places(run.vanished)}; {advice}"


def opened(write: str | None, prunes: bool, settings: Settings, targets: Sequence[str]) -> Ledger:
    """The baseline to write, or the one of the settings. Raises UsageError, before anything is checked, for what could
    not be written afterwards."""
    if write is None and settings.baseline is None:
        if prunes:
            raise UsageError("--prune-baseline: there is no baseline; name it with --baseline FILE")
        return Ledger()
    path = Path(write).absolute() if write is not None else settings.baseline
    assert path is not None
    other = settings.baseline if settings.origins.get("baseline") == ("command line",) else None
    if other is not None and not is_same_file(path, other):
        raise UsageError("--baseline and --write-baseline name different files; leave one of them out")
    if write is not None or prunes:
        _refuse_unwritable(path, settings, targets)
    fresh = write is not None and not is_there(path)
    return Ledger(Baseline(path) if fresh else load(path), write is not None, prunes)


def _refuse_unwritable(path: Path, settings: Settings, targets: Sequence[str]) -> None:
    folder = Path(os.path.realpath(path)).parent  # a link stays a link
    if not folder.is_dir():
        raise UsageError(f"the baseline {shown(path)}: there is no folder {shown(folder)}; create it first")
    refuse_overwriting(path, f"the baseline {shown(path)}", files_read(targets, settings, None))


def _entered(report: Report) -> Report:
    """A target that was not checked to the end stays what it is."""
    if report.standing is None:
        return report
    known = tuple(Suppressed(finding, REASON) for finding in report.findings)
    return replace(report, findings=(), suppressed=(*report.suppressed, *known))


def unused(run: Run) -> Iterator[str]:
    """One sentence an exception that met no finding."""
    for allow in run.unused_exceptions:
        place = f"{allow.place}: " if allow.place else ""
        where = "" if allow.target == "*" else f" in {allow.target}"
        nothing = f"no finding of {allow.rule} at {allow.at}{where} is left to allow"
        yield f"{place}{nothing}; remove or correct the exception"


def expired(run: Run) -> Iterator[str]:
    """One sentence an exception whose findings count again."""
    for allow in dict.fromkeys(allow for report in run.reports for allow in report.expired):
        yield expiry(allow)


def _standings(run: Run) -> list[Standing]:
    return [report.standing for report in run.reports if report.standing is not None]


def _places(entries: tuple[Entry, ...]) -> str:
    return listing([f"{entry.rule} at {entry.address or WHOLE_MODEL} in {entry.target}" for entry in entries])
