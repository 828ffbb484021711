"""The catalog: which rules there are, which of them run, and with which options.

A rule pack announces a package under the entry-point group ``initlint.rules``; every module attribute in it that is a
``Rule`` is a rule. Ours comes through the same door. A pack that is broken stops the run: rules that are silently
missing would read as "all clean". Files that a project keeps beside its configuration are in ``local_rules``.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache, lru_cache
from importlib import import_module, metadata
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType
from typing import Any

from . import local_rules
from .errors import UsageError
from .plugin import Rule
from .settings import Settings
from .spelling import did_you_mean
from .target_names import shown

GROUP = "initlint.rules"
CORE = "initlint.rules"
"""Our own pack, in which a rule also has to be named like its file."""


def installed_packs() -> dict[str, str]:
    """Name -> package of every pack that an installed distribution announces."""
    return dict(_announced_on(tuple(sys.path)))


@lru_cache(maxsize=1)
def _announced_on(path: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Asked once for a search path: every distribution on it has a file to be read."""
    return tuple((entry.name, entry.value) for entry in metadata.entry_points(group=GROUP))


def load_rules(packs: Mapping[str, str] | None = None, files: Sequence[Path] = ()) -> tuple[Rule, ...]:
    """All rules of ``packs`` (default: the installed ones) and of ``files``, folders of rule files or single ones,
    ordered by category and name.

    Raises UsageError for no packs at all, a pack or file that fails to load or holds no rule, two rules of one name,
    and a core rule whose name is not its file's.
    """
    announced = installed_packs() if packs is None else packs
    if not announced:
        raise UsageError(
            "no rule pack is installed, so nothing can be checked; install initlint (pip install initlint)"
        )
    rules: dict[str, Rule] = {}
    for pack, package in announced.items():
        found = _rules_of(pack, package)
        if not found:
            raise UsageError(f'rule pack "{pack}" ({package}) holds no rule; uninstall or repair it')
        _add(rules, found)
    for path, wanted in local_rules.shared_out(files):
        found = _rules_in(tuple(local_rules.modules(path, wanted)))
        if not found:
            raise UsageError(f"{shown(path)} holds no rule; write one or leave it out of the settings")
        _add(rules, found)
    _check_categories(rules)
    return tuple(sorted(rules.values(), key=lambda rule: (rule.category, rule.name)))


def _add(rules: dict[str, Rule], found: Sequence[Rule]) -> None:
    for rule in found:
        known = rules.setdefault(rule.name, rule)
        if known is not rule:
            raise UsageError(
                f'two rules are named "{rule.name}": in {_home(known)} and in {_home(rule)}; rename one or leave it out'
            )


def _home(rule: Rule) -> str:
    """Its module, or the project's own file."""
    return local_rules.file_of(rule.generate.__module__) or rule.generate.__module__


def check_selected_names(rules: Sequence[Rule], settings: Settings) -> None:
    """Raises UsageError for names that no rule and no category bears."""
    for key, names in (
        ("select", settings.select),
        ("extend-select", settings.extend_select),
        ("ignore", settings.ignore),
    ):
        _check_names(rules, names, settings.place(key))


def choose(rules: Sequence[Rule], settings: Settings) -> tuple[Rule, ...]:
    """The rules that ``settings`` select. A rule's own name counts for more than its category; ``ignore`` for more than
    ``select``.

    Raises UsageError for names that no rule and no category bears, and where no rule is left.
    """
    check_selected_names(rules, settings)
    chosen = {rule.name for rule in rules} if not settings.select else set()
    selected = (*settings.select, *settings.extend_select)
    chosen |= {rule.name for rule in rules if rule.category in selected}
    chosen -= {rule.name for rule in rules if rule.category in settings.ignore}
    chosen |= {rule.name for rule in rules if rule.name in selected}
    chosen -= set(settings.ignore)
    if not chosen:
        said = [settings.place(key) for key in ("select", "ignore") if settings.origins.get(key)] or [
            "select and ignore"
        ]
        raise UsageError(f"{' and '.join(said)}: no rule is left to run; `initlint rules` lists what there is")
    return tuple(rule for rule in rules if rule.name in chosen)


def options_of(rules: Sequence[Rule], settings: Settings) -> dict[str, object]:
    """An options instance for every rule, from its defaults and ``settings.options``.

    Raises UsageError for unknown rules and options, values of a wrong type, and allowances of unknown rules.
    """
    names = {rule.name for rule in rules}
    for name in settings.options:
        if name not in names:
            raise UsageError(f'{settings.place("rules")}: there is no rule "{name}"{did_you_mean(name, names)}')
    for allow in settings.allow:
        if allow.rule in {rule.category for rule in rules}:
            members = ", ".join(rule.name for rule in rules if rule.category == allow.rule)
            raise UsageError(
                f'{settings.place("allow")}: "{allow.rule}" is a category, and an exception is for one rule; write one '
                f"for each that you mean: {members}"
            )
        if allow.rule not in names:
            raise UsageError(
                f'{settings.place("allow")}: there is no rule "{allow.rule}"{did_you_mean(allow.rule, names)}'
            )
    place = settings.place("rules")
    return {rule.name: _options(rule, settings.options.get(rule.name, {}), f"{place}.{rule.name}") for rule in rules}


