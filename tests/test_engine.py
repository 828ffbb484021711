"""One fault is one finding: precedence, folding, muting, and rules that fail."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from models import batchnorm_resnet
from models.graphs import Array, Change, mlp

import initlint
from initlint import listings
from initlint.engine import judge
from initlint.kinds import Kind, Role, Use
from initlint.model import Layer, Model, Tensor, View
from initlint.plugin import Context, Fill, Needs, Rule, Severity, Signals, Suspicion, rule
from initlint.probe.signals import Forward, LayerSignal
from initlint.testing import default_export

pytestmark = pytest.mark.usefixtures("opened_here")

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


def layer(name: str, *producers: str) -> Layer:
    weight = Tensor(f"{name}.weight", (4, 4), "float32", Role.WEIGHT, View(1, 4, 4))
    return Layer(name, Kind.LINEAR, weight, fan_in=4, producers=producers)


CHAIN = Model("onnx", (layer("a"), layer("b", "a"), layer("c", "b"), layer("d", "a")), (), 64)
"""a feeds b, which feeds c; d hangs on a beside them."""

NO_SIGNAL = LayerSignal(1, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, array("f"), array("f"), array("f"), array("f"))
PROBED = Signals(Forward.MEASURED, layers={each.name: NO_SIGNAL for each in CHAIN.layers})


def context(model: Model = CHAIN, signals: Signals = PROBED) -> Context:
    return Context(model, {}, signals)


def speaker(
    name: str,
    *at: tuple[str, Severity],
    category: str = "test",
    needs: Needs = Needs.STRUCTURE,
    **relations: tuple[str, ...],
) -> Rule:
    """A rule that says the same of every model; an address without a dot is a layer, an empty one the model."""

    def generate(context: Context, options: object) -> Iterator[Suspicion]:
        for address, severity in at:
            place = context.model if not address else address if "." in address else context.model.layer(address)
            yield Suspicion(place, severity)

    generate.__name__ = name
    return rule(category=category, message="said", needs=needs, **relations)(generate)


def said(*rules: Rule, model: Model = CHAIN) -> list[tuple[str, str, Severity, str]]:
    """(rule, address, severity, rule of the cause) of every finding."""
    findings = judge(context(model), rules, {}).findings
    return [(f.rule, f.address, f.severity, f.caused_by.rule if f.caused_by else "") for f in findings]


def test_a_rule_silences_those_it_overrides_at_the_same_tensor_only() -> None:
    strong = speaker("strong", ("a.weight", ERROR), overrides=("weak",))
    weak = speaker("weak", ("a.weight", WARNING), ("b.weight", WARNING))
    for order in ((strong, weak), (weak, strong)):
        assert said(*order) == [("strong", "a.weight", ERROR, ""), ("weak", "b.weight", WARNING, "")]


def test_a_finding_of_a_part_silences_the_tensor_and_the_other_way_round() -> None:
    assert said(
        speaker("strong", ("a.weight[q]", NOTE), overrides=("weak",)), speaker("weak", ("a.weight", ERROR))
    ) == [("strong", "a.weight[q]", NOTE, "")]


def test_a_rule_speaks_once_at_one_address_and_says_the_gravest() -> None:
    twice = speaker("twice", ("a.weight", NOTE), ("b.weight", NOTE), ("a.weight", ERROR), ("b.weight", NOTE))
    assert said(twice) == [("twice", "a.weight", ERROR, ""), ("twice", "b.weight", NOTE, "")]


def test_a_fix_asks_a_module_for_what_it_is() -> None:
    @rule(category="test", message="said")
    def filler(context: Context, options: object) -> Iterator[Suspicion]:
        for address in ("a.weight", "b.weight"):
            yield Suspicion(address, WARNING, fix=Fill(address, 1.0))

    model = replace(CHAIN, buffers=frozenset({"b.weight"}))
    assert [f.fix.code for f in judge(context(model), [filler], {}).findings if f.fix] == [
        'nn.init.constant_(model.get_parameter("a.weight"), 1)',
        'nn.init.constant_(model.get_buffer("b.weight"), 1)',
    ]


def test_a_symptom_downstream_is_folded_under_its_cause() -> None:
    cause, symptom = speaker("cause", ("a.weight", ERROR), explains=("symptom",)), speaker("symptom", ("c", ERROR))
    assert said(symptom, cause) == [("cause", "a.weight", ERROR, ""), ("symptom", "c", ERROR, "cause")]


def test_a_symptom_upstream_or_beside_is_no_consequence() -> None:
    cause, symptom = (
        speaker("cause", ("b.weight", ERROR), explains=("symptom",)),
        speaker("symptom", ("a", ERROR), ("d", ERROR)),
    )
    assert {(name, cause) for name, _, _, cause in said(cause, symptom)} == {("cause", ""), ("symptom", "")}


def test_a_cause_takes_over_the_severity_of_its_symptom() -> None:
    cause, symptom = speaker("cause", ("a.weight", WARNING), explains=("symptom",)), speaker("symptom", ("c", ERROR))
    assert said(cause, symptom)[0] == ("cause", "a.weight", ERROR, "")


def test_a_note_stays_a_note_whatever_it_explains() -> None:
    cause, symptom = speaker("cause", ("a.weight", NOTE), explains=("symptom",)), speaker("symptom", ("c", ERROR))
    assert said(cause, symptom)[0] == ("cause", "a.weight", NOTE, "")


def test_of_many_symptoms_in_a_row_the_first_is_the_headline() -> None:
    symptom = speaker("symptom", ("a", WARNING), ("b", WARNING), ("c", ERROR), explains=("symptom",))
    assert said(symptom) == [
        ("symptom", "a", ERROR, ""),
        ("symptom", "b", WARNING, "symptom"),
        ("symptom", "c", ERROR, "symptom"),
    ]


def test_a_chain_of_causes_ends_at_its_root() -> None:
    root = speaker("root", ("a.weight", WARNING), explains=("middle",))
    middle, last = speaker("middle", ("b", WARNING), explains=("last",)), speaker("last", ("c", ERROR))
    assert said(root, middle, last) == [
        ("root", "a.weight", ERROR, ""),
        ("middle", "b", WARNING, "root"),
        ("last", "c", ERROR, "root"),
    ]


def test_of_two_that_explain_each_other_the_gravest_is_the_headline() -> None:
    one, two = speaker("one", ("a", WARNING), explains=("two",)), speaker("two", ("a", ERROR), explains=("one",))
    for order in ((one, two), (two, one)):
        assert said(*order) == [("two", "a", ERROR, ""), ("one", "a", WARNING, "two")]


def test_of_two_that_explain_each_other_neither_is_the_headline_where_a_third_explains_both() -> None:
    one, two = speaker("one", ("a", ERROR), explains=("two",)), speaker("two", ("a", ERROR), explains=("one",))
    root = speaker("root", ("a.weight", WARNING), explains=("one", "two"))
    assert sorted(said(root, one, two)) == [
        ("one", "a", ERROR, "root"),
        ("root", "a.weight", ERROR, ""),
        ("two", "a", ERROR, "root"),
    ]


def test_a_muted_category_is_silent_and_says_so() -> None:
    muting = speaker("muting", ("", NOTE), category="provenance", mutes=("scale",))
    scale, other = speaker("scale", ("a", ERROR), category="scale"), speaker("other", ("b", ERROR), category="symmetry")
    verdict = judge(context(), (muting, scale, other), {})
    assert [finding.rule for finding in verdict.findings] == ["muting", "other"]
    assert [(entry.rule, entry.reason) for entry in verdict.skipped] == [("scale", "gives way to muting")]


def test_a_rule_that_raises_is_skipped_with_a_reason_and_the_others_still_speak(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("INITLINT_DEBUG", raising=False)

    def broken(context: Context, options: object) -> Iterator[Suspicion]:
        yield Suspicion(context.model, ERROR)
        raise ZeroDivisionError("by nothing")

    verdict = judge(context(), (rule(category="test", message="said")(broken), speaker("sound", ("a", NOTE))), {})
    assert "sound" in [finding.rule for finding in verdict.findings]
    assert [entry.rule for entry in verdict.skipped] == ["broken"]
    assert "ZeroDivisionError: by nothing" in verdict.skipped[0].reason


def test_a_message_with_an_unfilled_placeholder_is_a_fault_of_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INITLINT_DEBUG", raising=False)

    def forgetful(context: Context, options: object) -> Iterator[Suspicion]:
        yield Suspicion(context.model, ERROR, {"there": 1})

    verdict = judge(context(), (rule(category="test", message="{there} {missing}")(forgetful),), {})
    assert verdict.findings == ()
    assert "missing" in verdict.skipped[0].reason


def test_the_signal_may_be_predicted_and_the_forward_probe_is_told_as_one_need() -> None:
    needs = Needs.WEIGHTS | Needs.SIGNAL
    connected = replace(CHAIN, layers=tuple(replace(each, uses=frozenset({Use.LAYER})) for each in CHAIN.layers))
    seer = speaker("seer", ("a", ERROR), needs=Needs.SIGNAL)
    verdict = judge(context(connected, Signals(Forward.NONE)), (seer,), {})
    assert [finding.rule for finding in verdict.findings] == ["seer"]
    blind = judge(context(signals=Signals(Forward.NONE)), (seer,), {})  # weights alone: nothing leads anywhere
    assert [entry.rule for entry in blind.skipped] == ["seer"]
    told = listings.rules_as_json([speaker("seer", needs=needs), speaker("prober", needs=Needs.FORWARD)])
    assert [each["needs"] for each in json.loads(told)] == [["weights", "signal"], ["forward"]]


def test_a_rule_that_lacks_what_it_needs_is_skipped_with_the_probes_reason() -> None:
    unprobed = Signals(Forward.NONE, reason="the custom operator Foo cannot be run")
    verdict = judge(context(signals=unprobed), (speaker("needy", ("a", ERROR), needs=Needs.FORWARD),), {})
    assert (verdict.findings, verdict.skipped[0].reason) == ((), "the custom operator Foo cannot be run")


def test_findings_come_in_reading_order() -> None:
    noisy = speaker(
        "noisy", ("c", ERROR), ("a", NOTE), ("", NOTE), ("b", WARNING), ("b.weight", ERROR), ("a.weight", WARNING)
    )
    addresses = [finding.address for finding in judge(context(), (noisy,), {}).findings]
    assert addresses == ["", "a.weight", "a", "b.weight", "b", "c"]


def test_rules_get_the_options_that_were_set() -> None:
    def optioned(context: Context, options: object) -> Iterator[Suspicion]:
        yield Suspicion(context.model, NOTE, {"options": str(options)})

    verdict = judge(context(), (rule(category="test", message="{options}")(optioned),), {"optioned": "mine"})
    assert verdict.findings[0].message == "mine"


# -- the shipped rules together ------------------------------------------------------------------------------------


def headlines(**changes: Change) -> list[tuple[str, str, Severity]]:
    report = initlint.check(mlp(changes={name.replace("_", "."): change for name, change in changes.items()}))
    assert [entry for entry in report.skipped_rules if "failed" in entry.reason] == []
    return [(finding.rule, finding.address, finding.severity) for finding in report.headlines]


def mixed(first: float, second: float, weight: Array) -> Array:
    """Half of the units ``first``, half ``second``."""
    half = len(weight) // 2
    return np.concatenate([np.full_like(weight[:half], first), np.full_like(weight[half:], second)])


def heavy_tailed(factor: float, weight: Array) -> Array:
    rng = np.random.default_rng(0)
    return factor * np.exp(0.5 * rng.standard_normal((len(weight), 1))) * rng.standard_t(5, weight.shape)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(np.nan, ("non-finite-weights", ERROR), id="NaN throughout"),
        pytest.param(np.inf, ("non-finite-weights", ERROR), id="infinity throughout"),
        pytest.param(partial(mixed, np.nan, 0.0), ("non-finite-weights", ERROR), id="NaN beside zeros"),
        pytest.param(0.0, ("zero-weights", ERROR), id="zeros, which are constant and duplicate too"),
        pytest.param(0.1, ("constant-weights", WARNING), id="a constant, which is duplicate too"),
        pytest.param(partial(mixed, 0.1, -0.1), ("duplicate-units", WARNING), id="two constants"),
        pytest.param(lambda w: 100 * w, ("variance-mismatch", ERROR), id="x100, with the explosion folded under it"),
        pytest.param(
            lambda w: 0 * w + 1e4, ("constant-weights", ERROR), id="a loud constant, with the explosion under it"
        ),
        pytest.param(partial(heavy_tailed, 0.1), ("looks-trained", NOTE), id="trained"),
    ],
)
def test_one_fault_of_a_weight_is_one_headline(change: Change, expected: tuple[str, Severity]) -> None:
    assert headlines(**{"2_weight": change}) == [(expected[0], "2.weight", expected[1])]


def test_a_dead_layer_is_folded_under_the_bias_that_killed_it() -> None:
    assert headlines(**{"2_bias": -20.0}) == [("dead-relu-bias", "2.bias", ERROR)]


def test_two_independent_faults_are_two_headlines() -> None:
    found = headlines(**{"0_weight": 0.1, "4_weight": lambda w: np.concatenate([w[:32], w[:32]])})
    assert found == [("constant-weights", "0.weight", WARNING), ("duplicate-units", "4.weight", WARNING)]


def test_looks_trained_mutes_the_scale_of_its_tensor_and_nothing_else() -> None:
    found = headlines(**{"2_weight": partial(heavy_tailed, 0.1), "0_weight": 0.0, "6_weight": np.nan})
    assert ("looks-trained", "2.weight", NOTE) in found
    assert ("zero-weights", "0.weight", ERROR) in found
    assert ("non-finite-weights", "6.weight", ERROR) in found


@pytest.mark.parametrize("exporter", ["legacy", "dynamo"])
def test_symmetry_and_numerics_still_speak_of_a_folded_export(exporter: str) -> None:
    module, inputs = batchnorm_resnet(0)
    module.get_parameter("head.weight").data.fill_(0.1)
    module.get_parameter("head.bias").data[0] = float("nan")
    report = initlint.check(default_export(module, inputs, exporter))
    found = {(finding.rule, finding.address) for finding in report.headlines}
    assert found == {("folded-norm", ""), ("constant-weights", "head.weight"), ("non-finite-weights", "head.bias")}


def test_what_a_rule_measured_is_told_in_plain_types() -> None:
    """A report may go to a process that knows neither numpy nor the rule's own types."""
    measured = {"share": np.float64(0.5), "units": np.str_("3 of 4"), "address": [np.str_("a.weight")], "flag": True}

    def odd(context: Context, options: object) -> Iterator[Suspicion]:
        yield Suspicion(context.model, ERROR, measured)

    verdict = judge(context(), (rule(category="test", message="said")(odd),), {})
    (finding,) = verdict.findings
    assert finding.data == measured
    assert [type(value) for value in finding.data.values()] == [float, str, list, bool]
    assert type(finding.data["address"][0]) is str


def test_what_cannot_be_told_costs_the_rule_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INITLINT_DEBUG", raising=False)

    def odd(context: Context, options: object) -> Iterator[Suspicion]:
        yield Suspicion(context.model, ERROR, {"function": print})

    verdict = judge(context(), (rule(category="test", message="said")(odd),), {})
    assert verdict.findings == ()
    assert "data['function'] is a builtin_function_or_method" in verdict.skipped[0].reason
