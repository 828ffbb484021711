"""The files that a run reads: no report may be written over them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from .baseline import Baseline
from .configuration import each_override
from .load.target import python_name
from .settings import Settings

FileRead = tuple[str, Path]
"""What a message calls the file ("a target"), and where it is."""


def files_read(targets: Sequence[str], settings: Settings, baseline: Baseline | None) -> tuple[FileRead, ...]:
    """All files that are read, or written besides reports, as far as the settings name them."""
    return tuple(_files(targets, settings, baseline))


def _files(targets: Sequence[str], settings: Settings, baseline: Baseline | None) -> Iterator[FileRead]:
    for target in targets:
        yield "a target", _file(target)
    if baseline is not None:
        yield "the baseline", baseline.path
    for source in settings.sources:
        if source.file is not None:
            yield "the configuration", source.file
    for path in settings.rule_files:
        yield "a rule file", path
    for probe in (each.probe for each in (settings, *each_override(settings))):
        for what, given in (("the inputs", probe.inputs), ("the loss", probe.loss)):
            if isinstance(given, str):
                yield what, _file(given)


def _file(text: str) -> Path:
    """The file of "model.onnx" and of "net.py:build"."""
    name = python_name(text)
    return Path(name.source if name is not None and name.is_file else text)


def is_same_file(one: Path, other: Path) -> bool:
    """Whether both name one file, be it there or still to be written."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False
