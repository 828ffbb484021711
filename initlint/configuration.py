"""Where settings come from: initlint.toml or ``[tool.initlint]`` in pyproject.toml, the command line, a Python call.

Each origin is a mapping of the keys below. They are checked alike and merged, later over earlier; every fault is a
``UsageError`` that names the origin and the key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from . import values
from .errors import UsageError
from .load.target import python_name
from .settings import Origin, Override, ProbeSettings, Settings
from .spelling import did_you_mean
from .target_names import shown

FILE_NAMES = ("initlint.toml", "pyproject.toml")
"""In the order of precedence within one folder."""


@dataclass(frozen=True, slots=True)
class Key:
    """How the value of one key is read, and where it goes: a field of Settings, or of ProbeSettings."""

    field: str
    read: values.Reader
    probe: bool = False
    adds: bool = False
    """A later origin adds to what an earlier one said instead of replacing it."""


def overrides(value: object, place: values.Place) -> tuple[Override, ...]:
    """Tables with a target pattern and what holds for the targets that match it."""
    if not isinstance(value, (list, tuple)):
        raise place.fault("an array of tables, as in [[tool.initlint.overrides]]", value)
    return tuple(_override(table, place.entry(i)) for i, table in enumerate(value, 1))


def _override(table: object, place: values.Place) -> Override:
    if isinstance(table, Override):
        return table
    if not isinstance(table, Mapping):
        raise place.fault("a table with target and what holds for it", table)
    target = table.get("target")
    if not isinstance(target, str) or not target.strip():
        raise place.at("target").fault("a pattern of targets such as models/*.onnx", target)
    said = {name: value for name, value in table.items() if name != "target"}
    for name, each in said.items():
        if name in FOR_ALL_TARGETS and not (name == "rules" and isinstance(each, Mapping)):
            raise UsageError(f"{place.label}: {name} cannot differ from target to target; {FOR_ALL_TARGETS[name]}")
    return Override(target, origin(place.label, said, place.folder), place.folder)


FOR_ALL_TARGETS: Mapping[str, str] = {
    "allow": "give the exception a target instead",
    "baseline": "one file holds the findings of all targets",
    "overrides": "write another [[tool.initlint.overrides]] instead",
    "rule-files": "name them for all targets and select the rules here",
    "rules": "name the files for all targets and select the rules here",
    "targets": "name them for the whole run",
    "trust": "give --trust instead",
}
"""Keys that an override cannot hold, and what to do."""

KEYS: Mapping[str, Key] = {
    "select": Key("select", values.rule_names),
    "extend-select": Key("extend_select", values.rule_names, adds=True),
    "ignore": Key("ignore", values.rule_names, adds=True),
    "layers": Key("layers", values.globs),
    "exclude-layers": Key("exclude_layers", values.globs, adds=True),
    "fail-on": Key("fail_on", values.threshold),
    "no-probe": Key("enabled", values.negated, probe=True),
    "inputs": Key("inputs", values.inputs, probe=True),
    "input-shape": Key("shapes", values.shapes, probe=True, adds=True),
    "dims": Key("dims", values.dims, probe=True, adds=True),
    "batch": Key("batch", values.batch, probe=True),
    "seed": Key("seed", values.seed, probe=True),
    "kwargs": Key("kwargs", values.builder_arguments, probe=True),
    "loss": Key("loss", values.loss, probe=True),
    "trust": Key("trust", values.switch, probe=True),
    "device": Key("device", values.device, probe=True),
    "wall-seconds": Key("wall_seconds", values.seconds, probe=True),
    "targets": Key("targets", values.targets),
    "baseline": Key("baseline", values.path),
    "rule-files": Key("rule_files", values.rule_files, adds=True),
    "rules": Key("options", values.rule_tables, adds=True),
    "allow": Key("allow", values.allowances, adds=True),
    "overrides": Key("overrides", overrides, adds=True),
}

RESETS: Mapping[str, tuple[str, ...]] = {"select": ("extend-select", "ignore")}
"""Who selects anew on the command line is not bound by what the file extends or ignores."""


def find(start: Path) -> Path | None:
    """The nearest configuration in ``start`` or above it; a pyproject.toml counts only if it speaks of initlint."""
    for folder in (start, *start.parents):
        for name in FILE_NAMES:
            path = folder / name
            if path.is_file() and (name != "pyproject.toml" or _table(path) is not None):
                return path
    return None


def read(path: Path) -> Origin:
    """The settings of a file. Raises UsageError where it cannot be read or says something unknown."""
    table = _table(path)
    if table is None:
        raise UsageError(f"{path} has no [tool.initlint] table; add one or name another file with --config")
    if table.get("trust"):
        raise UsageError(
            f"{shown(path)}: trust is not for files, which come with what they trust; give --trust instead"
        )
    return replace(origin(shown(path), table, folder=path.parent), file=path)


def origin(label: str, raw: Mapping[str, object], folder: Path = Path()) -> Origin:
    """Check ``raw`` key by key; relative paths are resolved against ``folder``."""
    checked: dict[str, Any] = {}
    for said, value in raw.items():
        name = "rule-files" if said == "rules" and not isinstance(value, Mapping) else said
        key = KEYS.get(name)
        if key is None:
            raise UsageError(f'{label}: unknown key "{name}"{did_you_mean(name, KEYS)}')
        read = key.read(value, values.Place(f"{label}: {said}", folder))
        checked[name] = values.joined(checked[name], read) if name in checked else read
    return Origin(label, checked)


def merge(origins: Sequence[Origin]) -> Settings:
    """Merge origins, the last one being the most specific."""
    merged: dict[str, Any] = {}
    labels: dict[str, tuple[str, ...]] = {}
    for place in origins:
        for name in (reset for key in place.values for reset in RESETS.get(key, ())):
            merged.pop(name, None)
            labels.pop(name, None)
        for name, value in place.values.items():
            added = KEYS[name].adds and name in merged
            merged[name] = values.joined(merged[name], value) if added else value
            labels[name] = (*labels[name], place.label) if added else (place.label,)
    of_probe = {KEYS[name].field: value for name, value in merged.items() if KEYS[name].probe}
    others = {KEYS[name].field: value for name, value in merged.items() if not KEYS[name].probe}
    return Settings(**others, probe=ProbeSettings(**of_probe), origins=labels, sources=tuple(origins))


def of_target(settings: Settings, target: str) -> Settings:
    """The settings with the overrides for ``target``, each of which counts more than what its own place says besides,
    and less than a more specific place."""
    return _with(settings, [override for override in settings.overrides if override.concerns(target)])


def targets(settings: Settings) -> tuple[str, ...]:
    """What the settings name to be checked, patterns of files written out. Raises UsageError where one matches none."""
    found: list[str] = []
    for text in settings.targets:
        is_pattern = has_magic(text) and not Path(text).exists() and python_name(text) is None
        matching = sorted(glob(text, recursive=True)) if is_pattern else [text]
        if not matching:
            raise UsageError(f"{settings.place('targets')}: no file matches {text}")
        found += matching
    return tuple(dict.fromkeys(found))


def each_override(settings: Settings) -> list[Settings]:
    """The settings with one override at a time: to see whether it can be used."""
    return [_with(settings, [override]) for override in settings.overrides]


def _with(settings: Settings, chosen: Sequence[Override]) -> Settings:
    if not chosen:
        return settings
    origins: list[Origin] = []
    for source in settings.sources:
        said = source.values.get("overrides", ())
        own = [each.origin for each in said if any(each is override for override in chosen)]
        origins += [source, *own]
    return merge(origins)


def resolve(config: Path | None, isolated: bool, *given: Origin, start: Path | None = None) -> Settings:
    """The effective settings of a command: the file that was named or found (none if ``isolated``), then ``given``,
    the last being the most specific.

    Raises UsageError where a file that was merely found names rule files, which are code, unless ``given`` trusts it.
    """
    if config is not None and isolated:
        raise UsageError("--config and --isolated contradict each other; leave one of them out")
    if config is not None and not config.is_file():
        raise UsageError(f"there is no configuration file {config}")
    path = None if isolated else (config or find((start or Path.cwd()).resolve()))
    if path is None:
        return merge(given)
    found = read(path)
    if found.values.get("rule-files") and config is None and not any(each.values.get("trust") for each in given):
        raise UsageError(
            f"{found.label}: rules names files with code, which run with initlint; if you trust them give --trust, or "
            f"name the configuration: --config {found.label}"
        )
    return merge([found, *given])


def from_call(inputs: object, keywords: Mapping[str, object]) -> Settings:
    """Settings of a Python call: keys with underscores, ``inputs`` apart, no file unless ``config`` names one."""
    raw = {name.replace("_", "-"): value for name, value in keywords.items()}
    config = raw.pop("config", None)
    if inputs is not None:
        raw["inputs"] = inputs
    path = None if config is None else Path(str(config))
    return resolve(path, path is None, origin("initlint.check", raw))


def _table(path: Path) -> Mapping[str, object] | None:
    """initlint's part of a TOML file; None for a pyproject.toml without one."""
    import tomllib

    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except RecursionError as fault:
        raise UsageError(f"{shown(path)} is no readable TOML: it is nested too deeply") from fault
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as fault:
        raise UsageError(f"{shown(path)} is no readable TOML: {fault}") from fault
    tool = document.get("tool")
    inner = tool.get("initlint") if isinstance(tool, dict) else None
    if inner is None:
        return None if path.name == "pyproject.toml" else document
    if not isinstance(inner, dict):
        raise UsageError(f"{shown(path)}: tool.initlint has to be a table, as in [tool.initlint]")
    return inner
