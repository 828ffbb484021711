"""Readers of single settings: from what TOML, the command line or Python gave to what ``settings`` promises.

A reader takes the value and its ``Place`` and raises ``UsageError`` naming that place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from .errors import UsageError
from .load.target import python_name
from .plugin import Severity
from .report import FAIL_NEVER
from .settings import SEEDS, Allow
from .spelling import did_you_mean
from .target_names import shown

THRESHOLDS: Mapping[str, int] = {**{str(severity): severity for severity in reversed(Severity)}, "never": FAIL_NEVER}

INPUT_SUFFIXES = (".npz", ".safetensors")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value was written."""

    label: str
    folder: Path

    def fault(self, expected: str, value: object) -> UsageError:
        return UsageError(f"{self.label} has to be {expected}, not {value!r}")

    def at(self, name: str) -> Place:
        return Place(f"{self.label}.{name}", self.folder)

    def entry(self, number: int) -> Place:
        return Place(f"{self.label}, entry {number}", self.folder)


Reader = Callable[[object, Place], Any]


def rule_names(value: object, place: Place) -> tuple[str, ...]:
    """Names of rules and categories; one string may hold several, separated by commas."""
    listed = _texts(value, "a list of rule names and categories", place)
    return tuple(name.strip() for item in listed for name in item.split(",") if name.strip())


def globs(value: object, place: Place) -> tuple[str, ...]:
    """Patterns of layer names and addresses."""
    return tuple(_texts(value, "a list of patterns such as encoder.*", place))


def threshold(value: object, place: Place) -> int:
    """The name of a severity, or "never"."""
    name = str(value)
    if name not in THRESHOLDS:
        raise place.fault(f"one of {', '.join(THRESHOLDS)}", value)
    return THRESHOLDS[name]


def negated(value: object, place: Place) -> bool:
    """The opposite of a boolean."""
    if not isinstance(value, bool):
        raise place.fault("true or false", value)
    return not value


def seed(value: object, place: Place) -> int:
    """An integer that every generator takes."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < SEEDS:
        raise place.fault("a whole number of at least 0 and at most 2**64-1", value)
    return value


LARGEST_SIZE = 2**31 - 1
"""Of a batch or a dimension: runtimes count in 32 bits here and there, and one float a sample is 8 GB already."""


def size(value: object, place: Place) -> int:
    """The size of a dimension, which may be 0."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_SIZE:
        raise place.fault(f"a whole number of at least 0 and at most {LARGEST_SIZE}", value)
    return value


def batch(value: object, place: Place) -> int:
    """A number of samples."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST_SIZE:
        raise place.fault(f"a whole number of at least 1 and at most {LARGEST_SIZE}", value)
    return value


def _spelt(digits: str, place: Place) -> int:
    """The size that ``digits`` spell; Python refuses to convert thousands of them."""
    digits = digits.lstrip("0") or "0"
    if len(digits) > len(str(LARGEST_SIZE)):
        raise place.fault(f"made of sizes of at most {LARGEST_SIZE}", digits[:30])
    return size(int(digits), place)


def seconds(value: object, place: Place) -> float:
    """A positive number of seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise place.fault("a positive number of seconds", value)
    return float(value)


def inputs(value: object, place: Place) -> Any:
    """A path of a file with arrays, made absolute; "pkg.mod:function"; arrays by input name, one alone going by "";
    a tuple of positional ones."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (list, tuple)):
        return tuple(value)
    if not isinstance(value, (str, Path)):
        return {"": value}
    name = python_name(str(value))
    if name is not None:
        return f"{place.folder / name.source}:{name.attribute}" if name.is_file else str(name)
    path = place.folder / value
    if path.suffix not in INPUT_SUFFIXES:
        raise place.fault(f"a file of arrays ({' or '.join(INPUT_SUFFIXES)}) or pkg.mod:function", str(value))
    if not path.is_file():
        raise UsageError(f"{place.label}: no such file: {value}")
    return str(path.resolve())


def loss(value: object, place: Place) -> Any:
    """A function, or the name of one: "pkg.mod:function"."""
    if callable(value):
        return value
    name = python_name(value) if isinstance(value, str) else None
    if name is None:
        raise place.fault("a function of the model's output, as pkg.mod:function", value)
    return f"{place.folder / name.source}:{name.attribute}" if name.is_file else str(name)


def switch(value: object, place: Place) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise place.fault("true or false", value)
    return value


def builder_arguments(value: object, place: Place) -> dict[str, Any]:
    """A mapping, or the text of a JSON object."""
    expected = 'a JSON object such as {"width": 64}'
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{place.label} has to be {expected}: {error}") from None
    if not isinstance(value, Mapping):
        raise place.fault(expected, value)
    return {str(name): each for name, each in value.items()}


def device(value: object, place: Place) -> str:
    """The name of a device, or a torch.device; "" leaves a module where it is."""
    if not isinstance(value, str) and type(value).__name__ != "device":  # torch.device; torch is not imported for it
        raise place.fault('a device such as "cpu" or "cuda:0"', value)
    return str(value)


def shapes(value: object, place: Place) -> dict[str, tuple[int, ...]]:
    """{"x": [1, 3, 224, 224]}, or strings such as "x:1x3x224x224"; "" names a model's only input."""
    if isinstance(value, Mapping):
        return {str(name): _shape(sizes, place.at(str(name))) for name, sizes in value.items()}
    found: dict[str, tuple[int, ...]] = {}
    for text in _texts(value, "a shape such as x:1x3x224x224", place):
        name, _, sizes = text.rpartition(":")
        found[name] = _shape(sizes, place)
    return found


