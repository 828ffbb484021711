"""Where text goes: a stdout that may be a terminal, a file, or a pipe that somebody has closed; and files."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from .closed_streams import discard
from .errors import UsageError
from .files_read import FileRead, is_same_file, refuse_overwriting
from .report import Run
from .reporters import BY_TARGET, FORMATS, render, render_last
from .reporters.layout import ASCII, UNICODE, Detail, Layout, Signs
from .reporters.places import source_of

_LEAST_WIDTH = 40

FILE_LAYOUT_WIDTH = 100

STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
_LARGEST_SUMMARY = 1024**2
"""Bytes: a larger summary is not shown at all (docs.github.com, "Adding a job summary")."""
_LEAST_SUMMARY = 1000
"""Bytes that say more than that there is no room."""


def stdout_layout(color: str, detail: Detail) -> Layout:
    """The layout that this process's stdout calls for; ``color`` is "auto", "always" or "never"."""
    return Layout(
        width=max(shutil.get_terminal_size().columns, _LEAST_WIDTH),
        color=color == "always" or (color == "auto" and _wants_color()),
        signs=_signs(sys.stdout.encoding or "ascii"),
        detail=detail,
    )


def _placed(run: Run, layout: Layout) -> Layout:
    """``layout`` with what this process knows of where things are."""
    return replace(
        layout,
        start=os.getcwd(),
        folder=repository(),
        modules=_modules(run),
        step_summary=bool(os.environ.get(STEP_SUMMARY)),
    )


def repository() -> str:
    """What paths in reports are relative to: the checkout that a pipeline works in, else the current folder.

    GitHub and GitLab look for files from there, wherever in it initlint was started.
    """
    here = Path.cwd()
    for name in ("GITHUB_WORKSPACE", "CI_PROJECT_DIR"):
        checkout = os.environ.get(name)
        if checkout and (here / checkout) in (here, *here.parents):
            return str(here / checkout)
    return str(here)


def _modules(run: Run) -> dict[str, str]:
    """The files of the modules that targets name: as imported, else where an import would look first."""
    named = {source_of(report) for report in run.reports}
    files = {name: _module_file(name) for name in named if name and not name.endswith(".py")}
    return {name: file for name, file in files.items() if file}


def _module_file(name: str) -> str:
    imported = getattr(sys.modules.get(name), "__file__", None)
    if imported:
        return str(imported)
    path = Path(*name.split("."))
    candidates = [folder / file for folder in (Path.cwd(), *map(Path, sys.path)) for file in _files_of_module(path)]
    return next((str(file) for file in candidates if file.is_file()), "")


def _files_of_module(path: Path) -> tuple[Path, Path]:
    return path.with_suffix(".py"), path / "__init__.py"


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


def parse_output_files(given: Sequence[str], read: Sequence[FileRead]) -> list[tuple[str, Path]]:
    """FORMAT=FILE pairs. Raises UsageError, before anything is checked, for what could not be written afterwards, or
    would overwrite what the run reads."""
    files: list[tuple[str, Path]] = []
    for pair in given:
        name, equals, file = pair.partition("=")
        if not equals or name not in FORMATS or not file:
            raise UsageError(f"--output-file {pair}: has to be FORMAT=FILE, FORMAT being {', '.join(FORMATS)}")
        path = Path(file)
        if not path.parent.is_dir():
            raise UsageError(f"--output-file {pair}: there is no folder {path.parent}; create it first")
        if path.is_dir():
            raise UsageError(f"--output-file {pair}: {path} is a folder; name a file in it")
        refuse_overwriting(path, f"--output-file {pair}:", read)
        if any(is_same_file(path, other) for _, other in files):
            raise UsageError(f"--output-file {pair}: another format goes to the same file; name two files")
        files.append((name, path))
    return files


@dataclass(frozen=True)
class Stdout:
    """What stdout gets of a run: its reports in one format, or counts per rule in their place."""

    layout: Layout
    output_format: str = "text"
    statistics: bool = False

    @property
    def is_for_people(self) -> bool:
        """Whether it tells of targets that failed in their own words."""
        return self.output_format == "text" and not self.statistics

    def show_last(self, run: Run) -> None:
        """Write the last report of ``run``, in a format that goes target by target."""
        if self.is_for_people:
            from .reporters.as_text import render_report

            write(render_report(run.reports[-1], self.layout), self.layout.color)
        elif self.output_format in BY_TARGET:
            write(render_last(run, self.output_format, _placed(Run(run.reports[-1:]), self.layout)))

    def show_each(self, run: Run) -> None:
        """Write all reports as they would be shown one by one."""
        for i in range(len(run.reports)):
            self.show_last(Run(run.reports[: i + 1]))

    def show_whole(self, run: Run) -> None:
        """Write what is said of all targets together, after what went target by target."""
        if self.output_format == "text":
            from .reporters.as_text import render_statistics, render_summary

            counts = render_statistics(run, self.layout) if self.statistics else ""
            write(counts + render_summary(run, self.layout), self.layout.color)
        elif self.output_format not in BY_TARGET:
            write(render(run, self.output_format, _placed(run, self.layout)))


def write_files(run: Run, files: Sequence[tuple[str, Path]], detail: Detail) -> None:
    if not files:
        return
    layout = _placed(run, Layout(width=FILE_LAYOUT_WIDTH, detail=detail))
    for name, path in files:
        text = render(run, name, layout)
        try:
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError as fault:
            raise UsageError(f"{path} cannot be written: {fault.strerror or fault}") from fault


def write_step_summary(run: Run) -> Iterator[str]:
    """Append ``run`` to the summary of the GitHub step, where there is one, and tell what hinders that: it is no fault
    of the run."""
    file = os.environ.get(STEP_SUMMARY)
    if not file:
        return
    from .reporters.as_markdown import comment

    try:
        with open(file, "ab") as summary:
            gap = b"\n\n" if summary.tell() else b""  # else the first line would go on with a list that ends the file
            room = _LARGEST_SUMMARY - summary.tell() - len(gap)
            if room >= _LEAST_SUMMARY:
                summary.write(gap + comment(run, room, Detail.VERBOSE).encode("utf-8", "backslashreplace"))
            else:
                yield "the step summary is full, so nothing was added to it"
    except OSError as fault:
        yield f"the step summary cannot be written: {fault.strerror or fault}"
