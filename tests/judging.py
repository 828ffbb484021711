"""Rules held against modules: findings compared by (address, severity), the module untouched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import initlint
from initlint.catalog import load_rules
from initlint.engine import judge
from initlint.plugin import Context, Finding, Severity
from initlint.probe.on_torch import TorchSession
from initlint.probe.signals import Signals
from initlint.settings import ProbeSettings
from initlint.testing import Bad, Build, Case, Good

BOTH = ProbeSettings(backward=True, liveness=True)


def probe(build: Build, seed: int = 0, loss: Any = None) -> Signals:
    """All signals of a built module."""
    module, inputs = build(seed)
    return TorchSession(module, inputs, {}, loss).probe(BOTH)


def findings(build: Build, seed: int = 0, select: Sequence[str] = ()) -> list[Finding]:
    """Headlines of the rules ``select``, all of them if empty, about a built module, which stays as it was."""
    module, inputs = build(seed)
    before = fingerprint(module)
    session = TorchSession(module, inputs, {})
    context = Context(session.model, session.stats(), session.probe(BOTH))
    rules = [rule for rule in load_rules() if not select or rule.name in select]
    verdict = judge(context, rules, {})
    assert [entry for entry in verdict.skipped if entry.rule in select] == []
    assert fingerprint(module) == before
    return [finding for finding in verdict.findings if finding.caused_by is None]


def fingerprint(module: torch.nn.Module) -> list[object]:
    """Every bit of the parameters, buffers and gradients; modes, hooks and random state."""
    tensors = [*module.parameters(), *module.buffers()]
    grads = [parameter.grad for parameter in module.parameters()]
    raw = [
        None if t is None else (t.dtype, t.detach().reshape(-1).view(torch.uint8).tolist()) for t in [*tensors, *grads]
    ]
    versions = [(tensor._version, tensor.requires_grad) for tensor in tensors]
    modes = [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks), sorted(vars(m))) for m in module.modules()]
    return [raw, versions, modes, torch.get_rng_state().tolist(), torch.is_grad_enabled()]


def check_module(rule: str, case: Case, seeds: Sequence[int] = (0, 1, 2)) -> None:
    """Assert that ``rule`` says of the case's module exactly what the case promises, whatever the seed."""
    for seed in seeds:
        found = findings(case.build, seed, [rule])
        if isinstance(case, Good):
            least = Severity.WARNING if case.notes_ok else Severity.NOTE
            assert [f for f in found if f.severity >= least] == [], f"seed {seed}"
        else:
            assert isinstance(case, Bad)
            loud = [f for f in found if f.severity >= min(Severity.WARNING, case.severity or Severity.WARNING)]
            said = sorted((f.address, f.severity if case.severity else None) for f in loud)
            assert said == sorted((address, case.severity) for address in case.at), f"seed {seed}"


def check_builder(rule: str, case: Case, seeds: Sequence[int] = (0, 1)) -> None:
    """Assert that ``rule`` says of the builder ``case.build``, called without arguments, what the case promises."""
    for seed in seeds:
        report = initlint.check(case.build, select=[rule], seed=seed)
        assert report.failure is None, report.failure
        assert [entry for entry in report.skipped_rules if entry.rule == rule] == []
        threshold = Severity.WARNING if isinstance(case, Good) and case.notes_ok else Severity.NOTE
        found = sorted((f.address, f.severity) for f in report.headlines if f.severity >= threshold)
        expected = [] if isinstance(case, Good) else sorted((address, case.severity) for address in case.at)
        assert found == expected, f"seed {seed}: {[str(f.message) for f in report.headlines]}"
