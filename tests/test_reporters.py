"""What people and programs read of a report."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from importlib import resources
from typing import Any

import jsonschema
import pytest
from expected_text import as_expected
from sample_reports import CLEAN, CRASHED, DEAD, HOSTILE, MISSING, ROWS, SICK, TOO_SMALL, consequence, row, signal

from initlint.errors import FailureKind
from initlint.kinds import Kind
from initlint.model import NotChecked
from initlint.plugin import Cause, Severity
from initlint.probe.signals import Forward
from initlint.report import Failure, LayerRow, ProbeSummary, Report, Run, SkippedRule
from initlint.reporters import FORMATS, as_json, as_text, render
from initlint.reporters.layer_table import layer_table
from initlint.reporters.layout import ASCII, UNICODE, Detail, Layout
from initlint.reporters.profile import profile, sparkline
from initlint.reporters.wording import duration, number, plural, printable, quantity, shortened

NORMAL, QUIET, VERBOSE = Layout(), Layout(detail=Detail.QUIET), Layout(detail=Detail.VERBOSE)


def text(*reports: Report, layout: Layout = NORMAL) -> str:
    return as_text.render(Run(reports), layout)


# Text ---------------------------------------------------------------------------------------------------------------


def test_a_report_reads_well_in_80_columns() -> None:
    as_expected("report.txt", text(SICK))


def test_a_clean_report_is_short() -> None:
    assert text(CLEAN).splitlines() == [
        "mlp.onnx  onnx, 2 layers, 12.3 k parameters",
        "signal by depth  ▅▄  std 1.36 to 1.42 (log scale)",
        "",
        "all clean: 2 layers, 12.3 k parameters, 0.04 s",
    ]


def test_quietly_a_clean_report_is_one_line() -> None:
    assert text(CLEAN, layout=QUIET) == "all clean: 2 layers, 12.3 k parameters, 0.04 s\n"


def test_quietly_findings_stay_and_the_rest_goes() -> None:
    shown = text(SICK, layout=QUIET)
    assert "variance-mismatch" in shown
    for left_out in ("signal by depth", "skipped", "not checked", "allowed"):
        assert left_out not in shown


def test_only_names_code_and_failures_are_wider_than_the_layout() -> None:
    for width in (60, 80, 120):
        for line in text(SICK, CRASHED, MISSING, layout=Layout(width=width, detail=Detail.VERBOSE)).splitlines():
            code = "nn.init." in line or "torch.onnx" in line or "dynamo" in line
            heading = line.startswith(("encoder.", "  error    ", "  warning  ", "  note     ", "  failed  "))
            assert len(line) <= width or code or heading


def test_a_fix_is_never_broken_over_lines() -> None:
    assert f"fix (suggested, not tried):\n      {TOO_SMALL.fix.code}\n" in text(SICK, layout=Layout(width=40))  # type: ignore[union-attr]


def test_a_verified_fix_tells_before_and_after() -> None:
    proven = replace(DEAD, verified=True, before={"dead": 0.75}, after={"dead": 0.0})
    assert "0)  # tried: dead 0.75 -> 0\n" in text(replace(CLEAN, findings=(proven,)), layout=Layout(width=120))
    assert "    fix (tried: dead 0.75 -> 0):\n      nn.init" in text(replace(CLEAN, findings=(proven,)))


def test_evidence_leaves_out_what_the_message_says_except_verbosely() -> None:
    assert "\n    bias -10 · largest 4.21\n" in text(SICK)
    assert "\n    dead 48 · units 64 · bias -10 · largest 4.21\n" in text(SICK, layout=VERBOSE)


def test_consequences_are_counted_under_their_cause_and_listed_verbosely() -> None:
    assert "explains 3 more findings: vanishing-signal (2), dead-units (1)" in text(SICK)
    assert "vanishing-signal encoder.norm" not in text(SICK)
    assert "warning vanishing-signal encoder.norm: the signal is" in text(SICK, layout=VERBOSE)


def test_consequences_of_consequences_stand_under_the_first_cause() -> None:
    first = consequence("vanishing-signal", "encoder.norm")
    second = replace(consequence("dead-units", "head"), caused_by=Cause(first.rule, first.address))
    shown = text(replace(CLEAN, findings=(TOO_SMALL, second, first)))
    assert "explains 2 more findings: dead-units (1), vanishing-signal (1)" in shown


def test_consequences_without_their_cause_are_mentioned() -> None:
    shown = text(replace(CLEAN, findings=(consequence("dead-units", "head"),)))
    assert "folded: 1 finding that followed from something in a layer left out" in shown


def test_many_notes_of_one_rule_are_one_entry_except_verbosely() -> None:
    assert text(SICK).count("bias-before-norm") == 1
    assert text(SICK, layout=VERBOSE).count("bias-before-norm") == 5
    two = replace(SICK, findings=SICK.findings[-2:])
    assert text(two).count("bias-before-norm") == 2


def test_layers_come_in_execution_order_and_the_worst_finding_first() -> None:
    late = replace(DEAD, layer="head", tensor="head.bias", severity=Severity.ERROR)
    mild = replace(DEAD, rule="mild-rule", severity=Severity.NOTE)
    shown = text(replace(SICK, findings=(late, mild, DEAD)))
    assert shown.index("dead-relu-bias  stem") < shown.index("mild-rule") < shown.index("dead-relu-bias  head")


def test_a_failure_is_one_sentence_beside_the_findings_already_made() -> None:
    shown = text(CRASHED)
    assert "  failed  the ONNX runtime crashed (SIGSEGV) while probing\n" in shown
    assert "dead-relu-bias" in shown
    assert shown.count("SIGSEGV") == 1
    assert shown.splitlines()[-2:] == [
        "1 warning in 6 layers, 25.6 M parameters, 1.3 s",
        "1 target could not be checked to the end",
    ]


def test_a_target_that_cannot_be_checked_leaves_the_others_their_summary() -> None:
    assert text(MISSING).splitlines() == [
        "missing.onnx",
        "  failed  missing.onnx does not exist",
        "",
        "1 target could not be checked",
    ]
    assert text(CLEAN, MISSING).splitlines()[-2:] == [
        "nothing found in 2 layers, 12.3 k parameters, 0.04 s",
        "1 target could not be checked",
    ]


@pytest.mark.parametrize(
    "incomplete",
    [
        replace(CLEAN, skipped_rules=(SkippedRule("dead-units", "needs the probe"),)),
        replace(CLEAN, not_checked=(NotChecked("blob", "not known"),)),
    ],
)
def test_all_clean_is_said_only_of_what_was_checked_whole(incomplete: Report) -> None:
    assert text(incomplete).splitlines()[-1].startswith("clean as far as it was checked: 2 layers")


def test_why_there_was_no_probe_is_said_once() -> None:
    reason = 'dimension "n" of input "x" is open; give --dim n=8'
    skipped = tuple(SkippedRule(rule, reason) for rule in ("dead-units", "vanishing-signal"))
    shown = text(replace(CLEAN, probe=ProbeSummary(reason=reason), skipped_rules=skipped))
    assert f"not probed: {reason}\n" in shown
    assert "skipped 2 rules: dead-units, vanishing-signal (see above)" in shown
    assert shown.count(reason) == 1


def test_why_there_are_no_gradients_is_said_where_rules_are_skipped_for_it() -> None:
    reason = "no gradients: none of the model's parameters is trainable"
    probe = ProbeSummary(forward=Forward.MEASURED, reason=reason)
    shown = text(replace(CLEAN, probe=probe, skipped_rules=(SkippedRule("update-ratio", reason),)))
    assert f"skipped 1 rule: update-ratio ({reason})" in " ".join(shown.split())


def test_what_a_failure_says_is_not_said_again() -> None:
    failure = Failure(FailureKind.CRASHED, "the runtime crashed")
    skipped = (SkippedRule("dead-units", failure.message),)
    shown = text(replace(CLEAN, failure=failure, probe=ProbeSummary(reason=failure.message), skipped_rules=skipped))
    assert "skipped 1 rule: dead-units (see above)" in shown


def test_statistics_count_headlines_by_rule() -> None:
    assert as_text.render_statistics(Run((SICK, SICK)), Layout()).splitlines() == [
        "    2  error    variance-mismatch",
        "    2  warning  dead-relu-bias",
        "   10  note     bias-before-norm",
        "    2  note     folded-norm",
    ]


def test_print_shows_a_report_in_100_columns_without_colour() -> None:
    assert str(SICK) == text(SICK, layout=Layout(width=100)).rstrip("\n")
    assert "\x1b" not in str(SICK)


def test_colour_changes_nothing_but_the_colour() -> None:
    colourful = text(SICK, MISSING, layout=Layout(color=True))
    assert "\x1b[1;31merror" in colourful
    assert re.sub(r" +$", "", re.sub(r"\x1b\[[\d;]*m", "", colourful), flags=re.M) == text(SICK, MISSING)


def test_ascii_signs_are_enough() -> None:
    assert text(SICK, layout=Layout(signs=ASCII, detail=Detail.VERBOSE)).isascii()


# Names from models are hostile ---------------------------------------------------------------------------------------


def hostile_report() -> Report:
    nasty = row(HOSTILE, Kind.LINEAR, (3, 3), "relu", 1.0, 3)
    finding = replace(DEAD, layer=HOSTILE, tensor=f"{HOSTILE}.bias", message=f"at {HOSTILE}", data={HOSTILE: HOSTILE})
    return replace(
        SICK,
        target=f"{HOSTILE}.onnx",
        layers=(nasty, *ROWS),
        findings=(finding, replace(consequence("a", HOSTILE), caused_by=Cause(finding.rule, finding.address))),
        not_checked=(NotChecked(HOSTILE, HOSTILE),),
        skipped_rules=(SkippedRule("a", HOSTILE),),
    )


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("detail", Detail)
def test_no_name_reaches_the_terminal_unescaped(output_format: str, detail: Detail) -> None:
    shown = render(Run((hostile_report(),)), output_format, Layout(detail=detail))
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert r"\u202e" in shown
    assert "[red]" in shown or r"\[red\]" in shown  # markup is shown, not played


def test_a_name_cannot_forge_a_line() -> None:
    report = hostile_report()
    lines = render(Run((report,)), "concise", Layout()).splitlines()
    assert len(lines) == len(report.headlines) + len(report.skipped_rules) + len(report.not_checked)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("encoder.0", "encoder.0"),
        ("schön · 层", "schön · 层"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\nb\tc\r", r"a\x0ab\x09c\x0d"),
        ("\x9b", r"\x9b"),
        ("\u2066\u200b\u2028\ufeff", r"\u2066\u200b\u2028\ufeff"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_invisible_signs_are_shown_as_escapes(name: str, shown: str) -> None:
    assert printable(name) == shown


# The layer table and the signal by depth -----------------------------------------------------------------------------


def test_the_layer_table_fits_80_columns_and_cuts_names_in_the_middle() -> None:
    as_expected("layer_table.txt", "".join(f"{line}\n" for line in layer_table(ROWS, Layout(width=80))))


def test_a_wide_layer_table_has_every_column() -> None:
    heading, first, *_ = layer_table(ROWS, Layout(width=120))
    assert heading.split() == ["layer", "kind", "shape", "fan_in", "then", "scheme", "std", "signal"]
    assert first.split()[:4] == ["stem.conv", "conv", "64\u00d73\u00d77\u00d77", "147"]


def test_what_was_not_measured_is_a_dash_and_a_column_of_dashes_is_left_out() -> None:
    unread = [LayerRow(known.layer) for known in ROWS]
    assert layer_table([*unread[:1], *ROWS[1:]], Layout())[1].split()[-3:] == ["-", "-", "-"]
    assert layer_table(unread, Layout(width=120))[0].split() == ["layer", "kind", "shape", "fan_in", "then"]


def test_the_profile_is_flat_for_a_healthy_net_and_falls_for_a_dying_one() -> None:
    assert sparkline([1.0, 1.1, 0.9, 1.05], 80, UNICODE.levels) == "▅▅▄▅"
    assert sparkline([1.0, 1e-2, 1e-4, 1e-7], 80, UNICODE.levels) == "█▆▄▁"


def test_the_profile_shows_zero_and_broken_signals_as_what_they_are() -> None:
    assert sparkline([1.0, 0.0, math.nan, math.inf], 80, ASCII.levels) == "=0!!"


def test_a_long_profile_is_squeezed_without_losing_a_zero() -> None:
    squeezed = sparkline([1.0] * 500 + [0.0] + [1.0] * 499, 40, UNICODE.levels)
    assert len(squeezed) == 40
    assert squeezed.count("0") == 1


def test_the_profile_keeps_its_width_and_needs_two_layers() -> None:
    rows = [replace(ROWS[0], signal=signal(1.5**i)) for i in range(-100, 100)]
    assert len(profile(rows, 60, UNICODE) or "") == 60
    assert profile(ROWS[:1], 60, UNICODE) is None
    assert profile([LayerRow(known.layer) for known in ROWS], 60, UNICODE) is None


# Wording -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.123456, "0.123"),
        (1.0, "1"),
        (12345.6, "1.23e4"),
        (1.234e-7, "1.23e-7"),
        (1e10, "1e10"),
        (36864, "36,864"),
        (-10.0, "-10"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, shown: str) -> None:
    assert number(value) == shown


def test_counts_and_times_are_short() -> None:
    assert [quantity(n) for n in (7, 9999, 12_345, 25_557_032, 7 * 10**9)] == ["7", "9,999", "12.3 k", "25.6 M", "7 B"]
    assert [duration(s) for s in (0.004, 1.31, 75.0)] == ["0.004 s", "1.3 s", "1 min 15 s"]
    assert [plural(n, "layer") for n in (0, 1, 2)] == ["0 layers", "1 layer", "2 layers"]


def test_names_are_cut_in_the_middle() -> None:
    assert shortened("encoder.layers.0.weight", 11, "…") == "encod…eight"
    assert shortened("short", 11, "…") == "short"


# Concise -------------------------------------------------------------------------------------------------------------


def test_concise_is_one_line_per_headline_failure_and_gap() -> None:
    lines = render(Run((replace(SICK, findings=SICK.findings[:6]), MISSING)), "concise", Layout()).splitlines()
    assert lines == [
        "resnet.onnx: stem.conv.bias: warning dead-relu-bias 48 of 64 units cannot fire: "
        "their bias lies below every pre-activation that the probe saw",
        "resnet.onnx: encoder.stages.0.blocks.0.conv2.weight: error variance-mismatch weights are 7.1 times too small "
        "for relu: std 0.00832 where 0.0589 keeps the signal",
        "resnet.onnx: model: note folded-norm the exporter folded 53 batch norms into convolutions, "
        "so scale and signal are not those of training",
        "resnet.onnx: skipped rules: recurrent-radius: needs liveness, which was not measured",
        "resnet.onnx: not checked: /branch/If_0, /branch/If_1: branches of If are not followed",
        "resnet.onnx: not checked: blob: what operator Mystery does is not known",
        "missing.onnx: failed missing: missing.onnx does not exist",
    ]


# JSON ----------------------------------------------------------------------------------------------------------------

SCHEMA = json.loads(resources.files("initlint").joinpath("schema.json").read_text(encoding="utf-8"))


def parsed(*reports: Report) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not strict JSON")

    return json.loads(render(Run(reports), "json", Layout()), parse_constant=refuse)


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("report", [SICK, CLEAN, MISSING, CRASHED, hostile_report()])
def test_json_follows_the_schema(report: Report) -> None:
    jsonschema.validate(parsed(report), SCHEMA, cls=jsonschema.Draft202012Validator)
    assert parsed(report) == Run((report,)).to_dict()
    assert parsed(report)["reports"] == [report.to_dict()]


def objects(schema: Any) -> list[dict[str, Any]]:
    nested = schema.values() if isinstance(schema, dict) else (schema if isinstance(schema, list) else ())
    here = [schema] if isinstance(schema, dict) and schema.get("type") == "object" else []
    return here + [found for part in nested for found in objects(part)]


def test_the_schema_leaves_no_key_unnamed() -> None:
    for described in objects(SCHEMA):
        assert "additionalProperties" in described
        assert described["additionalProperties"] is not True
        assert sorted(described.get("required", [])) == sorted(described.get("properties", {}))


def test_json_says_non_finite_numbers_as_strings() -> None:
    broken = replace(DEAD, data={"std": math.nan, "low": -math.inf, "high": math.inf, "at": ["a"], "on": True})
    rows = (LayerRow(ROWS[0].layer, replace(ROWS[0].stats, std=math.nan), signal(math.inf)),)  # type: ignore[type-var]
    found = parsed(replace(CLEAN, findings=(broken,), layers=rows))
    report = found["reports"][0]
    assert report["findings"][0]["data"] == {"std": "nan", "low": "-inf", "high": "inf", "at": ["a"], "on": True}
    assert report["layers"][0]["std"] == "nan"
    assert report["layers"][0]["signal"]["rms"] == "inf"
    jsonschema.validate(found, SCHEMA)


def test_json_counts_headlines_and_carries_the_exit_status() -> None:
    assert parsed(SICK, MISSING)["summary"] == {"errors": 1, "warnings": 1, "notes": 6, "exit_status": 2}


def test_json_holds_scalars_of_a_signal_not_its_arrays() -> None:
    assert parsed(SICK)["reports"][0]["layers"][0]["signal"].keys() == {
        "samples", "rms", "mean", "std", "absmax", "nonfinite", "saturated"
    }  # fmt: skip


def test_json_of_a_fix_says_that_it_was_not_tried() -> None:
    found = as_json.report_to_dict(SICK)["findings"][0]
    assert found["fix"] == {
        "kind": "fill",
        "tensor": "stem.conv.bias",
        "code": DEAD.fix.code,  # type: ignore[union-attr]
        "verified": False,
        "before": {},
        "after": {},
    }
    assert found["caused_by"] is None


def test_reporters_for_programs_do_not_import_rich() -> None:
    modules = [f"initlint.reporters.{module}" for name, module in FORMATS.items() if name != "text"]
    script = f"import sys, {', '.join(modules)}, initlint.output; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
