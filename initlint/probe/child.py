"""The child process: it alone parses, loads and runs a model, and answers one request after the other.

``start`` is what the parent runs in a fresh interpreter (see ``initlint.session``). Requests and answers are messages
of ``wire``: ``("open", source)``, ``("stats",)``, ``("probe", settings, edits)``; the answer is ``("ok", value)`` or
``("error", kind, message)``. There is no request to end: the child ends when its standard input does, hence also when
the parent dies, and also while it is computing.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from ..errors import FailureKind, TargetError
from ..fixes import Fix
from ..load.target import TargetKind, kind_of
from ..model import Model
from ..settings import ProbeSettings
from ..stats import WeightStats
from . import wire
from .signals import Signals

if TYPE_CHECKING:
    import numpy as np

    from ..load.from_onnx import Opened
    from .on_onnx import OnnxProbe

Source = Path | bytes
"""A model file, or a serialised model."""


class Backend(Protocol):
    """An opened model as the child sees it."""

    @property
    def model(self) -> Model: ...

    def stats(self) -> Mapping[str, WeightStats]: ...

    def edited_stats(self, edits: Sequence[Fix], seed: int) -> Mapping[str, WeightStats]: ...

    def probe(self, settings: ProbeSettings, edits: Sequence[Fix]) -> Signals: ...


Opener = Callable[[Source], Backend]


class OnnxBackend:
    """An ONNX model: the loader, the statistics and the onnxruntime probe behind one door."""

    def __init__(self, source: Source) -> None:
        from ..load.from_onnx import open_onnx

        self._opened: Opened = open_onnx(source)
        self._probe: OnnxProbe | None = None
        self._stats: Mapping[str, WeightStats] | None = None

    @property
    def model(self) -> Model:
        return self._opened.model

    def stats(self) -> Mapping[str, WeightStats]:
        from ..measure import measure_all

        if self._stats is None:
            self._stats = measure_all(self.model, self._opened.chunks)
        return self._stats

    def edited_stats(self, edits: Sequence[Fix], seed: int) -> Mapping[str, WeightStats]:
        from .edits import edited_stats

        return edited_stats(self.model, self._opened.chunks, edits, seed, self._opened.made_anew)

    def probe(self, settings: ProbeSettings, edits: Sequence[Fix]) -> Signals:
        from .on_onnx import OnnxProbe

        if self._probe is None:
            self._probe = OnnxProbe(self._opened)
        changed = self._changed(edits, settings.seed)
        overrides = dict(self._opened.stored(address, values) for address, values in changed.items())
        signals = self._probe.run(settings, overrides)
        if not (settings.backward or settings.liveness):
            return signals
        return self._probe.differentiate(signals, self._stats_with(changed), settings.liveness)

    def _changed(self, edits: Sequence[Fix], seed: int) -> Mapping[str, np.ndarray]:
        """Canonical rows of the tensors that ``edits`` change, by address."""
        if not edits:
            return {}
        from .edits import edited

        return edited(self.model, self._opened.chunks, edits, seed)

    def _stats_with(self, changed: Mapping[str, np.ndarray]) -> Mapping[str, WeightStats]:
        """Statistics of the weights, of those that were changed as they are now."""
        if not changed:
            return self.stats()
        from ..measure import measure_all
        from .edits import dependents

        rows = {**changed, **self._opened.made_anew(changed, dependents(self.model, changed))}
        every = (*self.model.tensors, *self.model.leaves)
        anew = measure_all(self.model, lambda address: [rows[address]], [t for t in every if t.address in rows])
        return {**self.stats(), **anew}


def open_backend(source: Source) -> Backend:
    """By the suffix of the file; bytes are ONNX."""
    if isinstance(source, Path) and kind_of(source) is TargetKind.WEIGHTS:
        from ..load.from_weights import NO_NETWORK, open_weights
        from .unrun import UnrunSession

        opened = open_weights(source)
        return UnrunSession(opened.model, opened.chunks, NO_NETWORK)
    return OnnxBackend(source)


def start(opener: Opener = open_backend) -> None:
    """Answer requests until standard input ends, then end the process without the clean-up of native libraries."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy works on cache-sized blocks; threads slow these down
    requests, answers = _take_channel()
    pending: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, pending), daemon=True).start()
    try:
        _serve(pending, answers, opener)
    finally:
        sys.stderr.flush()
        os._exit(1)


def _take_channel() -> tuple[BinaryIO, BinaryIO]:
    """Keep standard input and output for messages; whoever prints or reads from now on reaches stderr and nothing."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return requests, answers


def _listen(requests: BinaryIO, pending: queue.SimpleQueue[tuple[Any, ...]]) -> None:
    """Pass requests on; at the end of the stream nobody waits for an answer, so end at once."""
    try:
        while True:
            pending.put(wire.receive(requests))
    except wire.ChannelClosed:
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - the main thread waits for messages that will never come
        traceback.print_exception(error)
        os._exit(1)


def _serve(pending: queue.SimpleQueue[tuple[Any, ...]], answers: BinaryIO, opener: Opener) -> None:
    backend: Backend | None = None
    while True:
        verb, *arguments = pending.get()
        try:
            if verb == "open":
                backend = opener(arguments[0])
                answer: tuple[Any, ...] = ("ok", backend.model)
            elif backend is None:
                answer = ("error", FailureKind.CRASHED.value, "the model was not opened")
            elif verb == "stats":
                answer = ("ok", backend.stats())
            elif verb == "edited_stats":
                answer = ("ok", backend.edited_stats(*arguments))
            else:
                answer = ("ok", backend.probe(*arguments))
        except BaseException as error:  # noqa: BLE001 - whatever a model provokes is an answer, not an end
            answer = _failure(error, verb)
        try:
            wire.send(answers, answer)
        except TypeError as error:  # raised before the first byte is written: something that wire does not know
            wire.send(answers, _failure(error, verb))


def _failure(error: BaseException, verb: str) -> tuple[str, str, str]:
    """What the parent is told; the traceback goes to stderr, which it shows under INITLINT_DEBUG=1 only."""
    if isinstance(error, TargetError):
        return ("error", error.kind.value, str(error))
    traceback.print_exception(error)
    if isinstance(error, MemoryError):
        advice = "; give a smaller --batch, or smaller inputs" if verb == "probe" else ""
        return ("error", FailureKind.LIMIT.value, f"the model needs more memory than there is{advice}")
    text = " ".join(f"{type(error).__name__}: {error}".split())[:_QUOTE]
    message = f"initlint itself failed ({text}); please report this, with the output under INITLINT_DEBUG=1"
    return ("error", FailureKind.CRASHED.value, message)


_QUOTE = 300
"""Characters of a foreign error message that fit into one sentence."""