def _shape(sizes: object, place: Place) -> tuple[int, ...]:
    if isinstance(sizes, str):
        text = sizes.replace(" ", "")
        parts = [] if text == "[]" else text.removeprefix("[").removesuffix("]").replace("x", ",").split(",")
        if not all(part.isascii() and part.isdigit() for part in parts):
            raise place.fault("a shape such as 1x3x224x224 or [1,3,224,224]", sizes)
        return tuple(_spelt(part, place) for part in parts)
    if not isinstance(sizes, (list, tuple)):
        raise place.fault("a list of sizes such as [1, 3, 224, 224]", sizes)
    return tuple(size(each, place) for each in sizes)


def dims(value: object, place: Place) -> dict[str, int]:
    """{"batch": 8}, or strings such as "batch=8"."""
    if isinstance(value, Mapping):
        return {str(name): size(each, place.at(str(name))) for name, each in value.items()}
    found: dict[str, int] = {}
    for text in _texts(value, "a dimension and its size, as in batch=8", place):
        name, _, digits = text.rpartition("=")
        if not name or not (digits.isascii() and digits.isdigit()):
            raise place.fault("a dimension and its size, as in batch=8", text)
        found[name] = _spelt(digits, place)
    return found


def rule_tables(value: object, place: Place) -> dict[str, dict[str, Any]]:
    """{rule name: {option: value}}; ``catalog.options_of`` checks them against the rules."""
    if not isinstance(value, Mapping):
        raise place.fault("tables such as [tool.initlint.rules.zero-weights]", value)
    found = {}
    for name, table in value.items():
        if not isinstance(table, Mapping):
            raise place.at(str(name)).fault("a table of options", table)
        found[str(name)] = dict(table)
    return found


def allowances(value: object, place: Place) -> tuple[Allow, ...]:
    """Tables with rule, at, reason and perhaps target and until."""
    if not isinstance(value, (list, tuple)):
        raise place.fault("an array of tables, as in [[tool.initlint.allow]]", value)
    return tuple(_allowance(table, place.entry(i)) for i, table in enumerate(value, 1))


def _allowance(table: object, place: Place) -> Allow:
    if isinstance(table, Allow):
        return table
    if not isinstance(table, Mapping):
        raise place.fault("a table with rule, at and reason", table)
    known = ("rule", "at", "reason", "target", "until")
    for name, value in table.items():
        if name not in known:
            raise UsageError(f'{place.label}: unknown key "{name}"{did_you_mean(str(name), known)}')
        if name != "until" and (not isinstance(value, str) or not value.strip()):
            raise place.at(str(name)).fault("a string that says something", value)
    missing = [name for name in known[:3] if name not in table]
    if missing:
        raise UsageError(f'{place.label}: "{missing[0]}" is missing; an exception names rule, at and reason')
    until = table.get("until")
    texts = {name: value for name, value in table.items() if name != "until"}
    day = None if until is None else _day(until, place.at("until"))
    return Allow(**texts, until=day, place=place.label, folder=place.folder.absolute())


def _day(value: object, place: Place) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        if isinstance(value, str) and len(value) == len("2030-12-31"):
            return datetime.strptime(value, "%Y-%m-%d").date()
    except ValueError:
        pass
    shown = value if isinstance(value, (str, int, float, bool)) else str(value)
    raise place.fault("a date such as 2030-12-31", shown)


def path(value: object, place: Place) -> Path:
    """A path, made absolute."""
    if not isinstance(value, (str, Path)) or not str(value).strip():
        raise place.fault("the path of a file", value)
    return (place.folder / value).absolute()


def rule_files(value: object, place: Place) -> tuple[Path, ...]:
    """Folders and .py files, made absolute."""
    listed = _texts(value, 'a list of folders and files such as "lint_rules/"', place)
    paths = tuple((place.folder / text).absolute() for text in listed)
    for text, file in zip(listed, paths, strict=True):
        if not file.is_dir() and not (file.is_file() and file.suffix == ".py"):
            raise UsageError(f"{place.label}: there is no folder and no .py file {text}")
    return paths


def targets(value: object, place: Place) -> tuple[str, ...]:
    """Files, patterns of files, names of Python objects; files as seen from the current folder."""
    found = []
    for text in _texts(value, "a list of targets such as models/*.onnx or pkg.mod:build", place):
        name = python_name(text)
        if name is None:
            found.append(shown(place.folder / text))
        else:
            found.append(f"{shown(place.folder / name.source)}:{name.attribute}" if name.is_file else text)
    return tuple(found)


def _texts(value: object, expected: str, place: Place) -> list[str]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)) or not all(isinstance(item, str) for item in listed):
        raise place.fault(expected, value)
    return list(listed)


def joined(earlier: Any, later: Any) -> Any:
    """What two origins say together: tuples one after the other, mappings key by key with the later one winning."""
    if isinstance(earlier, Mapping):
        both = earlier.keys() & later.keys()
        nested = {key: joined(earlier[key], later[key]) for key in both if isinstance(earlier[key], Mapping)}
        return {**earlier, **later, **nested}
    return (*earlier, *(item for item in later if item not in earlier))
