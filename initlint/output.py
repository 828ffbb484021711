"""Where text goes: a stdout that may be a terminal, a file, or a pipe that somebody has closed; and files."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from .closed_streams import discard
from .errors import UsageError
from .report import Run
from .reporters import FORMATS, render
from .reporters.layout import ASCII, UNICODE, Detail, Layout, Signs

_LEAST_WIDTH = 40

FILE_LAYOUT_WIDTH = 100


def stdout_layout(color: str, detail: Detail) -> Layout:
    """The layout that this process's stdout calls for; ``color`` is "auto", "always" or "never"."""
    return Layout(
        width=max(shutil.get_terminal_size().columns, _LEAST_WIDTH),
        color=color == "always" or (color == "auto" and _wants_color()),
        signs=_signs(sys.stdout.encoding or "ascii"),
        detail=detail,
    )


def _wants_color() -> bool:
    """The customs of no-color.org and force-color.org."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _signs(encoding: str) -> Signs:
    try:
        f"{UNICODE.dot}{UNICODE.times}{UNICODE.ellipsis}{UNICODE.levels}".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def write(text: str, color: bool = False) -> None:
    """Write to stdout. Who reads may have gone (`initlint model.onnx | head`): that is no fault. Raises UsageError
    where the text cannot be written otherwise, as to a full disk."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    try:
        click.echo(text, nl=False, color=color)
    except BrokenPipeError:
        discard(sys.stdout)
    except OSError as fault:
        discard(sys.stdout)
        raise UsageError(f"the report cannot be written to stdout: {fault.strerror or fault}") from fault


def parse_output_files(given: Sequence[str], targets: Sequence[str]) -> list[tuple[str, Path]]:
    """FORMAT=FILE pairs. Raises UsageError, before anything is checked, for what could not be written afterwards."""
    files = []
    for pair in given:
        name, equals, file = pair.partition("=")
        if not equals or name not in FORMATS or not file:
            raise UsageError(f"--output-file {pair}: has to be FORMAT=FILE, FORMAT being {', '.join(FORMATS)}")
        path = Path(file)
        if not path.parent.is_dir():
            raise UsageError(f"--output-file {pair}: there is no folder {path.parent}; create it first")
        if path.is_dir():
            raise UsageError(f"--output-file {pair}: {path} is a folder; name a file in it")
        if path.exists() and any(Path(target).exists() and path.samefile(target) for target in targets):
            raise UsageError(f"--output-file {pair}: would overwrite a target; name another file")
        files.append((name, path))
    return files


def write_files(run: Run, files: Sequence[tuple[str, Path]], detail: Detail) -> None:
    for name, path in files:
        text = render(run, name, Layout(width=FILE_LAYOUT_WIDTH, detail=detail))
        try:
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError as fault:
            raise UsageError(f"{path} cannot be written: {fault.strerror or fault}") from fault
