"""From suspicions to findings: which rules can run, and one finding per fault."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .causes import fold
from .fixes import Fix, Several, edits_of
from .holding import placed
from .made import is_idle, settable, to_blame
from .maker import plain
from .model import Layer, Model, Tensor
from .plugin import Context, Finding, Needs, Rule, Suspicion, Value
from .probe.signals import Backward
from .report import NO_GRADIENTS, SkippedRule


@dataclass(frozen=True)
class Verdict:
    """What rules say of one context; ``skipped`` are those that could not run."""

    findings: tuple[Finding, ...]
    skipped: tuple[SkippedRule, ...]


def judge(context: Context, rules: Sequence[Rule], options: Mapping[str, object]) -> Verdict:
    """The findings in reading order, consequences folded under their causes as far as dataflow tells."""
    suspected = suspect(context, rules, options)
    folded = fold(context.model, suspected.findings, {rule.name: rule for rule in rules})
    return Verdict(in_reading_order(context.model, folded), suspected.skipped)


def suspect(context: Context, rules: Sequence[Rule], options: Mapping[str, object]) -> Verdict:
    """Run ``rules`` over ``context``; ``options`` holds rules' options by rule name, where they are not the default.

    One fault is one finding already, but nothing is folded yet.
    """
    by_name = {rule.name: rule for rule in rules}
    findings: list[Finding] = []
    skipped: list[SkippedRule] = []
    for rule in rules:
        reason = _missing(context, rule.needs)
        if not reason:
            reason = _run(context, rule, options.get(rule.name), findings)
        if reason:
            skipped.append(SkippedRule(rule.name, reason))
    findings = list(_without_overridden(context.model, _once_per_place(findings), by_name))
    muted, silenced = _mute(findings, by_name)
    known = {each.rule for each in skipped}
    skipped += [each for each in silenced if each.rule not in known]
    return Verdict(tuple(muted), tuple(skipped))


def _missing(context: Context, needs: Needs) -> str:
    if Needs.WEIGHTS in needs and not context.stats:
        return "no weights were read"
    if Needs.BUILDS in needs and context.builds.reason:
        return context.builds.reason
    predictable = Needs.FORWARD not in needs and context.model.has_dataflow
    if Needs.SIGNAL in needs and not context.probed and not predictable:
        return context.signals.reason or "the model was not probed"
    signals = context.signals
    if (Needs.BACKWARD in needs or Needs.LIVENESS in needs) and signals.backward is Backward.NONE:
        return signals.backward_reason or signals.reason or NO_GRADIENTS
    if Needs.LIVENESS in needs and not signals.liveness:
        return signals.backward_reason or "the gradients are not finite, so no steps could be taken"
    return ""


def _run(context: Context, rule: Rule, options: object | None, findings: list[Finding]) -> str:
    """Append the rule's findings; a rule that raises is skipped with the reason, the others still speak."""
    try:
        for suspicion in rule.generate(context, options if options is not None else rule.options()):
            findings.append(_finding(context, rule, suspicion))
    except Exception as error:
        if os.environ.get("INITLINT_DEBUG"):
            raise
        return f"the rule itself failed ({type(error).__name__}: {error}); please report this to its author"
    return ""


def _finding(context: Context, rule: Rule, suspicion: Suspicion) -> Finding:
    layer, tensor = _place(context.model, suspicion.at)
    if tensor is not None and (maker := to_blame(context.model, tensor, context.stats)):
        tensor = plain(maker)
    return Finding(
        rule=rule.name,
        category=rule.category,
        severity=suspicion.severity,
        layer=layer,
        tensor=tensor,
        message=rule.messages[suspicion.message].format_map(_Readable(suspicion.data)),
        data=_checked(suspicion.data),
        fix=_editable(context, suspicion.fix),
        url=page_of(rule),
        is_cause=suspicion.is_cause,
        proven=suspicion.proven,
    )


