"""What a child process may do to a session: entry points for tests, run in the child instead of the ONNX back end."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

from initlint.errors import FailureKind, TargetError
from initlint.fixes import Fix
from initlint.kinds import Kind, Role
from initlint.model import Layer, Model, Tensor, View
from initlint.probe import child
from initlint.probe.signals import Forward, LayerSignal, Signals
from initlint.settings import ProbeSettings
from initlint.stats import WeightStats

HUGE = 8_000_000

WEIGHT = Tensor("fc.weight", (3, 4), "float32", Role.WEIGHT, View(1, 3, 4))
MODEL = Model("onnx", (Layer("fc", Kind.LINEAR, WEIGHT, fan_in=4, fan_out=3),), (WEIGHT,), 12)


def stats(units: int = 3) -> WeightStats:
    nothing: array[float] = array("f")
    rms = array("f", [0.5]) * units
    return WeightStats(12, 1, 2, 3, -1.0, 1.0, 0.0, 0.5, 0.25, -1.2, 0, 0, 0.0, 1.0, "uniform", 0.5, rms, nothing)


class Fake:
    """Answers, and acts as the model's name ("crash-in-probe.onnx") says."""

    def __init__(self, source: Path | bytes) -> None:
        self.name = source.decode() if isinstance(source, bytes) else source.stem
        self._act("open")

    model = MODEL

    def stats(self) -> Mapping[str, WeightStats]:
        self._act("stats")
        return {"fc.weight": stats(HUGE if self.name == "huge" else 3)}

    def edited_stats(self, edits: Sequence[Fix], seed: int) -> Mapping[str, WeightStats]:
        self._act("trial")
        return {"fc.weight": stats()}

    def probe(self, settings: ProbeSettings, edits: Sequence[Fix]) -> Signals:
        self._act("probe")
        unit = array("f", [float("nan"), float("inf"), 1.0])
        signal = LayerSignal(8, 1.0, float("nan"), 1.0, float("inf"), 0.5, 0.0, unit, unit, unit, array("f"))
        return Signals(Forward.MEASURED, f"{edits!r} {settings.inputs!r}", 8, 1, settings.seed, {"fc": signal})

    def _act(self, place: str) -> None:
        deed, _, where = self.name.partition("-in-")
        if where == place:
            getattr(self, f"_{deed}")()

    def _crash(self) -> None:
        os.abort()

    def _segfault(self) -> None:
        ctypes.string_at(0)

    def _exit(self) -> None:
        print("Fatal error: out of cheese", file=sys.stderr, flush=True)
        os._exit(7)

    def _hang(self) -> None:
        time.sleep(1000)

    def _refuse(self) -> None:
        raise TargetError(FailureKind.UNSUPPORTED, "this is no model")

    def _break(self) -> None:
        raise KeyError("a bug\nover two lines")

    def _starve(self) -> None:
        raise MemoryError

    def _chatter(self) -> None:
        print("printed by Python", flush=True)
        os.write(1, b"printed by a native library\n" * 100_000)
        os.write(2, b"x" * 1_000_000)

    def _beg(self) -> None:
        sys.stdin.read()

    def _forge(self) -> None:
        for descriptor in range(3, 64):
            try:
                os.write(descriptor, b"not a message of ours, but long enough to be taken for one")
            except OSError:
                continue


def start() -> None:
    child.start(Fake)


def quote_path() -> None:
    """Refuse with the modules' origins, to show what the child can import."""

    def opener(source: Path | bytes) -> child.Backend:
        import numpy

        raise TargetError(FailureKind.UNSUPPORTED, f"{numpy.__file__} {sys.path}")

    child.start(opener)
