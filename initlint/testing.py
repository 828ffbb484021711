"""The harness for tests of rules: cases in a table, models by seed, findings compared by address and severity.

::

    @cases(
        Good("he-initialised mlp", relu_mlp),
        Good("near miss: one unit cannot be symmetric", scalar_head),
        Bad("half of the units copied", partial(relu_mlp, copied=0.5), at=["0.weight"]),
    )
    def test_duplicate_units(case): check("duplicate-units", case)

A ``build`` is called with the keyword ``seed`` and returns an ``onnx.ModelProto``, a ``torch.nn.Module`` that can be
exported without further words (it has an ``example_input_array``), or (module, inputs). Modules are checked themselves
and as honest exports by both of PyTorch's exporters, and all have to say the same. Torch is imported for them alone.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import onnx

import initlint

from .errors import UsageError
from .fixes import edits_of
from .plugin import Finding, Forward, Severity
from .report import Report, Status

if TYPE_CHECKING:
    import torch

__all__ = ["Bad", "Case", "Exporter", "Good", "cases", "check", "default_export", "honest_export", "silent"]

Exporter = Literal["legacy", "dynamo"]
"""PyTorch's two exporters: TorchScript's tracer, and the newer one on ``torch.export``."""

Build = Callable[..., Any]

SEEDS = (0, 1)
EXPORTERS: tuple[Exporter, ...] = ("legacy", "dynamo")
NEAR_MISS = "near miss"


@dataclass(frozen=True)
class Good:
    """A model on which the rule stays below a warning, or wholly silent where ``notes_ok`` is false.

    A rule that was skipped has judged nothing, so that is an error unless ``skipped_ok`` says that giving way is the
    very thing the case is about.
    """

    name: str
    build: Build
    notes_ok: bool = True
    skipped_ok: bool = False
    exporters: tuple[Exporter, ...] = EXPORTERS


@dataclass(frozen=True)
class Bad:
    """A model on which the rule speaks at exactly the addresses ``at``.

    Addresses are PyTorch's qualified names ("0.weight"), whatever an exporter made of them, or "" for the whole model.
    Without a ``severity`` anything from a warning up will do. Notes count only where ``severity`` is a note.
    """

    name: str
    build: Build
    at: Sequence[str]
    severity: Severity | None = None
    exporters: tuple[Exporter, ...] = EXPORTERS


Case = Good | Bad
Test = TypeVar("Test", bound=Callable[..., Any])


def cases(*table: Case) -> Callable[[Test], Test]:
    """Run a test once per case, as its parameter ``case``.

    Raises UsageError for a table that proves too little: two cases of one name, no Bad one, a Bad one without an
    address, or no Good one whose name starts with "near miss".
    """
    import pytest

    names = [case.name for case in table]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise UsageError(f"two cases are called {doubled[0]!r}: give each a name of its own")
    bad = [case for case in table if isinstance(case, Bad)]
    if not bad:
        raise UsageError("no Bad case: show what the rule finds")
    for case in bad:
        if isinstance(case.at, str) or not case.at or len(set(case.at)) < len(case.at):
            raise UsageError(f"case {case.name!r}: `at` is a list of different addresses, at least one")
    if not any(isinstance(case, Good) and case.name.startswith(NEAR_MISS) for case in table):
        raise UsageError(f"no Good case starts with {NEAR_MISS!r}: show what is almost a fault and is none")
    return pytest.mark.parametrize("case", table, ids=names)


def check(rule: str, case: Case, *, seeds: Sequence[int] = SEEDS) -> None:
    """Assert that ``rule`` says of every variant of the case's model exactly what the case promises.

    The fix of an error or a warning has to help: with it applied the rule is silent. A module and its honest exports
    have to agree finding by finding, notes and severities included. Modules alone are asked by rules about what
    exporters leave out, and by cases that name no exporters.
    """
    told: dict[int, tuple[str, list[Finding]]] = {}
    for variant in _variants(case.build, () if rule in OF_MODULES else case.exporters, seeds):
        findings = _findings(rule, case, variant)
        if findings is None:
            continue
        _hold_against(rule, case, variant, findings)
        if variant.is_module:
            told[variant.seed] = variant.label, findings
        elif variant.seed in told:
            _compare(rule, case, *told[variant.seed], variant, findings)


OF_MODULES = (
    "unused-parameters",
    "unregistered-weights",
    "duplicate-layers",
    "non-finite-gradients",
    "overlapping-memory",
)
"""What no output depends on, and what no module lists, is not in a file, or not under its name; nor what is frozen, nor
how it lay in memory. The gradients of files are estimated."""


def _findings(rule: str, case: Case, variant: _Variant) -> list[Finding] | None:
    """Findings of the rule; None where it gave way and the case is about that."""
    report = _examine(variant, select=[rule])
    skipped = [entry.reason for entry in report.skipped_rules if entry.rule == rule]
    if skipped and not (isinstance(case, Good) and case.skipped_ok):
        raise AssertionError(f"{case.name!r}, {variant.label}: {rule} was skipped: {skipped[0]}")
    found = [finding for finding in report.headlines if finding.rule == rule]
    probed = report.probe.forward is Forward.MEASURED
    useless = [each for each in found if each.severity >= Severity.WARNING and edits_of(each.fix) and not each.verified]
    if probed and useless:
        where = f"{case.name!r}, {variant.label}"
        raise AssertionError(f"{where}: the fix does not help\n{_listing(useless)}\n  {useless[0].fix}")
    return None if skipped else found


def _hold_against(rule: str, case: Case, variant: _Variant, findings: list[Finding]) -> None:
    if isinstance(case, Good):
        threshold = Severity.WARNING if case.notes_ok else Severity.NOTE
        expected = set[tuple[str, str]]()
    else:
        threshold = min(Severity.WARNING, case.severity or Severity.WARNING)
        expected = {(address, _wanted(case.severity)) for address in case.at}
    compared = [finding for finding in findings if finding.severity >= threshold]
    any_severity = isinstance(case, Bad) and case.severity is None
    found = [(f.address, _wanted(None if any_severity else f.severity)) for f in compared]
    if sorted(found) != sorted(expected):
        where = f"{case.name!r}, {variant.label}"
        raise AssertionError(_difference(where, rule, expected, set(found), findings))


def _compare(
    rule: str,
    case: Case,
    label: str,
    of_module: list[Finding],
    variant: _Variant,
    of_export: list[Finding],
) -> None:
    """The module's findings are what is expected of its export."""
    sides = (of_module, of_export)
    expected, found = (sorted((f.address, str(f.severity)) for f in side) for side in sides)
    if expected != found:
        where = f"{case.name!r}, {variant.label} against {label}"
        raise AssertionError(_difference(where, rule, set(expected), set(found), [*of_module, *of_export]))


