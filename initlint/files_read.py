"""The files that a run reads: no report may be written over them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from . import local_rules
from .baseline import Baseline
from .configuration import each_override
from .errors import UsageError
from .hook import DATA_FILE
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
    for path in _external_data([_file(target) for target in targets]):
        yield "the external data of a target", path
    if baseline is not None:
        yield "the baseline", baseline.path
    for source in settings.sources:
        if source.file is not None:
            yield "the configuration", source.file
    for path in settings.rule_files:
        yield from (("a rule file", file) for file in local_rules.files(path))
    for probe in (each.probe for each in (settings, *each_override(settings))):
        for what, given in (("the inputs", probe.inputs), ("the loss", probe.loss)):
            if isinstance(given, str):
                yield what, _file(given)


def _external_data(models: Sequence[Path]) -> Iterator[Path]:
    """Weights beside the models, by their names."""
    beside: dict[Path, set[str]] = {}
    for model in models:
        beside.setdefault(model.parent, set()).add(model.name)
    for folder, names in beside.items():  # each is listed once, however many models are in it
        for path in folder.glob("*"):
            if (match := DATA_FILE.fullmatch(path.name)) and match["model"] in names:
                yield path


def _file(text: str) -> Path:
    """The file of "model.onnx" and of "net.py:build"."""
    name = python_name(text)
    return Path(name.source if name is not None and name.is_file else text)


def refuse_overwriting(path: Path, told: str, read: Iterable[FileRead]) -> None:
    """Raises UsageError, which begins with ``told``, if ``path`` is one of the files ``read``."""
    for what, other in read:
        if is_same_file(path, other):
            raise UsageError(f"{told} would overwrite {what}; name another file")


def is_same_file(one: Path, other: Path) -> bool:
    """Whether both name one file, be it there or still to be written."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False
