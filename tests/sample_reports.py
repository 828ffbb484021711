"""Reports made by hand, for tests of what is made of a report."""

from __future__ import annotations

from array import array
from dataclasses import replace

from initlint.errors import FailureKind
from initlint.fixes import Advice, Fill, Reinit
from initlint.kinds import Kind, Role
from initlint.model import Layer, NotChecked, Tensor, View
from initlint.plugin import Cause, Finding, Severity
from initlint.probe.signals import Forward, LayerSignal
from initlint.report import Failure, LayerRow, ProbeSummary, Report, SkippedRule, Status, Suppressed
from initlint.stats import WeightStats

HOSTILE = "fc\x1b[2J\u202e[red]\n"
"""A layer name that clears the screen, reverses text, plays markup and starts a new line."""

HOSTILE_NAMES = (
    HOSTILE,
    "]]><script>alert(1)</script><![CDATA[",
    "a%0Ab%25\r\n::error file=x,line=1::forged",
    "##[error]forged",
    "| cell | `code` ``` </code></details> @octocat #1 [link](https://example.invalid) ![image](x) $x$",
    "\u2066\u202e\u200b\ufeff\u2028",
    "\x00\x08\x7f\x9b\ufffe\uffff",
    "\ud800 alone, and \udc80",
    "{0} {{1}} %s \\ \" ' & ;",
    "x" * 10_000,
)
"""What a file may call its tensors, to get at the terminals, pages and pipelines of those who check it."""


def stats(std: float = 0.0884, scheme: str = "he_normal(fan_in)", confidence: float = 0.99) -> WeightStats:
    return WeightStats(
        count=100,
        nan=0,
        inf=0,
        zeros=0,
        min=-1.0,
        max=1.0,
        mean=0.0001,
        std=std,
        mean_square=std**2,
        kurtosis=0.0,
        zero_units=0,
        duplicate_units=0,
        chance_duplicates=0.0,
        unit_spread=1.0,
        scheme=scheme,
        scheme_confidence=confidence,
        unit_rms=array("f", [std]),
        values=array("f"),
    )


def signal(std: float) -> LayerSignal:
    return LayerSignal(
        samples=64,
        rms=std,
        mean=0.0,
        std=std,
        absmax=3 * std,
        nonfinite=0.0,
        saturated=0.0,
        unit_mean=array("f", [0.0]),
        unit_std=array("f", [std]),
        unit_max=array("f", [std]),
        unit_saturated=array("f"),
    )


def tensor(address: str, shape: tuple[int, ...], role: Role = Role.WEIGHT) -> Tensor:
    return Tensor(address, shape, "float32", role, View(1, shape[0], 1))


def row(name: str, kind: Kind, shape: tuple[int, ...], activation: str, std: float, fan_in: int | None) -> LayerRow:
    layer = Layer(name, kind, tensor(f"{name}.weight", shape), activation=activation, fan_in=fan_in, fan_out=shape[0])
    return LayerRow(layer, stats(), signal(std))


ROWS = (
    row("stem.conv", Kind.CONV, (64, 3, 7, 7), "relu", 1.42, 147),
    row("encoder.stages.0.blocks.0.conv1", Kind.CONV, (64, 64, 3, 3), "relu", 1.36, 576),
    row("encoder.stages.0.blocks.0.conv2", Kind.CONV, (64, 64, 3, 3), "relu", 0.21, 576),
    row("encoder.stages.0.blocks.1.conv1", Kind.CONV, (64, 64, 3, 3), "relu", 0.024, 576),
    row("encoder.norm", Kind.LAYER_NORM, (512,), "identity", 0.0031, None),
    row("head", Kind.LINEAR, (1000, 512), "identity", 2.7e-4, 512),
)

TOO_SMALL = Finding(
    rule="variance-mismatch",
    category="scale",
    severity=Severity.ERROR,
    layer="encoder.stages.0.blocks.0.conv2",
    tensor="encoder.stages.0.blocks.0.conv2.weight",
    message="weights are 7.1 times too small for relu: std 0.00832 where 0.0589 keeps the signal",
    data={"std": 0.00832, "wanted": 0.0589, "fan_in": 576, "signal_rms": 0.2134, "threshold": 4.0},
    fix=Reinit("encoder.stages.0.blocks.0.conv2.weight", "he_normal"),
    url="https://example.invalid/variance-mismatch",
)

