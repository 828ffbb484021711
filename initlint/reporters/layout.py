"""How a reporter may lay its text out, and with which signs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum


class Detail(IntEnum):
    QUIET = 0
    """Findings and the summary."""
    NORMAL = 1
    VERBOSE = 2
    """Also the layer table, every folded finding, every reason."""


@dataclass(frozen=True, slots=True)
class Signs:
    """The few signs that not every encoding carries."""

    dot: str
    times: str
    ellipsis: str
    levels: str
    """From the lowest to the highest level of a sparkline."""


UNICODE = Signs(dot="·", times="\N{MULTIPLICATION SIGN}", ellipsis="…", levels="▁▂▃▄▅▆▇█")
ASCII = Signs(dot="|", times="x", ellipsis="...", levels="_.-:=+*#")


@dataclass(frozen=True, slots=True)
class Layout:
    width: int = 80
    color: bool = False
    signs: Signs = UNICODE
    detail: Detail = Detail.NORMAL
    start: str = ""
    """The folder that relative targets start from."""
    folder: str = ""
    """What paths in a report are relative to; where both are empty, paths stay as they are."""
    modules: Mapping[str, str] = field(default_factory=dict)
    """The files of the Python modules that targets name."""
    step_summary: bool = True
    """Whether what GitHub has no annotations for can be read in the step's summary."""
