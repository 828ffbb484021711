"""Runs of initlint over models that need no files, with two rules that say what they are told to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

import pytest
from click.testing import CliRunner, Result
from sample_reports import row, stats
from sample_reports import signal as measured

from initlint import catalog, session
from initlint.cli import main
from initlint.errors import FailureKind, TargetError
from initlint.kinds import Kind
from initlint.load.target import format_of
from initlint.model import Model
from initlint.probe.signals import Forward, Signals
from initlint.settings import ProbeSettings
from initlint.stats import WeightStats

PACK = '''
"""Says what the layer's name tells it to.

## Why it matters

Names decide.
"""
from __future__ import annotations
from collections.abc import Iterator
from dataclasses import dataclass
from initlint.plugin import Context, Fill, Needs, Severity, Suspicion, rule

@dataclass(frozen=True)
class Options:
    prefix: str = ""  # chosen for this test
    limit: float = 2.5
    """Above which nothing happens."""

@rule(category="names", needs=Needs.WEIGHTS, message="its name says {said}", options=Options)
def named_so(context: Context, options: Options) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        said = layer.name.removeprefix(options.prefix).partition(".")[0].upper()
        if said in Severity.__members__:
            yield Suspicion(layer.weight, Severity[said], {"said": said}, fix=Fill(layer.weight.address, 1.0))

@rule(category="signal", needs=Needs.FORWARD, message="the signal is {rms}")
def loud_signal(context: Context, options: object) -> Iterator[Suspicion]:
    for layer in context.model.layers:
        signal = context.signal(layer)
        if signal is not None and signal.rms > 10:
            yield Suspicion(layer, Severity.ERROR, {"rms": signal.rms})
'''

LAYERS = {
    "clean.onnx": ["quiet.0", "quiet.1"],
    "note.onnx": ["note.0", "quiet.1"],
    "warning.onnx": ["warning.0", "quiet.1"],
    "error.onnx": ["error.0", "error.1", "note.2"],
    "empty.onnx": [],
}
FAULTS = {
    "missing.onnx": FailureKind.MISSING,
    "text.onnx": FailureKind.UNREADABLE,
    "strange.onnx": FailureKind.UNSUPPORTED,
    "crash.onnx": FailureKind.CRASHED,
    "endless.onnx": FailureKind.LIMIT,
}


class FakeSession:
    """A model whose layers' names come from LAYERS; it remembers what was asked of it."""

    asked: list[str]

    def __init__(self, target: str, settings: ProbeSettings) -> None:
        self.target, self.settings, self.asked = target, settings, []
        rows = [row(name, Kind.LINEAR, (3, 3), "relu", 1.0, 3) for name in LAYERS.get(target, ["error.0"])]
        layers = tuple(entry.layer for entry in rows)
        self.model = Model(
            format_of(target), layers, tuple(layer.weight for layer in layers), parameters=9 * len(layers)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()

    def stats(self) -> Mapping[str, WeightStats]:
        self.asked.append("stats")
        if self.target == "unread.onnx":
            raise TargetError(FailureKind.CRASHED, "the weights crashed the reader")
        return {layer.weight.address: stats() for layer in self.model.layers}

    def edited_stats(self, edits: object, seed: int) -> Mapping[str, WeightStats]:
        """No fix changes anything."""
        return {}

    def probe(self, settings: ProbeSettings, edits: object = ()) -> Signals:
        self.asked.append("probe")
        if self.target == "late.onnx":
            raise TargetError(FailureKind.LIMIT, "the probe took too long")
        loud = 100.0 if self.target == "loud.onnx" else 1.0
        layers = {layer.name: measured(loud) for layer in self.model.layers}
        return Signals(Forward.MEASURED, batch=settings.batch or 16, seed=settings.seed, layers=layers)

    def close(self) -> None:
        self.asked.append("close")


SESSIONS: list[FakeSession] = []


@pytest.fixture
def fakes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two rules, and models that need no files; the current folder is empty."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "fake_rules_of_test_cli.py").write_text(PACK)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(tmp_path_factory.mktemp("current"))
    monkeypatch.setattr(catalog, "installed_packs", lambda: {"fake": "fake_rules_of_test_cli"})

    def open_session(target: Any, settings: ProbeSettings) -> FakeSession:
        if target in FAULTS:
            raise TargetError(FAULTS[target], f"{target} has a fault")
        SESSIONS.append(FakeSession(str(target), settings))
        return SESSIONS[-1]

    monkeypatch.setattr(session, "open_session", open_session)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    yield
    SESSIONS.clear()


def interrupt_at(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control-C while the weights of ``target`` are read."""
    stats = FakeSession.stats

    def interrupted(session: FakeSession) -> Mapping[str, WeightStats]:
        if session.target == target:
            raise KeyboardInterrupt
        return stats(session)

    monkeypatch.setattr(FakeSession, "stats", interrupted)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))
