"""A Session holds one opened model and answers for it.

For files the work is done in a child process (``initlint.probe.child``): nothing of a model is parsed, loaded or run
here, and neither numpy nor onnx nor onnxruntime is imported.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

from .builds import NOT_BUILT, Builds
from .errors import FailureKind, TargetError
from .fixes import Fix
from .load.target import TargetKind, is_pickled, kind_of
from .model import Model
from .probe import wire
from .probe.given import arrays
from .probe.signals import Signals
from .settings import ProbeSettings
from .stats import WeightStats


class Session(Protocol):
    """One opened model. Files live in a child process, Python objects in the calling one."""

    @property
    def model(self) -> Model: ...

    def stats(self) -> Mapping[str, WeightStats]:
        """Statistics by address, packed parts included."""
        ...

    def edited_stats(self, edits: Sequence[Fix], seed: int) -> Mapping[str, WeightStats]:
        """Statistics of the tensors that ``edits`` change, as they are in a probe with these edits and this seed."""
        ...

    def probe(self, settings: ProbeSettings, edits: Sequence[Fix] = ()) -> Signals:
        """Push a batch through the model with ``edits`` applied for this call only."""
        ...

    def builds(self) -> Builds:
        """What building the model once more shows; called last, for a builder may have side effects."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_session(target: Any, settings: ProbeSettings) -> Session:
    """Open a file (str or path), a serialised model (bytes), a ModelProto, a PyTorch module or the name of one.

    Raises TargetError where the target is missing or cannot be opened. The session is a context manager.
    """
    kind = kind_of(target)
    if kind is TargetKind.WEIGHTS and settings.trust and is_pickled(target):
        from .load.trusted import load

        program = load(_source(target))
        if program is not None:
            from .probe.modules import open_program

            return open_program(program, settings)
    if kind in (TargetKind.PYTHON, TargetKind.BUILDER, TargetKind.MODULE):
        try:
            from .probe.modules import open_target
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            text = f"{target} needs PyTorch, which is not installed; run: pip install torch"
            raise TargetError(FailureKind.IMPORT, text) from None
        return open_target(target, settings)
    return FileSession(_source(target), settings.wall_seconds)


