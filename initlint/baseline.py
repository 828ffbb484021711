"""Baselines: the findings that a repository had when it took initlint up. They do not fail; new ones do.

A baseline is a JSON file with one finding a line. A finding is known again by its target's file name, its rule and its
address; the folder, the measured numbers and the order of layers make no difference. It counts as new where it got
louder than it was.
"""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from .errors import UsageError
from .locking import alone_in
from .plugin import Finding, Severity
from .target_names import file_name, seen_from

VERSION = 1

REASON = "in the baseline"
"""Why a finding of the baseline is suppressed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One known finding. ``target`` is the path as seen from the baseline's folder; only its file name identifies,
    the folder tells files of one name apart that are checked together."""

    target: str
    rule: str
    address: str
    severity: Severity

    @property
    def order(self) -> tuple[str, str, str, int]:
        return self.target, self.rule, self.address, -self.severity


@dataclass(frozen=True)
class Baseline:
    path: Path
    entries: tuple[Entry, ...] = ()
    clean: tuple[str, ...] = ()
    """Targets without findings, as far as others of the same file name have some: those are not theirs."""

    def known(self, target: str, others: Collection[str] = ()) -> tuple[Entry, ...]:
        """What is known of ``target``, which is checked beside those with the labels ``others``.

        Of entries with its file name those with its folder too, if there are any. Otherwise the file was moved, or is
        one of several that were: all entries but those of a file among ``others`` that did not move.
        """
        label = self.label(target)
        if label in self.clean:
            return ()
        named = self._by_file_name.get(file_name(target), ())
        exact = tuple(entry for entry in named if entry.target == label)
        return exact or tuple(entry for entry in named if entry.target not in others)

    @cached_property
    def _by_file_name(self) -> Mapping[str, Sequence[Entry]]:
        """Split once for all targets: to tell a file's name the disk is asked."""
        named: dict[str, list[Entry]] = {}
        names = {target: file_name(target) for target in {entry.target for entry in self.entries}}
        for entry in self.entries:
            named.setdefault(names[entry.target], []).append(entry)
        return named

    def label(self, target: str) -> str:
        """What an entry of ``target`` calls it."""
        return seen_from(target, self.path.parent)


@dataclass(frozen=True, slots=True)
class Standing:
    """How one target that was checked to the end stands to a baseline."""

    target: str
    """What an entry calls it."""
    current: tuple[Entry, ...] = ()
    """What a baseline written now would hold of it: every finding but those that an exception allows."""
    met: tuple[Entry, ...] = ()
    """Known ones that ``current`` stands for."""
    vanished: tuple[Entry, ...] = ()
    """Known ones that are no more, although their rule ran to the end."""


def recognised(findings: Sequence[Finding], known: Iterable[Entry]) -> list[Entry | None]:
    """For every finding the entry that knows it, whatever its severity.

    Where one rule says several things of a whole model, as many are known as there are entries, the loudest first.
    """
    free: dict[tuple[str, str], list[Entry]] = {}
    for entry in sorted(known, key=lambda entry: entry.severity):
        free.setdefault((entry.rule, entry.address), []).append(entry)
    entries: list[Entry | None] = [None] * len(findings)
    for i in sorted(range(len(findings)), key=lambda i: -findings[i].severity):
        if left := free.get((findings[i].rule, findings[i].address)):
            entries[i] = left.pop()
    return entries


def vanished(standings: Iterable[Standing]) -> tuple[Entry, ...]:
    """What is gone from all targets that it could belong to."""
    standings = list(standings)
    met = {entry for standing in standings for entry in standing.met}
    gone = {entry for standing in standings for entry in standing.vanished}
    return tuple(sorted(gone - met, key=lambda entry: entry.order))


def renewed(baseline: Baseline, standings: Iterable[Standing]) -> Baseline:
    """With the findings of a run in place of what it met and what vanished. Entries that it could not judge stay:
    other targets, targets that failed, rules that did not run."""
    standings = list(standings)
    gone = {*vanished(standings), *(entry for standing in standings for entry in standing.met)}
    current = _current(standings)
    entries = (*(entry for entry in baseline.entries if entry not in gone), *current)
    return _cleaned(replace(baseline, entries=entries), [standing.target for standing in standings])


def _current(standings: Iterable[Standing]) -> list[Entry]:
    """What is found now, of a target that was given twice once: a spare entry would accept what is still to come."""
    found: dict[tuple[str, str, str], list[Entry]] = {}
    for standing in standings:
        own: dict[tuple[str, str, str], list[Entry]] = {}
        for entry in standing.current:
            own.setdefault((entry.target, entry.rule, entry.address), []).append(entry)
        for identity, entries in own.items():
            found[identity] = max(found.get(identity, []), entries, key=_amount)
    return [entry for entries in found.values() for entry in entries]


def _amount(entries: Sequence[Entry]) -> tuple[int, int]:
    """How many there are, then how loud the loudest is."""
    return len(entries), max((entry.severity for entry in entries), default=Severity.NOTE)


def pruned(baseline: Baseline, standings: Iterable[Standing]) -> Baseline:
    """Without what vanished in a run."""
    standings = list(standings)
    gone = set(vanished(standings))
    entries = tuple(entry for entry in baseline.entries if entry not in gone)
    return _cleaned(replace(baseline, entries=entries), [standing.target for standing in standings])