DEAD = Finding(
    rule="dead-relu-bias",
    category="bias",
    severity=Severity.WARNING,
    layer="stem.conv",
    tensor="stem.conv.bias",
    message="48 of 64 units cannot fire: their bias lies below every pre-activation that the probe saw",
    data={"dead": 48, "units": 64, "bias": -10.0, "largest": 4.213},
    fix=Fill("stem.conv.bias", 0.0),
)

FOLDED_NORM = Finding(
    rule="folded-norm",
    category="provenance",
    severity=Severity.NOTE,
    layer=None,
    tensor=None,
    message="the exporter folded 53 batch norms into convolutions, so scale and signal are not those of training",
    data={"norms": 53},
    fix=Advice("", 'torch.onnx.export(model, inputs, "model.onnx",\n                  dynamo=True, optimize=False)'),
)


def consequence(rule: str, layer: str, severity: Severity = Severity.WARNING) -> Finding:
    return Finding(
        rule=rule,
        category="signal",
        severity=severity,
        layer=layer,
        tensor=None,
        message="the signal is 0.00019 of what went in",
        data={"share": 0.00019},
        caused_by=Cause(TOO_SMALL.rule, TOO_SMALL.address),
    )


def bias_note(layer: str) -> Finding:
    return Finding(
        rule="bias-before-norm",
        category="bias",
        severity=Severity.NOTE,
        layer=layer,
        tensor=f"{layer}.bias",
        message="the norm that follows removes this bias",
        data={},
    )


SICK = Report(
    target="resnet.onnx",
    format="onnx",
    parameters=25_557_032,
    seconds=1.312,
    probe=ProbeSummary(Forward.MEASURED, batch=16),
    layers=ROWS,
    findings=(
        DEAD,
        TOO_SMALL,
        consequence("vanishing-signal", "encoder.stages.0.blocks.1.conv1"),
        consequence("vanishing-signal", "encoder.norm"),
        consequence("dead-units", "head", Severity.NOTE),
        FOLDED_NORM,
        *(bias_note(f"encoder.stages.{stage}.blocks.0.conv1") for stage in range(5)),
    ),
    suppressed=(Suppressed(replace(DEAD, tensor="head.bias", layer="head"), "zero head, warm-up schedule"),),
    not_checked=(
        NotChecked("/branch/If_0", "branches of If are not followed"),
        NotChecked("/branch/If_1", "branches of If are not followed"),
        NotChecked("blob", "what operator Mystery does is not known"),
    ),
    skipped_rules=(SkippedRule("recurrent-radius", "needs liveness, which was not measured"),),
)

CLEAN = Report(
    "mlp.onnx", "onnx", parameters=12_345, seconds=0.04, probe=ProbeSummary(Forward.MEASURED), layers=ROWS[:2]
)

MISSING = Report(
    "missing.onnx",
    "onnx",
    status=Status.FAILED,
    failure=Failure(FailureKind.MISSING, "missing.onnx does not exist"),
)

CRASHED = replace(
    SICK,
    findings=(DEAD,),
    status=Status.FAILED,
    failure=Failure(FailureKind.CRASHED, "the ONNX runtime crashed (SIGSEGV) while probing"),
    probe=ProbeSummary(reason="the ONNX runtime crashed (SIGSEGV) while probing"),
    skipped_rules=(SkippedRule("vanishing-signal", "the ONNX runtime crashed (SIGSEGV) while probing"),),
    suppressed=(),
)


def hostile(name: str) -> Report:
    """A report in which everything that can be named is called ``name``."""
    nasty = row(name, Kind.LINEAR, (3, 3), "relu", 1.0, 3)
    finding = replace(
        DEAD, layer=name, tensor=f"{name}.bias", message=f"at {name}", data={name: name}, fix=Fill(f"{name}.bias", 0.0)
    )
    return replace(
        SICK,
        target=f"{name}.onnx",
        layers=(nasty, *ROWS),
        findings=(
            finding,
            replace(finding, severity=Severity.ERROR, rule="other-rule"),
            replace(consequence("a", name), caused_by=Cause(finding.rule, finding.address)),
        ),
        suppressed=(Suppressed(replace(finding, tensor=f"{name}.weight"), name),),
        not_checked=(NotChecked(name, name),),
        skipped_rules=(SkippedRule("a", name),),
        status=Status.FAILED,
        failure=Failure(FailureKind.CRASHED, f"crashed at {name}"),
    )
