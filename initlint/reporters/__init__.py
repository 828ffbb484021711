"""Reporters turn a Run into text of one format; they know nothing but the Report.

Each format is a module with ``render(run, layout) -> str``, imported when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..report import Run
    from .layout import Layout

FORMATS = {
    "text": "as_text",
    "concise": "as_concise",
    "json": "as_json",
    "json-lines": "as_json_lines",
    "sarif": "as_sarif",
    "github": "as_github",
    "gitlab": "as_gitlab",
    "junit": "as_junit",
    "markdown": "as_markdown",
}
"""Format name -> module of this package. This is the only list of formats: options and messages read it."""


def render(run: Run, output_format: str, layout: Layout) -> str:
    """``run`` in one of FORMATS, ending with a newline unless it is empty."""
    text: str = import_module(f".{FORMATS[output_format]}", __name__).render(run, layout)
    return text


BY_TARGET = ("concise", "json-lines")
"""Formats for programs whose lines can be written as soon as a target is done: they have a ``render_last``."""


def render_last(run: Run, output_format: str, layout: Layout) -> str:
    """What ``render`` says of the last report, in one of BY_TARGET."""
    text: str = import_module(f".{FORMATS[output_format]}", __name__).render_last(run, layout)
    return text