def _cleaned(baseline: Baseline, checked: Iterable[str]) -> Baseline:
    soiled = {entry.target for entry in baseline.entries}
    shared = {file_name(target) for target in soiled}
    clean = {*baseline.clean, *checked} - soiled
    return replace(baseline, clean=tuple(sorted(target for target in clean if file_name(target) in shared)))


def is_there(path: Path) -> bool:
    """Whether there is a file, to be written otherwise. Raises UsageError for what is no file: reading a pipe may never
    end."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as fault:
        raise UsageError(f"the baseline {path} cannot be read: {getattr(fault, 'strerror', None) or fault}") from fault
    if not stat.S_ISREG(mode):
        raise UsageError(f"the baseline {path} cannot be read: it is not a regular file; name another one")
    return True


def load(path: Path) -> Baseline:
    """Read a baseline. Raises UsageError where there is none, or where the file is something else."""
    is_there(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"there is no baseline {path}; write one with --write-baseline {path}") from None
    except OSError as fault:
        raise UsageError(f"the baseline {path} cannot be read: {fault.strerror or fault}") from fault
    except (ValueError, RecursionError) as fault:
        raise UsageError(_broken(path, f"it is no JSON ({fault})")) from fault
    entries = tuple(_entries(document, path))
    return Baseline(path, entries, tuple(_texts(document.get("clean", []), path)))


def amend(read: Baseline, standings: Sequence[Standing], change: Change) -> Baseline:
    """Write the baseline that was ``read`` for a run with the ``change`` that its ``standings`` ask for, and return it.

    What others wrote meanwhile stays, unless this run found it too. Raises UsageError.
    """
    path = Path(os.path.realpath(read.path))
    try:
        with alone_in(path.parent):
            current = load(read.path) if is_there(read.path) else replace(read, entries=(), clean=())
            now = change(_without_twins(current, read, standings), standings)
            save(now)
            return now
    except OSError as fault:
        raise UsageError(f"the baseline {read.path} cannot be written: {fault.strerror or fault}") from fault


def _without_twins(current: Baseline, read: Baseline, standings: Iterable[Standing]) -> Baseline:
    """``current`` without what is new in it since it was ``read`` and is in the standings as well."""
    own = {(entry.target, entry.rule, entry.address) for standing in standings for entry in standing.current}
    old = Counter(read.entries)
    kept: list[Entry] = []
    for entry in current.entries:
        old[entry] -= 1
        if old[entry] >= 0 or (entry.target, entry.rule, entry.address) not in own:
            kept.append(entry)
    return replace(current, entries=tuple(kept))


def save(baseline: Baseline) -> None:
    """Write it as a whole or not at all: sorted, one entry a line. Raises UsageError."""
    path = Path(os.path.realpath(baseline.path))  # a link stays a link
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            unfinished.write_text(_text(baseline), encoding="utf-8", newline="\n")
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as fault:
        raise UsageError(f"the baseline {baseline.path} cannot be written: {fault.strerror or fault}") from fault


Change = Callable[[Baseline, Iterable[Standing]], Baseline]
"""``renewed`` or ``pruned``."""


def _text(baseline: Baseline) -> str:
    ordered = sorted(baseline.entries, key=lambda entry: entry.order)
    lines = ",\n".join(f"    {json.dumps(entry_to_dict(entry))}" for entry in ordered)
    findings = f"[\n{lines}\n  ]" if lines else "[]"
    clean = f',\n  "clean": {json.dumps(baseline.clean)}' if baseline.clean else ""
    return f'{{\n  "initlint_baseline": {VERSION},\n  "findings": {findings}{clean}\n}}\n'


def entry_to_dict(entry: Entry) -> dict[str, str]:
    return {**asdict(entry), "severity": str(entry.severity)}


def _entries(document: Any, path: Path) -> Iterable[Entry]:
    if not isinstance(document, Mapping) or "initlint_baseline" not in document:
        raise UsageError(_broken(path, "it holds something else"))
    version = document["initlint_baseline"]
    if version != VERSION or isinstance(version, bool):
        raise UsageError(_broken(path, f"it is of version {json.dumps(version)}, not {VERSION}"))
    findings = document.get("findings")
    if not isinstance(findings, list):
        raise UsageError(_broken(path, "its findings are no list"))
    for i, each in enumerate(findings, 1):
        told = each if isinstance(each, Mapping) else {}
        if not all(isinstance(told.get(key), str) for key in ("target", "rule", "address", "severity")):
            raise UsageError(_broken(path, f"finding {i} has no target, rule, address and severity"))
        if told["severity"].upper() not in Severity.__members__:
            known = ", ".join(map(str, reversed(Severity)))
            raise UsageError(_broken(path, f'finding {i} has the severity "{told["severity"]}", not one of {known}'))
        yield Entry(told["target"], told["rule"], told["address"], Severity[told["severity"].upper()])


def _texts(listed: Any, path: Path) -> Iterable[str]:
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise UsageError(_broken(path, "its clean targets are no list of names"))
    return listed


def _broken(path: Path, why: str) -> str:
    return f"{path} is no baseline of initlint: {why}; restore it, or delete it and use --write-baseline {path}"
