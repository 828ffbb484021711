"""Reporters turn a Run into text of one format; they know nothing but the Report.

Each format is a module with ``render(run, layout) -> str``, imported when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..report import Run
    from .layout import Layout

FORMATS = {"text": "as_text", "concise": "as_concise", "json": "as_json"}
"""Format name -> module of this package."""


def render(run: Run, output_format: str, layout: Layout) -> str:
    """``run`` in one of FORMATS, ending with a newline unless it is empty."""
    text: str = import_module(f".{FORMATS[output_format]}", __name__).render(run, layout)
    return text