def silent(build: Build, *, seeds: Sequence[int] = SEEDS, exporters: tuple[Exporter, ...] = EXPORTERS) -> None:
    """Assert that no rule has a warning or an error for the model, whatever the seed and the exporter."""
    for variant in _variants(build, exporters, seeds):
        loud = [finding for finding in _examine(variant).headlines if finding.severity >= Severity.WARNING]
        if loud:
            raise AssertionError(f"{variant.label}: a healthy model was blamed\n{_listing(loud)}")


def honest_export(module: torch.nn.Module, inputs: Any = None, exporter: Exporter = "legacy") -> onnx.ModelProto:
    """Export a module so that the file says what training will see: norms neither folded nor on (0, 1) statistics.

    ``inputs`` is a tensor, a tuple of positional or a dict of keyword arguments. The newer exporter leaves a graph as
    it is with ``optimize=False``; the legacy one needs training mode and no constant folding. Parameters, buffers,
    modes and the random state of the CPU are afterwards what they were.
    """
    if exporter == "dynamo":
        return _export(module, inputs, exporter, optimize=False)
    import torch

    return _export(module, inputs, exporter, training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False)


def default_export(module: torch.nn.Module, inputs: Any = None, exporter: Exporter = "legacy") -> onnx.ModelProto:
    """Export a module as most people do: in evaluation mode, norms folded where the exporter sees fit."""
    return _export(module, inputs, exporter)


@dataclass(frozen=True)
class _Variant:
    seed: int
    label: str
    model: Any
    """A ModelProto or a module."""
    inputs: Any = None

    @property
    def is_module(self) -> bool:
        return not isinstance(self.model, onnx.ModelProto)

    def fingerprint(self) -> object:
        return _fingerprint(self.model) if self.is_module else self.model.SerializeToString(deterministic=True)


