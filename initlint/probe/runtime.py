"""onnxruntime as the probe wants it: silent, unoptimised, in an order that frees memory early."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Any

import onnxruntime as ort

from .payload import Array

_FATAL = 4
"""onnxruntime's log severity above which nothing is printed."""

_PREFIX = re.compile(r"^\s*\[ONNXRuntimeError\] : \d+ : \w+ : ")
_FAILED_NODE = re.compile(
    r"Non-zero status code returned while running (?P<op>\S+) node\. "
    r"Name:'(?P<name>[^']*)' Status Message: (?P<why>.*)",
    re.DOTALL,
)
_SOURCE_PLACE = re.compile(r"/\S+\.(?:cc|h):\d+ .*?\)(?: const)? (?=[A-Za-z_\"']+ )|\S+\.(?:cc|h):\d+ ?")
_NEWEST_OPSET = re.compile(r"support for domain ai\.onnx is till opset (\d+)")
_LONGEST_REASON = 240
"""Characters of a runtime's complaint that still read as part of a sentence."""


class RuntimeFailure(Exception):
    """onnxruntime could not run the graph; the message is part of a sentence."""


class LoadFailure(RuntimeFailure):
    """onnxruntime could not even load the graph: other inputs would not help."""

    def __init__(self, reason: str, newest_opset: int | None = None) -> None:
        super().__init__(reason)
        self.newest_opset = newest_opset
        """The newest opset that this onnxruntime accepts, where that was the reason."""


class Session:
    """One loaded graph."""

    def __init__(self, serialised: bytes, outputs: Sequence[str]) -> None:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        self._outputs = list(outputs)
        try:
            self._session = ort.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors share no other base
            newest = _NEWEST_OPSET.search(str(error))
            raise LoadFailure(explain(error), int(newest[1]) if newest else None) from None

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Any]:
        options = ort.RunOptions()
        options.log_severity_level = _FATAL
        # What a run has allocated goes back when it ends: the next one may belong to another session.
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        wanted = {value.name for value in self._session.get_inputs()}
        try:
            results = self._session.run(
                self._outputs, {name: array for name, array in feeds.items() if name in wanted}, options
            )
        except Exception as error:  # noqa: BLE001 - as above
            raise RuntimeFailure(explain(error)) from None
        return dict(zip(self._outputs, results, strict=True))


def explain(error: Exception) -> str:
    """The runtime's complaint in one line, without its own source files."""
    text = _PREFIX.sub("", str(error))
    failed = _FAILED_NODE.search(text)
    if failed:
        text = f"{failed['op']}{' at ' if failed['name'] else ''}{failed['name']}: {failed['why']}"
    text = _SOURCE_PLACE.sub("", " ".join(text.split()))
    return shorten(text, _LONGEST_REASON, placeholder=" ...").rstrip(" .")
