"""The JSON contract (``initlint/schema.json``): strict JSON, non-finite numbers as the strings nan, inf and -inf."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from ..baseline import entry_to_dict
from ..maker import plain
from ..plugin import Finding
from ..probe.signals import LayerSignal
from ..report import LayerRow, ProbeSummary, Report, Run
from ..settings import Allow
from .layout import Layout

SCHEMA_VERSION = 1

_SIGNAL = ("samples", "rms", "mean", "std", "absmax", "nonfinite", "saturated")
"""Scalars of a LayerSignal; the arrays per unit stay out."""


def render(run: Run, layout: Layout) -> str:
    return json.dumps(run_to_dict(run), indent=2, allow_nan=False) + "\n"


def run_to_dict(run: Run) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "initlint_version": metadata.version("initlint"),
        "reports": [report_to_dict(report) for report in run.reports],
        "unused_exceptions": [_exception(allow) for allow in run.unused_exceptions],
        "vanished": [entry_to_dict(entry) for entry in run.vanished],
        "summary": dict(run.summary()),
    }


def report_to_dict(report: Report) -> dict[str, Any]:
    failure = report.failure
    return {
        "target": report.target,
        "format": report.format,
        "status": str(report.status),
        "failure": None if failure is None else {"kind": str(failure.kind), "message": failure.message},
        "parameters": report.parameters,
        "seconds": round(report.seconds, 3),
        "probe": _probe(report.probe),
        "layers": [_layer(row) for row in report.layers],
        "findings": [finding_to_dict(finding) for finding in report.findings],
        "suppressed": [
            {"finding": finding_to_dict(entry.finding), "reason": entry.reason} for entry in report.suppressed
        ],
        "expired_exceptions": [_exception(allow) for allow in report.expired],
        "not_checked": [{"at": entry.at, "reason": entry.reason} for entry in report.not_checked],
        "skipped_rules": [{"rule": entry.rule, "reason": entry.reason} for entry in report.skipped_rules],
    }


def _exception(allow: Allow) -> dict[str, Any]:
    return {
        "rule": allow.rule,
        "at": allow.at,
        "target": allow.target,
        "reason": allow.reason,
        "until": None if allow.until is None else allow.until.isoformat(),
    }


def _probe(probe: ProbeSummary) -> dict[str, Any]:
    return {
        "forward": str(probe.forward),
        "backward": str(probe.backward),
        "batch": probe.batch,
        "seed": probe.seed,
        "loss": str(probe.loss),
        "reason": probe.reason or None,
    }


def _layer(row: LayerRow) -> dict[str, Any]:
    layer, stats = row.layer, row.stats
    return {
        "name": layer.name,
        "kind": str(layer.kind),
        "tensor": layer.weight.address,
        "shape": list(layer.weight.shape),
        "fan_in": layer.fan_in,
        "fan_out": layer.fan_out,
        "activation": layer.activation,
        "scheme": None if stats is None else stats.scheme,
        "mean": None if stats is None else _strict(stats.mean),
        "std": None if stats is None else _strict(stats.std),
        "signal": {} if row.signal is None else _signal(row.signal),
        "gradient": {},
    }


def _signal(signal: LayerSignal) -> dict[str, Any]:
    return {name: _strict(getattr(signal, name)) for name in _SIGNAL}


def finding_to_dict(finding: Finding) -> dict[str, Any]:
    cause, fix = finding.caused_by, finding.fix
    return {
        "rule": finding.rule,
        "category": finding.category,
        "severity": str(finding.severity),
        "layer": finding.layer,
        "tensor": finding.tensor,
        "message": finding.message,
        "data": _values(finding.data),
        "caused_by": None if cause is None else {"rule": cause.rule, "address": cause.address},
        "fix": None
        if fix is None
        else {
            "kind": fix.kind,
            "tensor": plain(fix.tensor),
            "code": fix.code,
            "verified": finding.verified,
            "before": _values(finding.before),
            "after": _values(finding.after),
        },
        "url": finding.url,
    }


def _values(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _strict(value) for name, value in data.items()}


def _strict(value: Any) -> Any:
    """``value`` as strict JSON can say it."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return list(value) if isinstance(value, tuple) else value