def page_of(rule: Rule) -> str:
    """Where its page is: relative to the repository, as long as the pages are on no site."""
    return f"docs/rules/{rule.name}.md"


def _editable(context: Context, fix: Fix | None) -> Fix | None:
    """``fix`` as the model's code can say it; None where a tensor of it cannot be set, or all are so already."""
    edits = edits_of(fix)
    if any(edit.tensor in context.model.makers for edit in edits):
        edits = tuple(settable(context.model, edits, context.stats))
        fix = None if not edits else Several(edits) if isinstance(fix, Several) else edits[0]
    if any(edit.tensor in context.model.uneditable for edit in edits):
        return None
    idle = edits and all(is_idle(edit, context.stats.get(edit.tensor)) for edit in edits)
    return None if idle else placed(context.model, fix)


def _checked(data: Mapping[str, object]) -> dict[str, Value]:
    """``data`` in plain types: a report may be sent to a process that does not know a rule's own."""
    return {key: _plain(key, value) for key, value in data.items()}


def _plain(key: str, value: object) -> Value:
    if isinstance(value, list):
        return [str(each) for each in value]
    if isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"data[{key!r}] is a {type(value).__name__}; findings hold numbers, strings and lists of addresses")


def _place(model: Model, at: Tensor | Layer | Model | str) -> tuple[str | None, str | None]:
    """(layer name, tensor address); either may be None."""
    if isinstance(at, Layer):
        return at.name, None
    if isinstance(at, Model):
        return None, None
    address = at.address if isinstance(at, Tensor) else at
    owner = model.owner(address)
    return (owner.name if owner else None), address


class _Readable(dict[str, object]):
    """Numbers in messages have three significant digits; a missing placeholder is a fault of the rule."""

    def __init__(self, data: Mapping[str, object]) -> None:
        super().__init__((key, _readable(value)) for key, value in data.items())


def _readable(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}"


def _base(model: Model, address: str) -> str:
    """The tensor of a packed part's address."""
    tensor = model.tensor(address)
    return address.partition("[")[0] if tensor is None else tensor.address


def _once_per_place(findings: Iterable[Finding]) -> list[Finding]:
    """Of what one rule says twice at one address, as of a tensor that two layers use, the gravest, then the first."""
    kept: dict[tuple[str, str, str], Finding] = {}
    for finding in findings:  # different things may be wrong with a whole model, which has no address
        key = finding.rule, finding.address, "" if finding.address else finding.message
        if key not in kept or finding.severity > kept[key].severity:
            kept[key] = finding
    return list(kept.values())


def _without_overridden(model: Model, findings: Sequence[Finding], rules: Mapping[str, Rule]) -> Iterator[Finding]:
    """Drop what a stronger rule says at the same tensor: one fault is one finding."""
    silenced = {
        (victim, _base(model, finding.address)) for finding in findings for victim in rules[finding.rule].overrides
    }
    for finding in findings:
        if (finding.rule, _base(model, finding.address)) not in silenced:
            yield finding


def _mute(findings: Sequence[Finding], rules: Mapping[str, Rule]) -> tuple[list[Finding], list[SkippedRule]]:
    """Some findings make whole categories meaningless for the model; say so once instead of reporting them."""
    muted = {muted: f.rule for f in findings for muted in rules[f.rule].mutes}
    silent = {name: muted.get(name, muted.get(each.category, "")) for name, each in rules.items()}
    skipped = [SkippedRule(name, f"gives way to {by}") for name, by in silent.items() if by]
    return [finding for finding in findings if not silent[finding.rule]], skipped


def in_reading_order(model: Model, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """By layer in execution order, the gravest first within one; findings about the whole model lead."""
    order = {layer.name: position for position, layer in enumerate(model.layers)}
    return tuple(sorted(findings, key=lambda f: (order.get(f.layer or "", -1), -f.severity, f.rule, f.address)))
