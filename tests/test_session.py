"""The child process may crash, hang, babble or die; the session says so in one sentence and lives on."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from array import array
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import fake_children
import numpy as np
import pytest

from initlint.errors import FailureKind, TargetError
from initlint.fixes import Advice, Fill, Reinit
from initlint.kinds import Kind, Role, Source, Use
from initlint.model import Layer, Model, Tensor, View
from initlint.probe import wire
from initlint.probe.edits import edited
from initlint.probe.signals import Forward
from initlint.session import FileSession, open_session
from initlint.settings import ProbeSettings

PATIENCE = 60.0
"""Seconds: far more than any answer needs, for machines that are busy with something else."""

Opened = Callable[..., FileSession]


@pytest.fixture
def opened() -> Iterator[Opened]:
    sessions: list[FileSession] = []

    def open_named(name: str, wall_seconds: float = PATIENCE, entry: str = "fake_children:start") -> FileSession:
        sessions.append(FileSession(Path(name), wall_seconds, entry))
        return sessions[-1]

    yield open_named
    for session in sessions:
        session.close()


def roundtrip(value: object) -> Any:
    stream = BytesIO()
    wire.send(stream, value)
    stream.seek(0)
    return wire.receive(stream)


class TestWire:
    @pytest.mark.parametrize(
        "value",
        [
            None,
            True,
            3,
            -1.5e-300,
            math.inf,
            "naïve \ud800 \x00",
            (),
            (1, ("a", [2.0, None])),
            {"a": {"b": (1,)}},
            frozenset({Use.SUM, Use.OUTPUT}),
            array("f", [1.0, 2.0]),
            array("d"),
            b"\x00raw",
            Path("a/b"),
            Kind.LSTM,
            fake_children.MODEL,
            Layer("l", Kind.GRU, fake_children.WEIGHT, uses=frozenset({Use.LAYER}), input_source=Source.NORM),
            fake_children.stats(),
            (Reinit("a", "he_normal", 2.0), Fill("b", 0.0), Advice("c", "...")),
            ProbeSettings(shapes={"x": (1, 3)}, dims={"batch": 2}),
        ],
    )
    def test_values_survive(self, value: object) -> None:
        received = roundtrip(value)
        assert received == value
        assert type(received) is type(value)

    def test_nan_survives(self) -> None:
        assert math.isnan(roundtrip((float("nan"),))[0])

    @pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "float16", "bfloat16"])
    def test_input_arrays_survive(self, dtype: str) -> None:
        import ml_dtypes

        made = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)[:, ::2]
        received = roundtrip({"x": made})["x"]
        assert received.dtype == made.dtype
        assert np.array_equal(received, made)

    def test_numpy_scalars_arrive_as_plain_numbers(self) -> None:
        assert [type(value) for value in roundtrip((np.float32(0.5), np.float64(2.0), np.int64(3)))] == [
            float,
            float,
            int,
        ]

    def test_what_is_not_ours_does_not_travel(self) -> None:
        with pytest.raises(TypeError, match="cannot travel"):
            wire.send(BytesIO(), {"x": object()})
        with pytest.raises(TypeError, match="cannot travel"):
            wire.send(BytesIO(), {3: "x"})
        with pytest.raises(TypeError, match="cannot travel"):
            wire.send(BytesIO(), np.array([object()]))

    def test_a_message_makes_no_class_of_anybody_else(self) -> None:
        for header in (b'["Popen","ls"]', b'["array","f",0,99]', b'["View",1]', b"[", b"[" * 100_000, b"[[]]", b"[]"):
            with pytest.raises(wire.ChannelCorrupt):
                wire.receive(BytesIO(wire._PREFIX.pack(wire.MAGIC, len(header), 0) + header))

    def test_an_absurd_length_is_refused_before_it_is_read(self) -> None:
        with pytest.raises(wire.ChannelCorrupt, match="announced"):
            wire.receive(BytesIO(wire._PREFIX.pack(wire.MAGIC, 2, 1 << 60)))


class TestAnswers:
    def test_model_statistics_and_signals_arrive(self, opened: Opened) -> None:
        session = opened("fine.onnx")
        assert session.model == fake_children.MODEL
        assert session.stats() == {"fc.weight": fake_children.stats()}
        signals = session.probe(ProbeSettings(seed=5), [Fill("fc.weight", 2.0)])
        assert (signals.forward, signals.seed) == (Forward.MEASURED, 5)
        assert "Fill(tensor='fc.weight', value=2.0" in signals.reason
        assert math.isnan(signals.layers["fc"].unit_mean[0])

    def test_statistics_are_measured_once(self, opened: Opened) -> None:
        session = opened("fine.onnx")
        assert session.stats() is session.stats()

    def test_inputs_travel(self, opened: Opened) -> None:
        signals = opened("fine.onnx").probe(ProbeSettings(inputs={"x": np.ones(2, np.int8)}))
        assert signals.reason == "() {'x': array([1, 1], dtype=int8)}"

    def test_large_arrays_travel(self, opened: Opened) -> None:
        assert len(opened("huge.onnx").stats()["fc.weight"].unit_rms) == fake_children.HUGE

    def test_bytes_travel(self) -> None:
        with pytest.raises(TargetError, match="no model"):
            FileSession(b"refuse-in-open", PATIENCE, "fake_children:start")

    @pytest.mark.parametrize("name", ["chatter-in-open", "chatter-in-probe", "beg-in-stats"])
    def test_prints_and_reads_do_not_disturb_the_channel(self, opened: Opened, name: str) -> None:
        session = opened(f"{name}.onnx")
        session.stats()
        assert session.probe(ProbeSettings()).forward is Forward.MEASURED

    def test_no_numpy_is_imported_in_the_calling_process(self) -> None:
        script = f"""
            import sys
            sys.path.insert(0, {str(Path(__file__).parent)!r})
            from pathlib import Path
            from initlint.session import FileSession
            from initlint.settings import ProbeSettings
            with FileSession(Path("fine.onnx"), {PATIENCE}, "fake_children:start") as session:
                session.stats(), session.probe(ProbeSettings())
            heavy = {{"numpy", "onnx", "onnxruntime", "torch", "google"}}
            print(sorted(heavy & set(sys.modules)))
        """
        assert _python(script) == "[]"


class TestFailures:
    @pytest.mark.parametrize(
        ("name", "kind", "says"),
        [
            ("refuse-in-open", FailureKind.UNSUPPORTED, "this is no model"),
            ("crash-in-open", FailureKind.CRASHED, "SIGABRT"),
            ("exit-in-open", FailureKind.CRASHED, "exit status 7: Fatal error: out of cheese"),
            ("break-in-open", FailureKind.CRASHED, "KeyError: 'a bug"),
        ],
    )
    def test_opening(self, opened: Opened, name: str, kind: FailureKind, says: str) -> None:
        with pytest.raises(TargetError, match=says) as caught:
            opened(f"{name}.onnx")
        assert caught.value.kind is kind
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("deed", "kind", "says"),
        [
            ("crash", FailureKind.CRASHED, r"the runtime crashed \(SIGABRT.*\) while probing"),
            ("segfault", FailureKind.CRASHED, r"the runtime crashed \(SIGSEGV.*\) while probing"),
            ("forge", FailureKind.CRASHED, "unreadable answer while probing"),
            ("starve", FailureKind.LIMIT, "more memory than there is; give a smaller --batch"),
            ("break", FailureKind.CRASHED, "please report"),
        ],
    )
    def test_what_was_received_before_stays(self, opened: Opened, deed: str, kind: FailureKind, says: str) -> None:
        session = opened(f"{deed}-in-probe.onnx")
        session.stats()
        with pytest.raises(TargetError, match=says) as caught:
            session.probe(ProbeSettings())
        assert caught.value.kind is kind
        assert session.model == fake_children.MODEL
        assert session.stats() == {"fc.weight": fake_children.stats()}

    def test_a_dead_session_goes_on_to_say_why(self, opened: Opened) -> None:
        session = opened("crash-in-stats.onnx")
        for _ in range(2):
            with pytest.raises(TargetError, match="SIGABRT"):
                session.stats()
        with pytest.raises(TargetError, match="SIGABRT"):
            session.probe(ProbeSettings())

    def test_a_refusal_does_not_end_the_session(self, opened: Opened) -> None:
        session = opened("refuse-in-stats.onnx")
        with pytest.raises(TargetError, match="no model"):
            session.stats()
        assert session.probe(ProbeSettings()).forward is Forward.MEASURED

    def test_a_hang_ends_at_the_wall_limit(self, opened: Opened) -> None:
        session = opened("hang-in-probe.onnx")
        session.stats()
        with pytest.raises(TargetError, match=r"no answer within 0\.2 s while probing.*wall-seconds") as caught:
            session.probe(ProbeSettings(wall_seconds=0.2))
        assert caught.value.kind is FailureKind.LIMIT
        assert session._child._process.poll() is not None

    def test_a_closed_session_says_so(self, opened: Opened) -> None:
        session = opened("fine.onnx")
        session.close()
        session.close()
        assert session.model == fake_children.MODEL
        with pytest.raises(TargetError, match="closed"):
            session.probe(ProbeSettings())

    def test_tracebacks_stay_off_the_terminal(self, capfd: pytest.CaptureFixture[str], opened: Opened) -> None:
        with pytest.raises(TargetError):
            opened("break-in-open.onnx")
        assert capfd.readouterr() == ("", "")

    def test_tracebacks_are_there_for_debugging(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], opened: Opened
    ) -> None:
        monkeypatch.setenv("INITLINT_DEBUG", "1")
        with pytest.raises(TargetError):
            opened("break-in-open.onnx")
        assert "Traceback" in capfd.readouterr().err


class TestTargets:
    def test_without_pytorch_the_advice_can_be_followed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(sys.modules, "initlint.probe.modules", raising=False)
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(TargetError, match=r"not installed; run: pip install torch$"):
            open_session("pkg.nets:build", ProbeSettings())

    def test_a_missing_file_needs_no_child(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(subprocess, "Popen", None)
        for path in (tmp_path / "no.onnx", tmp_path / "no" / "no.onnx", str(tmp_path / "no.onnx")):
            with pytest.raises(TargetError, match=r"no\.onnx does not exist") as caught:
                open_session(path, ProbeSettings())
            assert caught.value.kind is FailureKind.MISSING

    def test_folders_pipes_and_impossible_names_are_unreadable(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        for path in (tmp_path, tmp_path / "pipe", "nul\0.onnx", "x" * 5000):
            with pytest.raises(TargetError) as caught:
                open_session(path, ProbeSettings())
            assert caught.value.kind is FailureKind.UNREADABLE


class TestProcess:
    def test_the_child_ends_with_its_parent(self, tmp_path: Path) -> None:
        """Even if the parent is killed, and the child is in the middle of something that never ends."""
        script = f"""
            import os, sys, threading, time
            sys.path.insert(0, {str(Path(__file__).parent)!r})
            from pathlib import Path
            from initlint.session import FileSession
            from initlint.settings import ProbeSettings
            session = FileSession(Path("hang-in-probe.onnx"), 1000, "fake_children:start")
            threading.Thread(target=session.probe, args=(ProbeSettings(),), daemon=True).start()
            time.sleep(0.3)
            print(session._child._process.pid, flush=True)
            os.kill(os.getpid(), 9)
        """
        child = int(_python(script, status=-signal.SIGKILL))
        deadline = time.monotonic() + PATIENCE
        while _runs(child):
            assert time.monotonic() < deadline, "the child survives its parent"
            time.sleep(0.02)

    def test_modules_beside_the_model_are_not_imported(self, tmp_path: Path) -> None:
        (tmp_path / "numpy.py").write_text("raise SystemExit('hostile')")
        (tmp_path / "sitecustomize.py").write_text("raise SystemExit('hostile')")
        script = f"""
            import sys
            sys.path[:0] = ["", ".", {str(tmp_path)!r}]
            sys.path.append({str(Path(__file__).parent)!r})
            from pathlib import Path
            from initlint.errors import TargetError
            from initlint.session import FileSession
            try:
                FileSession(Path("x.onnx"), {PATIENCE}, "fake_children:quote_path")
            except TargetError as error:
                print(error)
        """
        told = _python(script, cwd=tmp_path)
        assert "numpy/__init__.py" in told
        assert str(tmp_path) not in told

    def test_interrupting_an_answer_closes_the_session(self, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
        session = opened("fine.onnx")

        def interrupted(stream: object) -> object:
            raise KeyboardInterrupt

        monkeypatch.setattr(wire, "receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            session.stats()
        monkeypatch.undo()
        with pytest.raises(TargetError, match="closed"):
            session.stats()


class TestEdits:
    """Fixes become weights in the file's layout."""

    PACKED = Tensor("l.w", (6, 50), "float32", Role.WEIGHT, View(1, 6, 50), parts=("q", "k", "v"))
    BIAS = Tensor("l.b", (6,), "float32", Role.BIAS, View(1, 6, 1))
    LAYER = Layer("l", Kind.LINEAR, PACKED, bias=BIAS, fan_in=50, fan_out=6)
    MODEL = Model("onnx", (LAYER,), (PACKED, BIAS), 306)

    def chunks(self, address: str) -> Iterator[np.ndarray]:
        shape = {"l.w": (2, 50), "l.b": (2, 1)}[address]
        return iter([np.full(shape, fill, np.float32) for fill in (1, 2, 3)])

    def test_a_fill_changes_its_part_alone(self) -> None:
        changed = edited(self.MODEL, self.chunks, [Fill("l.w[k]", 7.0)], seed=0)
        assert list(changed) == ["l.w"]
        assert changed["l.w"][:, 0].tolist() == [1, 1, 7, 7, 3, 3]

    def test_edits_of_one_tensor_add_up(self) -> None:
        changed = edited(self.MODEL, self.chunks, [Fill("l.w[k]", 7.0), Fill("l.w[v]", 8.0), Fill("l.b", 0.0)], seed=0)
        assert changed["l.w"][:, 0].tolist() == [1, 1, 7, 7, 8, 8]
        assert not changed["l.b"].any()

    def test_draws_depend_on_seed_and_address_alone(self) -> None:
        draw = Reinit("l.w[k]", "he_normal")
        alone = edited(self.MODEL, self.chunks, [draw], seed=1)["l.w"]
        among = edited(self.MODEL, self.chunks, [Reinit("l.w[q]", "he_normal"), draw], seed=1)["l.w"]
        other = edited(self.MODEL, self.chunks, [draw], seed=2)["l.w"]
        assert np.array_equal(alone[2:4], among[2:4])
        assert not np.array_equal(alone[2:4], other[2:4])
        assert not np.array_equal(among[:2], among[2:4])

    def test_advice_changes_nothing(self) -> None:
        assert edited(self.MODEL, self.chunks, [Advice("l.w", "by hand")], seed=0) == {}


def _python(script: str, status: int = 0, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=PATIENCE,
    )
    assert done.returncode == status, done.stderr
    return done.stdout.strip()


def _runs(pid: int) -> bool:
    """Whether the process is there and no zombie (whoever adopted it may be slow to bury it)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"
