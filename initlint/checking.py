"""From a target to its Report: open a session, measure what the chosen rules read, judge, accept what was allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from . import catalog
from .activations import ENDING_AT_ZERO
from .baseline import REASON, Baseline, load
from .builds import NOT_BUILT, Builds
from .configuration import each_override, of_target
from .errors import FailureKind, TargetError
from .fixes import Edit
from .load.target import format_of, name_of
from .model import Layer, Model, NotChecked
from .plugin import Context, Finding, Needs, Rule, Severity
from .probe.signals import Forward, Signals
from .report import Failure, LayerRow, ProbeSummary, Report, RulePage, Status
from .session import Session
from .settings import ProbeSettings, Settings
from .spelling import did_you_mean
from .stats import WeightStats

if TYPE_CHECKING:
    from .accepted import Acceptance

Progress = Callable[[str], None]
"""Told the name of each stage as it begins."""


@dataclass(frozen=True)
class Plan:
    """Settings that were held against the catalog: which rules run, with which options."""

    settings: Settings
    rules: tuple[Rule, ...]
    """Those for targets without overrides; empty if overrides hold for each of them."""
    options: Mapping[str, object]
    """An options instance by rule name."""
    catalog: tuple[Rule, ...] = ()
    """All rules that there are."""
    baseline: Baseline | None = None
    labels: frozenset[str] = frozenset()
    """What the baseline calls the targets of this run, as far as they are known."""

    @cached_property
    def reads(self) -> Needs:
        """Everything that some rule needs or uses."""
        reads = Needs.STRUCTURE
        for rule in self.rules:
            reads |= rule.needs | rule.uses
        return reads

    def of(self, target: str) -> Plan:
        """The plan with the overrides for one target. Raises UsageError where they leave no rule to run."""
        settings = of_target(self.settings, target)
        if settings is self.settings and self.rules:
            return self
        options = catalog.options_of(self.catalog, settings)
        return replace(self, settings=settings, rules=catalog.choose(self.catalog, settings), options=options)

    def acceptance(self, target: str) -> Acceptance:
        """What the project accepts in ``target``."""
        from .accepted import Acceptance

        allow = tuple(allow for allow in self.settings.allow if allow.concerns(target))
        known = () if self.baseline is None else self.baseline.known(target, self.labels)
        return Acceptance(target, allow, self.baseline, known, today())


def plan(settings: Settings, targets: Sequence[str] = (), baseline: Baseline | None = None) -> Plan:
    """Hold ``settings`` against the installed rules; ``baseline`` stands in for the one that they name.

    Raises UsageError: a fault of the settings stops everything. Whether they leave a rule to run is asked for each of
    the ``targets`` with all of its overrides.
    """
    rules = catalog.load_rules(files=settings.rule_files)
    options = catalog.options_of(rules, settings)
    catalog.check_selected_names(rules, settings)
    for special in each_override(settings):
        catalog.options_of(rules, special)
        catalog.check_selected_names(rules, special)
    in_force = [of_target(settings, target) for target in targets] or [settings]
    chosen = {id(each): catalog.choose(rules, each) for each in in_force}
    if baseline is None and settings.baseline is not None:
        baseline = load(settings.baseline)
    labels = frozenset(() if baseline is None else map(baseline.label, targets))
    return Plan(settings, chosen.get(id(settings), ()), options, rules, baseline, labels)


def today() -> date:
    """The day that exceptions are held against."""
    return date.today()


def check_target(target: Any, plan: Plan, *, weights: bool = False, progress: Progress = lambda stage: None) -> Report:
    """The whole way of one target. A fault of the target becomes a Report whose ``failure`` says so.

    ``weights`` asks for weight statistics in the layer table even if no rule reads them.
    """
    started = perf_counter()
    plan = plan.of(name_of(target))
    report = Report(name_of(target), format=format_of(target), fail_on=plan.settings.fail_on)
    try:
        _refuse_folder(target)
        progress("reading")
        with _open(target, plan) as session:
            report = _examine(session, plan, report, weights, progress)
    except TargetError as fault:
        report = _failed(report, fault)
    return replace(report, seconds=perf_counter() - started)


def _examine(session: Session, plan: Plan, report: Report, weights: bool, progress: Progress) -> Report:
    model = session.model
    _refuse_empty(model, plan.settings)
    measured = _measure(session, plan, weights, progress)
    report = replace(
        report,
        format=model.format,
        parameters=model.parameters,
        probe=_probe_summary(measured.signals),
        layers=_rows(model, plan.settings, measured),
        not_checked=(*model.not_checked, *measured.signals.not_probed, *measured.builds.not_checked),
    )
    progress("judging")
    report = _judge(session, measured, plan, report, progress)
    fault = measured.fault or _nothing_judged(model, report)
    return report if fault is None else _failed(report, fault)


@dataclass(frozen=True)
class _Measured:
    """What could be measured; ``fault`` is what ended the session before all was, if anything did."""

    stats: Mapping[str, WeightStats]
    signals: Signals
    builds: Builds = NOT_BUILT
    fault: TargetError | None = None


def _measure(session: Session, plan: Plan, weights: bool, progress: Progress) -> _Measured:
    stats: Mapping[str, WeightStats] = {}
    try:
        if weights or Needs.WEIGHTS in plan.reads:
            progress("reading the weights")
            stats = session.stats()
        signals = _probe(session, plan, progress)
        if Needs.BUILDS not in plan.reads:
            return _Measured(stats, signals)
        progress("building it again")
        return _Measured(stats, signals, session.builds())
    except TargetError as fault:
        return _Measured(stats, Signals(Forward.NONE, reason=str(fault)), fault=fault)


def _probe(session: Session, plan: Plan, progress: Progress) -> Signals:
    settings = plan.settings.probe
    if not settings.enabled:
        return Signals(Forward.NONE, reason="the probe is switched off (--no-probe)")
    probe = _asking(settings, plan.reads)
    if not (probe.backward or probe.liveness or Needs.FORWARD in plan.reads):
        return Signals(Forward.NONE, reason="no selected rule reads signals")
    progress("probing")
    return session.probe(probe)


def _asking(settings: ProbeSettings, reads: Needs) -> ProbeSettings:
    """The settings with what the rules read of the probe."""
    return replace(settings, backward=Needs.BACKWARD in reads, liveness=Needs.LIVENESS in reads)


def _judge(session: Session, measured: _Measured, plan: Plan, report: Report, progress: Progress) -> Report:
    from .causes import fold
    from .engine import in_reading_order, suspect

    model, rules = session.model, {rule.name: rule for rule in plan.rules}
    context = Context(model, measured.stats, measured.signals, measured.builds)
    verdict = suspect(context, plan.rules, plan.options)
    skipped = verdict.skipped
    silent = rules.keys() <= {entry.rule for entry in skipped}
    if silent and not verdict.findings and measured.fault is None:
        raise TargetError(FailureKind.UNSUPPORTED, f"none of the selected rules could run: {skipped[0].reason}")
    found = in_reading_order(model, fold(model, verdict.findings, rules))
    acceptance = plan.acceptance(report.target)
    report = _sorted_out(model, found, plan, acceptance, report)
    report = replace(report, skipped_rules=skipped, rules=_pages(plan))
    if measured.fault is not None:
        return report
    if not context.probed or not _is_loud(report):
        return _held_up(found, plan, acceptance, report)
    progress("trying fixes")
    try:
        settled = _tried(session, context, verdict.findings, plan)
    except TargetError as fault:
        entry = NotChecked("the fixes", f"they could not be tried: {fault}")
        report = replace(report, not_checked=(*report.not_checked, entry))
        return _held_up(found, plan, acceptance, report, to_the_end=False)
    found = in_reading_order(model, settled)
    return _held_up(found, plan, acceptance, _sorted_out(model, found, plan, acceptance, report))


def _is_loud(report: Report) -> bool:
    """Whether fixes are to be tried: what the baseline knows may hide, or follow from, what it does not."""
    known = [entry.finding for entry in report.suppressed if entry.reason == REASON]
    return any(finding.severity >= Severity.WARNING for finding in (*report.findings, *known))


def _pages(plan: Plan) -> tuple[RulePage, ...]:
    from .engine import page_of

    return tuple(RulePage(rule.name, rule.category, rule.doc, page_of(rule)) for rule in plan.rules)


def _tried(session: Session, context: Context, suspected: tuple[Finding, ...], plan: Plan) -> tuple[Finding, ...]:
    """The findings after a trial of their fixes. Raises TargetError."""
    from .engine import suspect
    from .examined import Examined
    from .trial import settle

    def examine(edits: tuple[Edit, ...]) -> Examined:
        settings = plan.settings.probe
        stats = {**context.stats, **session.edited_stats(edits, settings.seed)} if context.stats else {}
        signals = session.probe(_asking(settings, plan.reads), edits)
        if signals.forward is Forward.NONE:
            raise TargetError(FailureKind.UNSUPPORTED, signals.reason)
        builds = context.builds.after({edit.tensor for edit in edits})
        edited = replace(context, stats=stats, signals=signals, builds=builds)
        return Examined(edited, suspect(edited, plan.rules, plan.options).findings)

    return settle(Examined(context, suspected), {rule.name: rule for rule in plan.rules}, examine)


def _sorted_out(model: Model, found: tuple[Finding, ...], plan: Plan, acceptance: Acceptance, report: Report) -> Report:
    """With those of ``found`` that the settings ask for, what the project accepts apart."""
    from .accepted import sort_out

    covered = tuple(finding for finding in found if _covers(plan.settings, finding))
    rules = {rule.name: rule for rule in plan.rules}
    told = sort_out(model, rules, covered, acceptance)
    return replace(report, findings=told.findings, suppressed=told.suppressed)


def _held_up(
    found: tuple[Finding, ...], plan: Plan, acceptance: Acceptance, report: Report, to_the_end: bool = True
) -> Report:
    """With what the exceptions and the baseline say of a target that was measured; what is missing among the findings
    tells something only of rules that ran ``to_the_end``."""
    covered = [finding for finding in found if _covers(plan.settings, finding)]
    ran = {rule.name for rule in plan.rules if to_the_end} - {skipped.rule for skipped in report.skipped_rules}
    return replace(
        report,
        exceptions=acceptance.uses(found, ran.__contains__),
        standing=acceptance.standing(found, covered, ran.__contains__),
    )


def _covers(settings: Settings, finding: Finding) -> bool:
    return settings.covers(*(name for name in (finding.layer, finding.tensor) if name))


def _rows(model: Model, settings: Settings, measured: _Measured) -> tuple[LayerRow, ...]:
    return tuple(
        LayerRow(layer, measured.stats.get(layer.weight.address), measured.signals.layers.get(layer.name))
        for layer in model.layers
        if settings.covers(*_names(layer))
    )


def _names(layer: Layer) -> tuple[str, ...]:
    return (layer.name, *(tensor.address for tensor in layer.tensors))


def _refuse_empty(model: Model, settings: Settings) -> None:
    if not model.layers and not model.tensors:
        text = "the model holds no weights of real numbers, so there is nothing to check"
        raise TargetError(FailureKind.UNSUPPORTED, text)
    known = [name for layer in model.layers for name in _names(layer)] + [tensor.address for tensor in model.tensors]
    if not any(settings.covers(name) for name in known):
        near = did_you_mean(settings.layers[0], known) if settings.layers else ""
        raise TargetError(FailureKind.USAGE, f"layers and exclude-layers leave no layer to check{near}")


def _nothing_judged(model: Model, report: Report) -> TargetError | None:
    """The fault of a file in which no weight was found and nothing is wrong: that is no clean bill."""
    gates = any(factor.function in ENDING_AT_ZERO for factor in model.factors)
    if model.format != "onnx" or model.layers or gates or report.findings or report.suppressed:
        return None
    values = sum(tensor.size for tensor in model.tensors)
    return TargetError(
        FailureKind.UNSUPPORTED,
        f"none of the model's {values:,} stored values is the weight of a layer, so there is nothing to check",
    )


def _refuse_folder(target: Any) -> None:
    if not isinstance(target, (str, Path)) or not Path(target).is_dir():
        return
    files = sorted(path.name for path in Path(target).glob("*.onnx"))
    example = Path(target) / (files[0] if files else "model.onnx")
    raise TargetError(FailureKind.USAGE, f"{target} is a folder; name the model files in it, as in {example}")


def _open(target: Any, plan: Plan) -> Any:
    from .session import open_session

    return open_session(target, _asking(plan.settings.probe, plan.reads))


def _failed(report: Report, fault: TargetError) -> Report:
    unsupported = fault.kind in (FailureKind.UNREADABLE, FailureKind.UNSUPPORTED)
    status = Status.UNSUPPORTED if unsupported else Status.FAILED
    return replace(report, status=status, failure=Failure(fault.kind, str(fault)))


def _probe_summary(signals: Signals) -> ProbeSummary:
    return ProbeSummary(
        forward=signals.forward,
        backward=signals.backward,
        batch=signals.batch,
        seed=signals.seed,
        loss=signals.loss,
        reason=signals.reason or signals.backward_reason,
        fed=signals.fed,
    )
