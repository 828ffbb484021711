"""Where a target lies, for readers that know files of a repository and lines in them."""

from __future__ import annotations

import os
import re
from pathlib import PurePath
from urllib.parse import quote

from ..fingerprints import relative
from ..load.target import python_name
from ..report import Report
from .layout import Layout


def identity(report: Report, layout: Layout) -> str:
    """The target's name in fingerprints: the same wherever the repository lies."""
    target, source = report.target, source_of(report)
    is_path = source.endswith(".py") if source else _file(report, layout) is not None
    return _relative(target, layout) if is_path else target


def source_of(report: Report) -> str:
    """The module or .py file that a Python target names; empty for any other target."""
    name = python_name(report.target) if report.format == "torch" else None
    return "" if name is None else name.source


def path_of(report: Report, layout: Layout) -> str | None:
    """The target's file with forward slashes, relative to the layout's folder; None where it has none below it."""
    file = _file(report, layout)
    if file is None:
        return None
    path = _relative(file, layout)
    return None if path.startswith("../") or PurePath(path).is_absolute() else path


def uri_of(report: Report, layout: Layout) -> str | None:
    """The target's file as a URI: relative if it lies below the layout's folder; None where it has none."""
    path, file = path_of(report, layout), _file(report, layout)
    if path is not None or file is None:
        return None if path is None else _quoted(path)
    if not os.path.isabs(layout.start) and not os.path.isabs(file):
        return _quoted(_relative(file, layout))
    absolute = PurePath(os.path.abspath(os.path.join(layout.start, file))).as_posix()
    return f"file://{'' if absolute.startswith('/') else '/'}{_quoted(absolute)}"


def _relative(path: str, layout: Layout) -> str:
    return relative(os.path.join(layout.start, path), layout.folder)


def _file(report: Report, layout: Layout) -> str | None:
    target = report.target
    if source := source_of(report):
        return source if source.endswith(".py") else layout.modules.get(source)
    in_memory = report.format == "torch" and not PurePath(target).suffix  # the name of a class or function
    return None if in_memory or re.fullmatch(r"<\w+>", target) else target


def _quoted(path: str) -> str:
    """Percent-encoded; a colon too, so that no first folder reads as a scheme. Names of files need not be UTF-8."""
    try:
        octets = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        octets = path.encode("utf-8", "surrogatepass")
    return quote(octets, safe="/")