def find_rule(rules: Sequence[Rule], name: str) -> Rule:
    """The rule of that name; raises UsageError where there is none."""
    by_name = {rule.name: rule for rule in rules}
    if name not in by_name:
        raise UsageError(f'there is no rule "{name}"{did_you_mean(name, by_name)}; `initlint rules` lists them')
    return by_name[name]


def _rules_of(pack: str, package: str) -> tuple[Rule, ...]:
    found = _rules_in(tuple(_modules(pack, package)))
    for rule in found:
        _check_file_name(rule, package)
    return found


@cache
def _rules_in(modules: tuple[ModuleType, ...]) -> tuple[Rule, ...]:
    """Looked for once in a module, as long as it is not imported anew; one that a second module imports is one rule."""
    values = (value for module in modules for value in vars(module).values())
    return tuple({id(value): value for value in values if isinstance(value, Rule)}.values())


def _modules(pack: str, package: str) -> Iterator[ModuleType]:
    root = _import(pack, package)
    yield root

    for name in _submodules(pack, package, tuple(getattr(root, "__path__", ()))):
        yield _import(pack, name)


@cache
def _submodules(pack: str, package: str, path: tuple[str, ...]) -> tuple[str, ...]:
    """Asked once for a pack: the walk reads its folders and imports its packages."""

    def broken(name: str) -> None:
        _import(pack, name)  # walk_packages says only that an import failed; doing it again says why

    found = walk_packages(path, f"{package}.", onerror=broken)
    return tuple(each.name for each in found if not each.name.endswith(".__main__"))


def _import(pack: str, name: str) -> ModuleType:
    try:
        return import_module(name)
    except (Exception, SystemExit) as fault:  # third-party code may raise anything; all of it stops the run
        raise UsageError(
            f'rule pack "{pack}" fails to load: importing {name} raised {type(fault).__name__}: {fault}; '
            "uninstall or repair it"
        ) from fault


def _check_file_name(rule: Rule, package: str) -> None:
    file = rule.generate.__module__.rpartition(".")[2].replace("_", "-")
    if package == CORE and file != rule.name:
        raise UsageError(
            f'{rule.generate.__module__} defines the rule "{rule.name}"; a core rule is named like its file'
        )


def _check_categories(rules: Mapping[str, Rule]) -> None:
    for rule in rules.values():
        if rule.category in rules:
            raise UsageError(
                f'"{rule.category}" is both a rule ({_home(rules[rule.category])}) and the category of '
                f"{_home(rule)}; rename one, since both are selected by name"
            )


def _check_names(rules: Sequence[Rule], names: Iterable[str], place: str) -> None:
    known = {rule.name for rule in rules} | {rule.category for rule in rules}
    for name in names:
        if name not in known:
            nearest = did_you_mean(name, known) or "; `initlint rules` lists them"
            raise UsageError(f'{place}: there is no rule or category "{name}"{nearest}')


def _options(rule: Rule, given: Mapping[str, Any], place: str) -> object:
    if not is_dataclass(rule.options):
        raise UsageError(f'the options of rule "{rule.name}" are no dataclass; repair {_home(rule)}')
    types = typing.get_type_hints(rule.options) if given else {}
    names = [option.name for option in fields(rule.options)]
    checked = {}
    for spelt, value in given.items():
        name = spelt.replace("-", "_")
        if name not in names:
            raise UsageError(f'{place}: unknown option "{spelt}"{did_you_mean(name, names)}')
        checked[name] = _typed(value, types[name], f"{place}.{spelt}")
    try:
        return rule.options(**checked)
    except (TypeError, ValueError) as fault:
        raise UsageError(f"{place}: {fault}") from fault


def _typed(value: Any, wanted: Any, where: str) -> Any:
    """``value`` as the annotation ``wanted`` has it: whole numbers pass for floats, lists for tuples."""
    if typing.get_origin(wanted) is tuple and isinstance(value, (list, tuple)):
        return tuple(_typed(item, typing.get_args(wanted)[0], where) for item in value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    fits = isinstance(value, wanted) if isinstance(wanted, type) else False
    if not fits or (isinstance(value, bool) and wanted is not bool):
        expected = getattr(wanted, "__name__", str(wanted))
        raise UsageError(f"{where} has to be {_WORDS.get(wanted, expected)}, not {value!r}")
    return value


_WORDS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
}
