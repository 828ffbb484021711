"""What a target is called where a folder of its own has to make no difference: by patterns, and by a baseline; and what
messages call a file."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path

from .load.target import python_name


def file_name(target: str) -> str:
    """The target without its folder: "model.onnx", "net.py:build". The name of a Python object is what it is."""
    path, rest = _parted(target)
    return target if path is None else path.name + rest


def seen_from(target: str, folder: Path) -> str:
    """The target's path as seen from ``folder``, with slashes; the file's name alone where no way leads there."""
    path, rest = _parted(target)
    if path is None:
        return target
    try:
        return Path(os.path.relpath(_resolved(path), folder.resolve())).as_posix() + rest
    except ValueError:  # another drive
        return path.name + rest


def shown(path: Path) -> str:
    """The path as seen from the current folder where it lies below it, be that by what links lead to."""
    try:
        here = Path.cwd()
        for way in (path.absolute(), _resolved(path.absolute())):
            if way.is_relative_to(here):
                return str(way.relative_to(here))
    except (OSError, ValueError):  # there is no current folder any more, or no file has such a name
        pass
    return str(path)


def target_matches(target: str, pattern: str, folder: Path) -> bool:
    """Whether ``pattern`` means ``target``: its text, its path as seen from ``folder``, or, for a pattern without a
    slash, the file's name in whatever folder."""
    path, rest = _parted(target)
    names = [target]
    if path is not None:
        names += [path.as_posix() + rest, _resolved(path).as_posix() + rest, seen_from(target, folder)]
        names += [path.name + rest] if "/" not in pattern else []
    pattern = pattern.removeprefix("./")
    return any(name == pattern or fnmatchcase(name, pattern) for name in names)


def _parted(target: str) -> tuple[Path | None, str]:
    """The file's path and what follows it (":build"); no path for the name of a Python object in a module."""
    name = python_name(target)
    if name is None:
        return Path(target), ""
    return (Path(name.source), f":{name.attribute}") if name.is_file else (None, target)


def _resolved(path: Path) -> Path:
    """Absolute, without following a link at the end: a model that links elsewhere still lies where it is named."""
    return Path(os.path.realpath(path.parent)) / path.name
