"""False alarms: what initlint says of architectures as their own libraries initialise them.

    python benchmarks/healthy_onnx.py [--cache DIR] [--export-only] [--only GLOB] [--exporter legacy|dynamo]

Each architecture of ``zoo.py`` is exported honestly by both of PyTorch's exporters and checked. The table says how many
errors, warnings and notes came, and in how many seconds; below it, every error and warning, what could not be checked,
and why an export failed. ``--cache`` keeps exported files (and the reasons of failed exports) for the next run. Exit
status 1 where a file drew an error or a warning, could not be checked, or an architecture could not be exported at all.

Needs ``transformers pytorchcv vit-pytorch x-transformers`` beside the development dependencies.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import FrameType

import onnx
import torch
from zoo import ZOO, Architecture

import initlint
from initlint.plugin import Severity
from initlint.report import Report, Status
from initlint.testing import EXPORTERS, Exporter, honest_export

EXPORT_SECONDS = 240
FIRST_LINE = 160
TERMINAL_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Exported:
    architecture: Architecture
    exporter: Exporter
    path: Path
    failure: str
    """Why there is no file at ``path``; empty where there is one."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the block after ``seconds``; a hanging exporter must not stop the run."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"no export within {seconds} s")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def export(architecture: Architecture, exporter: Exporter, cache: Path) -> Exported:
    path = cache / f"{architecture.title}.{exporter}.onnx"
    reason = path.with_suffix(".failed.txt")
    if path.exists():
        return Exported(architecture, exporter, path, "")
    if reason.exists():
        return Exported(architecture, exporter, path, reason.read_text())
    try:
        with time_limit(EXPORT_SECONDS):
            module, inputs = architecture.build()
            proto = honest_export(module, inputs, exporter)
        onnx.save(proto, path)
    except Exception as fault:  # noqa: BLE001 - exporters raise anything; the reason goes into the table
        text = " ".join(TERMINAL_COLOUR.sub("", str(fault)).split()) or "no message"
        failure = f"{type(fault).__name__}: {text[:FIRST_LINE]}"
        reason.write_text(failure)
        return Exported(architecture, exporter, path, failure)
    return Exported(architecture, exporter, path, "")


@dataclass(frozen=True)
class Checked:
    exported: Exported
    report: Report | None
    seconds: float
    crash: str = ""

    @property
    def trouble(self) -> str:
        """Why the file was not checked; empty where it was."""
        if self.report is None:
            return self.crash
        if self.report.status is not Status.OK:
            return self.report.failure.message if self.report.failure else str(self.report.status)
        return ""

    @property
    def alarms(self) -> list[initlint.Finding]:
        findings = self.report.headlines if self.report else ()
        return [finding for finding in findings if finding.severity >= Severity.WARNING]


def check(exported: Exported) -> Checked:
    started = time.perf_counter()
    try:
        report = initlint.check(exported.path)
    except Exception as fault:  # noqa: BLE001 - a traceback is what this benchmark looks for
        return Checked(exported, None, time.perf_counter() - started, f"CRASH {type(fault).__name__}: {fault}")
    return Checked(exported, report, time.perf_counter() - started)


def row(checked: Checked) -> str:
    exported = checked.exported
    size = exported.path.stat().st_size / 1e6
    title = f"{exported.architecture.title:<36} {exported.exporter:<7} {size:6.1f} MB {checked.seconds:6.1f} s"
    if checked.report is None or checked.trouble:
        return f"{title}   {checked.trouble.splitlines()[0][:FIRST_LINE]}"
    errors, warnings, notes = (
        checked.report.count(severity) for severity in (Severity.ERROR, Severity.WARNING, Severity.NOTE)
    )
    probe = "" if checked.report.probe.forward == "measured" else f"   no probe: {checked.report.probe.reason[:80]}"
    return f"{title}  {errors:4} {warnings:4} {notes:4}  {len(checked.report.layers):4} layers{probe}"


def details(checked: list[Checked]) -> Iterator[str]:
    for one in checked:
        title = f"{one.exported.architecture.title} ({one.exported.exporter})"
        for finding in one.alarms:
            yield f"  {title}: {finding.severity} {finding.rule} at {finding.address}: {finding.message}"
        reasons = Counter(entry.reason for entry in one.report.not_checked) if one.report else Counter[str]()
        for reason, count in reasons.most_common(3):
            yield f"  {title}: {count} x not checked: {reason[:FIRST_LINE]}"


def rules(checked: list[Checked]) -> Iterator[str]:
    """Findings by rule and severity over all files, the loudest first."""
    spoken: Counter[tuple[str, str]] = Counter()
    files: Counter[tuple[str, str]] = Counter()
    for one in checked:
        keys = [(str(f.severity), f.rule) for f in one.report.headlines] if one.report else []
        spoken.update(keys)
        files.update(set(keys))
    for (severity, rule), count in spoken.most_common():
        yield f"  {severity:<8} {rule:<24} {count:5} findings in {files[severity, rule]:3} files"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cache", type=Path, help="keep exported files here (default: a temporary folder)")
    parser.add_argument("--export-only", action="store_true", help="export, say what failed, check nothing")
    parser.add_argument("--only", default="*", help="pattern of names such as 'pytorchcv-*'")
    parser.add_argument("--exporter", choices=EXPORTERS, action="append", help="one exporter instead of both")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        cache = arguments.cache or Path(temporary)
        cache.mkdir(parents=True, exist_ok=True)
        return run(cache, arguments.only, arguments.exporter or EXPORTERS, arguments.export_only)


def run(cache: Path, only: str, exporters: tuple[Exporter, ...], export_only: bool) -> int:
    exported: list[Exported] = []
    checked: list[Checked] = []
    if not export_only:
        print(f"{'architecture':<36} {'export':<7} {'size':>9} {'time':>8}  {'err':>4} {'warn':>4} {'note':>4}")
    for architecture in ZOO:
        if not fnmatchcase(architecture.title, only):
            continue
        for exporter in exporters:
            exported.append(export(architecture, exporter, cache))
            if export_only:
                print(f"{architecture.title:<36} {exporter:<7} {exported[-1].failure or 'ok'}", flush=True)
            elif not exported[-1].failure:
                checked.append(check(exported[-1]))
                print(row(checked[-1]), flush=True)
    failed = [one for one in exported if one.failure]
    reached = {one.architecture.title for one in exported if not one.failure}
    lost = {one.architecture.title for one in failed} - reached
    print(f"\n{len(reached)} architectures exported, {len(exported) - len(failed)} files; no file of {len(lost)}")
    for one in failed:
        print(f"  {one.architecture.title} ({one.exporter}): {one.failure}")
    if export_only:
        return int(bool(lost))
    noisy = [one for one in checked if one.alarms]
    troubled = [one for one in checked if one.trouble]
    print(f"\n{len(checked)} files checked: {len(noisy)} with an error or a warning, {len(troubled)} not checked")
    print("\n".join([*rules(checked), "", *details(checked)]))
    return int(bool(lost or noisy or troubled))


if __name__ == "__main__":
    sys.exit(main())