def _source(target: Any) -> Path | bytes:
    if isinstance(target, bytes):
        return target
    if hasattr(target, "SerializeToString"):
        return _serialised(target)
    path = Path(target)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise TargetError(FailureKind.MISSING, f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TargetError(FailureKind.UNREADABLE, f"{path} cannot be read: {reason}") from None
    if not stat.S_ISREG(mode):  # a folder, or a pipe whose opening might never return
        raise TargetError(FailureKind.UNREADABLE, f"{path} is not a file; name the model file itself")
    return path


def _serialised(proto: Any) -> bytes:
    try:
        return bytes(proto.SerializeToString())
    except ValueError as error:  # protobuf refuses messages over 2 GiB
        text = f"the model cannot be serialised ({error}); save it with external data and check the file"
        raise TargetError(FailureKind.UNREADABLE, text) from None


CHILD = "initlint.probe.child:start"
"""The function that the child process runs, as "module:attribute"."""


class FileSession:
    """A model in a child process. After a crash or a passed limit what was received before is still at hand."""

    def __init__(self, source: Path | bytes, wall_seconds: float, entry: str = CHILD) -> None:
        self._failure: TargetError | None = None
        self._child = _Child(entry)
        try:
            self.model: Model = self._ask("opening the model", wall_seconds, "open", source)
        except BaseException:
            self.close()
            raise
        self._wall_seconds = wall_seconds

    @cached_property
    def _stats(self) -> Mapping[str, WeightStats]:
        answer: Mapping[str, WeightStats] = self._ask("measuring the weights", self._wall_seconds, "stats")
        return answer

    def stats(self) -> Mapping[str, WeightStats]:
        """Statistics by address, packed parts included. Raises TargetError."""
        return self._stats

    def edited_stats(self, edits: Sequence[Fix], seed: int) -> Mapping[str, WeightStats]:
        """Statistics of the tensors that ``edits`` change. Raises TargetError."""
        wall_seconds = self._wall_seconds
        answer: Mapping[str, WeightStats] = self._ask("trying fixes", wall_seconds, "edited_stats", tuple(edits), seed)
        return answer

    def probe(self, settings: ProbeSettings, edits: Sequence[Fix] = ()) -> Signals:
        """Push a batch through the model with ``edits`` applied for this call only. Raises TargetError."""
        fed = replace(settings, inputs=arrays(settings), kwargs={}, device="", loss=None)
        answer: Signals = self._ask("probing the model", settings.wall_seconds, "probe", fed, tuple(edits))
        return answer

    def builds(self) -> Builds:
        """A file cannot be built again."""
        return NOT_BUILT

    def close(self) -> None:
        """End the child process; safe to call twice."""
        self._child.end()
        if self._failure is None:
            self._failure = TargetError(FailureKind.CRASHED, "the session is closed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, doing: str, wall_seconds: float, *request: object) -> Any:
        """Send one request and wait for its answer. ``doing`` completes "... while"."""
        if self._failure is not None:
            raise self._failure
        try:
            outcome, *answer = self._exchange(doing, wall_seconds, request)
        except TargetError as failure:
            self._failure = failure
            raise
        except BaseException:  # Ctrl-C in the middle of an answer: the rest of it would be taken for the next one
            self.close()
            raise
        if outcome == "ok":
            return answer[0]
        kind, message = answer
        raise TargetError(FailureKind(kind), message)

    def _exchange(self, doing: str, wall_seconds: float, request: tuple[object, ...]) -> Any:
        child = self._child
        with _limit(child, wall_seconds) as expired:
            try:
                wire.send(child.requests, request)
                return wire.receive(child.answers)
            except (OSError, wire.ChannelClosed):
                child.end()
            except wire.ChannelCorrupt as error:
                child.end()
                raise TargetError(FailureKind.CRASHED, f"unreadable answer while {doing}: {error}") from None
        if expired.is_set():
            advice = "if it only needs longer, raise wall-seconds in the configuration"
            raise TargetError(
                FailureKind.LIMIT, f"no answer within {wall_seconds:g} s while {doing}; {advice}"
            ) from None
        raise TargetError(FailureKind.CRASHED, f"the runtime crashed ({child.epitaph()}) while {doing}") from None


@contextmanager
def _limit(child: _Child, wall_seconds: float) -> Iterator[threading.Event]:
    """Kill ``child`` once ``wall_seconds`` have passed: a read that waits for it then ends, on every platform."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        child.kill()

    timer = threading.Timer(min(wall_seconds, threading.TIMEOUT_MAX), expire)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()


_BOOTSTRAP = """
import importlib.util, json, sys
sys.path[:], package, entry = json.loads(sys.argv[1])
spec = importlib.util.spec_from_file_location("initlint", package)
sys.modules["initlint"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
name, _, attribute = entry.partition(":")
getattr(importlib.import_module(name), attribute)()
"""
"""Loads this very package from its file: the folder that holds it may be the current one, which is not searched."""

_TAIL_LINES = 20
_LINE_LIMIT = 4096
"""How much of the child's stderr is kept; a runtime that prints without end must not fill the memory."""


class _Child:
    """A fresh interpreter, its channel, and the tail of what it wrote to stderr.

    Not a fork: the caller may hold threads of torch or OpenMP. ``-I -S`` skips the site folder's start-up files (40 ms
    of 50) and everything that the environment might inject; the module search path is handed over instead.
    """

    def __init__(self, entry: str) -> None:
        path = json.dumps([_search_path(), str(Path(__file__).with_name("__init__.py")), entry])
        self._quiet = os.environ.get("INITLINT_DEBUG") != "1"
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BOOTSTRAP, path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if self._quiet else None,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            text = f"no process could be started for the model: {error}"
            raise TargetError(FailureKind.CRASHED, text) from None
        self.requests = _stream(self._process.stdin)
        self.answers = _stream(self._process.stdout)
        self._tail: deque[bytes] = deque(maxlen=_TAIL_LINES)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        if self._quiet:
            self._listener.start()

    def _listen(self) -> None:
        stream = _stream(self._process.stderr)
        for line in iter(lambda: stream.readline(_LINE_LIMIT), b""):
            self._tail.append(line)

    def kill(self) -> None:
        """End the process and whatever it started, at once."""
        if self._process.poll() is None:
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def end(self) -> None:
        """Kill, collect and close; safe to call twice."""
        self.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            try:
                _stream(stream).close()
            except OSError:  # flushing a half-sent request to a dead process
                continue
        if self._quiet and self._process.stderr is not None:
            self._listener.join(timeout=1.0)  # an orphan of the child may hold the pipe open
            if not self._listener.is_alive():
                self._process.stderr.close()

    def epitaph(self) -> str:
        """How the process ended and the last thing it said: "SIGSEGV", "exit status 1: Fatal error"."""
        status = self._process.wait()
        if self._quiet:
            self._listener.join(timeout=1.0)
        how = _signal_name(-status) if status < 0 else f"exit status {status}"
        said = [line for line in (raw.decode("utf-8", "replace").strip() for raw in self._tail) if line]
        return f"{how}: {said[-1][:200]}" if said else how


def _stream(stream: IO[bytes] | None) -> Any:
    """A pipe that was asked for is there; ``Popen`` types it as optional."""
    assert stream is not None
    return stream


def _search_path() -> list[str]:
    """Where the child looks for modules: as here, but neither in the current folder nor in relative ones.

    A numpy.py beside a downloaded model must not run.
    """
    here = os.path.realpath(os.getcwd())
    return [entry for entry in sys.path if os.path.isabs(entry) and os.path.realpath(entry) != here]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
