"""What the command line tells about itself: the rules there are, the page of one, the settings in force."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

from . import values
from .configuration import KEYS
from .plugin import Needs, Rule
from .settings import Settings

_READS = {
    Needs.WEIGHTS: "weight statistics",
    Needs.SIGNAL: "the signal, measured or predicted",
    Needs.FORWARD: "the forward probe",
    Needs.BACKWARD: "the backward probe",
    Needs.LIVENESS: "liveness",
}


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a rule, and what its source says of the default: where the number comes from."""

    name: str
    default: Any
    source: str


def options(rule: Rule) -> list[Option]:
    """The options of ``rule`` in the order of its dataclass."""
    sources = _comments(rule.options)
    return [
        Option(field.name, None if field.default is MISSING else field.default, sources.get(field.name, ""))
        for field in fields(rule.options)
    ]


def _comments(options_class: type) -> dict[str, str]:
    """By field: the comment lines above it, the comment beside it and the string below it."""
    try:
        source = textwrap.dedent(inspect.getsource(options_class))
    except (OSError, TypeError):  # a pack without sources still has names and defaults
        return {}
    lines = source.splitlines()
    [definition] = ast.parse(source).body
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    comments = {}
    for node, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        parts = [*_comment_above(lines, node.lineno - 1), _comment_beside(lines, node)]
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            parts.append(str(following.value.value))
        comments[node.target.id] = " ".join(" ".join(parts).split())
    return comments


def _comment_above(lines: Sequence[str], end: int) -> list[str]:
    start = end
    while start > 0 and lines[start - 1].lstrip().startswith("#"):
        start -= 1
    return [line.lstrip(" #") for line in lines[start:end]]


def _comment_beside(lines: Sequence[str], node: ast.AnnAssign) -> str:
    return lines[(node.end_lineno or node.lineno) - 1].encode()[node.end_col_offset or 0 :].decode().lstrip(" #")


def page(rule: Rule) -> str:
    """The page of ``rule`` as Markdown: its docstring under its name, what it reads, its options."""
    summary, _, body = rule.doc.partition("\n")
    needs, uses = _reads(rule.needs), _reads(rule.uses & ~rule.needs)
    facts = [f"Category: {rule.category}.", f"Reads {needs or 'the structure of the model'}."]
    if uses:
        facts.append(f"More exact with {uses}.")
    parts = [f"# {rule.name}", summary.strip(), " ".join(facts), body.strip(), _options_section(rule)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _reads(needs: Needs) -> str:
    return " and ".join(_READS[need] for need in _named(needs) if need in _READS)


def _options_section(rule: Rule) -> str:
    listed = [f"- `{option.name} = {_toml(option.default)}` {option.source}".rstrip() for option in options(rule)]
    if not listed:
        return ""
    where = f"Set in `[tool.initlint.rules.{rule.name}]`:"
    return "\n".join(["## Options", "", where, "", *listed])


def rules_table(rules: Sequence[Rule], width: int) -> str:
    """Names and summaries by category."""
    column = max(len(rule.name) for rule in rules) + 4
    lines: list[str] = []
    for category in dict.fromkeys(rule.category for rule in rules):
        lines += [category] if not lines else ["", category]
        for rule in rules:
            if rule.category == category:
                lines += textwrap.wrap(
                    rule.summary,
                    width,
                    initial_indent=f"  {rule.name}".ljust(column),
                    subsequent_indent=" " * column,
                    break_on_hyphens=False,
                ) or [f"  {rule.name}"]
    return "\n".join([*lines, "", "`initlint explain RULE` tells more; --select takes names and categories.", ""])


def rules_as_json(rules: Sequence[Rule]) -> str:
    """The same for programs."""
    listed = [
        {
            "name": rule.name,
            "category": rule.category,
            "summary": rule.summary,
            "needs": _names(rule.needs),
            "uses": _names(rule.uses),
            "options": {option.name: option.default for option in options(rule)},
        }
        for rule in rules
    ]
    return json.dumps(listed, indent=2) + "\n"


def _names(needs: Needs) -> list[str]:
    return [str(need.name).lower() for need in _named(needs)]


def _named(needs: Needs) -> list[Needs]:
    """One by one: the signal as measured is one need, not two."""
    parts = [Needs.FORWARD if need is Needs.SIGNAL and Needs.FORWARD in needs else need for need in needs]
    return [need for need in parts if need is not Needs.PROBED]


def settings_listing(settings: Settings) -> str:
    """The settings in force as TOML, each with its origin as a comment; what is unset is commented out."""
    lines = [(_entry(name, settings), _origin(name, settings)) for name in KEYS if name not in _TABLES]
    width = max(len(line) for line, _ in lines if len(line) <= _ORIGIN_COLUMN)
    text = [f"{line.ljust(width)}  # {origin}" for line, origin in lines]
    for rule, given in settings.options.items():
        text += ["", f"[rules.{_toml_key(rule)}]  # {_origin('rules', settings)}"]
        text += [f"{_toml_key(name)} = {_toml(value)}" for name, value in given.items()]
    for allow in settings.allow:
        said = {name: getattr(allow, name) for name in ("rule", "at", "reason", "target", "until")}
        text += ["", f"[[allow]]  # {_origin('allow', settings)}"]
        text += [f"{name} = {_toml(value)}" for name, value in said.items() if value is not None]
    for override in settings.overrides:
        text += ["", f"[[overrides]]  # {_origin('overrides', settings)}", f"target = {_toml(override.target)}"]
        text += [f"{name} = {_toml(_said(name, value))}" for name, value in override.origin.values.items()]
    return "\n".join(text) + "\n"


_TABLES = ("rules", "allow", "overrides")

_ORIGIN_COLUMN = 48
"""Longer settings do not push the column of origins to the right."""


def _entry(name: str, settings: Settings) -> str:
    key = KEYS[name]
    value = getattr(settings.probe if key.probe else settings, key.field)
    return f"# {name} is not set" if value is None else f"{name} = {_toml(_said(name, value))}"


def _said(name: str, value: Any) -> Any:
    """The value as a configuration file says it."""
    if name == "fail-on":
        return next(word for word, threshold in values.THRESHOLDS.items() if threshold == value)
    return not value if name == "no-probe" else value


def _origin(name: str, settings: Settings) -> str:
    return " and ".join(settings.origins.get(name, ("default",)))


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_toml_key(str(key))} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, date):
        return value.isoformat()
    return json.dumps(str(value) if isinstance(value, Path) else value)


def _toml_key(name: str) -> str:
    bare = name.replace("-", "").replace("_", "")
    return name if bare.isascii() and bare.isalnum() else json.dumps(name)