def _variants(build: Build, exporters: Sequence[Exporter], seeds: Sequence[int]) -> Iterator[_Variant]:
    """Every seed as it is and by the first exporter; by the others, which are slow, the first seed."""
    for position, seed in enumerate(seeds):
        target = build(seed=seed)
        if isinstance(target, onnx.ModelProto):
            yield _Variant(seed, f"seed {seed}", target)
            continue
        module, inputs = target if isinstance(target, tuple) else (target, None)
        yield _Variant(seed, f"seed {seed}, the module", module, inputs)
        for exporter in exporters if position == 0 else exporters[:1]:
            before = _fingerprint(module)
            proto = honest_export(module, inputs, exporter)
            if _fingerprint(module) != before:
                raise AssertionError(f"seed {seed}: the {exporter} export has changed the module")
            yield _Variant(seed, f"seed {seed}, {exporter} exporter", proto)


def _examine(variant: _Variant, **settings: Any) -> Report:
    before = variant.fingerprint()
    report = initlint.check(variant.model, variant.inputs, **settings)
    if variant.fingerprint() != before:
        raise AssertionError(f"{variant.label}: the check has changed the model")
    if report.status is not Status.OK:
        reason = report.failure.message if report.failure else "no reason given"
        raise AssertionError(f"{variant.label}: the model could not be checked: {reason}")
    return report


def _wanted(severity: Severity | None) -> str:
    return "warning or error" if severity is None else str(severity)


def _difference(
    where: str, rule: str, expected: set[tuple[str, str]], found: set[tuple[str, str]], findings: list[Finding]
) -> str:
    lines = [f"{where}: {rule} said something else"]
    lines += [f"  missing: {severity} at {address or 'the model'}" for address, severity in sorted(expected - found)]
    lines += [f"  surplus: {severity} at {address or 'the model'}" for address, severity in sorted(found - expected)]
    return "\n".join([*lines, "  all it said:", _listing(findings) or "  nothing"])


def _listing(findings: list[Finding]) -> str:
    return "\n".join(f"  {f.severity} {f.rule} at {f.address or 'the model'}: {f.message}" for f in findings)


def _fingerprint(module: torch.nn.Module) -> tuple[tuple[str, Any], ...]:
    """Bytes of every parameter and buffer, and every submodule's mode."""
    import torch

    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    raw = tuple(
        (name, tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        for name, tensor in tensors.items()
        if tensor.numel()
    )
    return (*raw, *((name, child.training) for name, child in module.named_modules()))


def _export(module: torch.nn.Module, inputs: Any, exporter: Exporter, **recipe: Any) -> onnx.ModelProto:
    import torch

    positional, keywords = _arguments(module, inputs)
    with _untouched(module), _quiet(), torch.no_grad():
        module.eval()
        if exporter == "dynamo":
            program = torch.onnx.export(module, positional, kwargs=keywords, dynamo=True, verbose=False, **recipe)
            if program is None:
                raise UsageError("the exporter returned no program")
            return program.model_proto
        stream: Any = io.BytesIO()  # accepted, though torch annotates paths only
        torch.onnx.export(module, positional, stream, kwargs=keywords, dynamo=False, **recipe)
        return onnx.load_model_from_string(stream.getvalue())


def _arguments(module: torch.nn.Module, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any] | None]:
    if inputs is None:
        inputs = getattr(module, "example_input_array", None)
    if inputs is None:
        raise UsageError(f"{type(module).__name__} needs inputs: return (module, inputs) from the builder")
    if isinstance(inputs, dict):
        return (), inputs
    return (tuple(inputs), None) if isinstance(inputs, tuple | list) else ((inputs,), None)


@contextlib.contextmanager
def _untouched(module: torch.nn.Module) -> Iterator[None]:
    """Put parameters, buffers, modes and the random state back: training mode updates running statistics."""
    import torch

    modes = {child: child.training for child in module.modules()}
    tensors = [*module.parameters(), *module.buffers()]
    values = [tensor.detach().clone() for tensor in tensors]
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, value in zip(tensors, values, strict=True):
                    tensor.detach().copy_(value)
            for child, training in modes.items():
                child.training = training


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Swallow what exporters print, warn and log: none of it is about the test."""
    disabled, sink = logging.root.manager.disable, io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
