"""A child process that is none: the same requests and answers, over the same channel, from a thread of this process.

Starting an interpreter costs more than all that a small model asks of it. What only a process can show, as crashes and
limits, tests of sessions show with real ones.
"""

from __future__ import annotations

import os
from contextlib import suppress
from threading import Thread
from typing import Any, BinaryIO

from initlint import session
from initlint.probe import child, wire


class ChildHere:
    """Stands in for what a ``FileSession`` starts."""

    def __init__(self, entry: str) -> None:
        assert entry == session.CHILD, "only the real back end answers here"
        (answers, theirs_to_write), (theirs_to_read, requests) = os.pipe(), os.pipe()
        self.requests, self.answers = os.fdopen(requests, "wb"), os.fdopen(answers, "rb")
        ends = os.fdopen(theirs_to_read, "rb"), os.fdopen(theirs_to_write, "wb")
        self._thread = Thread(target=_serve, args=ends, daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """A thread goes on; nothing here takes as long as the limit."""

    def end(self) -> None:
        with suppress(OSError):
            self.requests.close()
        self._thread.join()
        self.answers.close()

    def epitaph(self) -> str:
        return "its thread ended"


def _serve(requests: BinaryIO, answers: BinaryIO) -> None:
    with requests, answers, suppress(wire.ChannelClosed):
        child._serve(_Requests(requests), answers, child.open_backend)


class _Requests:
    """What the child reads its requests from: a queue, as far as it knows."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def get(self) -> Any:
        return wire.receive(self._stream)
