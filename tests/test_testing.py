"""The harness keeps its promises: strict tables, honest exports, exact comparison, nothing touched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from models import batchnorm_resnet, relu_mlp
from onnx import TensorProto, helper, numpy_helper

import initlint
from initlint.errors import UsageError
from initlint.plugin import Finding, Severity
from initlint.report import Report, SkippedRule
from initlint.testing import EXPORTERS, Bad, Good, cases, check, default_export, honest_export, silent


def linear(seed: int) -> onnx.ModelProto:
    """One Gemm of (4, 8) weights, built without torch."""
    weight = np.random.default_rng(seed).normal(size=(4, 8)).astype(np.float32)
    node = helper.make_node("Gemm", ["x", "0.weight"], ["y"], transB=1)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(weight, "0.weight")])
    return helper.make_model(graph)


def finding(address: str, severity: Severity = Severity.WARNING, rule: str = "zero-weights") -> Finding:
    return Finding(rule, "symmetry", severity, layer=None, tensor=address, message="it is zero", data={})


class Says:
    """Stands in for ``initlint.check``: answers with the same report whatever the model."""

    def __init__(self, *findings: Finding, skipped: tuple[SkippedRule, ...] = ()) -> None:
        self.report = Report("model", "onnx", findings=findings, skipped_rules=skipped)
        self.models: list[onnx.ModelProto] = []

    def __call__(self, model: onnx.ModelProto, inputs: Any = None, **settings: Any) -> Report:
        self.models.append(model)
        return self.report


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Any:
    def answer(*findings: Finding, **options: Any) -> Says:
        stand_in = Says(*findings, **options)
        monkeypatch.setattr(initlint, "check", stand_in)
        return stand_in

    return answer


NEAR_MISS = Good("near miss: almost", linear)
BAD = Bad("zeros", linear, at=["0.weight"])


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ((NEAR_MISS, BAD, replace(BAD)), "two cases are called 'zeros'"),
        ((NEAR_MISS,), "no Bad case"),
        ((Good("healthy", linear), BAD), "near miss"),
        ((NEAR_MISS, Bad("zeros", linear, at=[])), "at least one"),
        ((NEAR_MISS, Bad("zeros", linear, at="0.weight")), "list of different addresses"),
    ],
)
def test_a_table_that_proves_too_little_is_refused(table: tuple[Any, ...], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        cases(*table)


def test_a_table_becomes_readable_test_ids() -> None:
    mark = cases(NEAR_MISS, BAD)
    assert mark.kwargs["ids"] == ["near miss: almost", "zeros"]


def test_every_seed_is_run_on_a_model_of_its_own(says: Any) -> None:
    stand_in = says(finding("0.weight"))
    check("zero-weights", BAD, seeds=(0, 1, 2))
    assert len({model.SerializeToString() for model in stand_in.models}) == 3


def test_a_missing_finding_fails(says: Any) -> None:
    says()
    with pytest.raises(AssertionError, match=r"missing: warning or error at 0\.weight"):
        check("zero-weights", BAD)


def test_a_surplus_finding_fails(says: Any) -> None:
    says(finding("0.weight"), finding("0.bias"))
    with pytest.raises(AssertionError, match=r"surplus: warning or error at 0\.bias"):
        check("zero-weights", BAD)


def test_the_same_finding_twice_fails(says: Any) -> None:
    says(finding("0.weight"), finding("0.weight"))
    with pytest.raises(AssertionError, match="said something else"):
        check("zero-weights", BAD)


def test_another_severity_fails(says: Any) -> None:
    says(finding("0.weight", Severity.WARNING))
    with pytest.raises(AssertionError, match=r"missing: error at 0\.weight"):
        check("zero-weights", replace(BAD, severity=Severity.ERROR))


def test_a_rule_about_what_files_do_not_hold_is_held_to_what_it_says_of_modules(says: Any) -> None:
    bad = Bad("stuck", relu_mlp, at=["0.weight"], severity=Severity.ERROR)
    says()
    with pytest.raises(AssertionError, match=r"missing: error at 0\.weight"):
        check("unregistered-weights", bad, seeds=(0,))
    stand_in = says(finding("0.weight", Severity.ERROR, "unregistered-weights"))
    check("unregistered-weights", bad, seeds=(0,))
    assert not any(isinstance(model, onnx.ModelProto) for model in stand_in.models)
    with pytest.raises(AssertionError, match=r"surplus: error at 0\.weight"):
        check("unregistered-weights", Good("near miss: live", relu_mlp), seeds=(0,))


def test_other_rules_do_not_matter(says: Any) -> None:
    says(finding("0.weight"), finding("0.weight", rule="vanishing-signal"))
    check("zero-weights", BAD)


def test_notes_are_tolerated_unless_they_are_the_case(says: Any) -> None:
    says(finding("0.weight", Severity.NOTE))
    check("zero-weights", NEAR_MISS)
    check("zero-weights", replace(BAD, severity=Severity.NOTE))
    with pytest.raises(AssertionError, match="surplus: note"):
        check("zero-weights", replace(NEAR_MISS, notes_ok=False))
    with pytest.raises(AssertionError, match="missing"):
        check("zero-weights", BAD)


def test_a_skipped_rule_proves_nothing(says: Any) -> None:
    says(skipped=(SkippedRule("zero-weights", "no forward pass"),))
    with pytest.raises(AssertionError, match="was skipped: no forward pass"):
        check("zero-weights", NEAR_MISS)
    check("zero-weights", replace(NEAR_MISS, skipped_ok=True))


def test_a_check_that_changes_the_model_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def vandal(model: onnx.ModelProto, inputs: Any = None, **settings: Any) -> Report:
        model.graph.initializer[0].raw_data = bytes(128)
        return Report("model", "onnx")

    monkeypatch.setattr(initlint, "check", vandal)
    with pytest.raises(AssertionError, match="changed the model"):
        check("zero-weights", NEAR_MISS)


def test_silence_is_about_warnings_and_errors_of_any_rule(says: Any) -> None:
    says(finding("0.weight", Severity.NOTE))
    silent(linear)
    says(finding("0.weight", rule="looks-odd"))
    with pytest.raises(AssertionError, match="looks-odd"):
        silent(linear)


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_an_honest_export_keeps_norms_and_names(exporter: Any) -> None:
    module, inputs = batchnorm_resnet(0)
    proto = honest_export(module, inputs, exporter)
    norms = [node for node in proto.graph.node if node.op_type == "BatchNormalization"]
    assert len(norms) == sum(isinstance(child, torch.nn.BatchNorm2d) for child in module.modules())
    names = {initializer.name for initializer in proto.graph.initializer}
    assert {name for name, _ in module.named_parameters()} <= names


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_a_default_export_folds_norms(exporter: Any) -> None:
    module, inputs = batchnorm_resnet(0)
    operators = [node.op_type for node in default_export(module, inputs, exporter).graph.node]
    assert "Conv" in operators
    assert "BatchNormalization" not in operators


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("export", [honest_export, default_export])
def test_an_export_leaves_no_trace(export: Any, exporter: Any) -> None:
    module, inputs = batchnorm_resnet(0)
    module.train()
    module.blocks[0].eval()  # mixed modes, as a frozen norm has them
    modes = [child.training for child in module.modules()]
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    random_state = torch.get_rng_state()
    export(module, inputs, exporter)
    assert [child.training for child in module.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_module_without_inputs_says_what_to_do() -> None:
    module, _ = relu_mlp(0)
    with pytest.raises(UsageError, match=r"return \(module, inputs\)"):
        honest_export(module)


def test_exporters_keep_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    module, inputs = relu_mlp(0)
    for exporter in EXPORTERS:
        honest_export(module, inputs, exporter)
    assert capfd.readouterr() == ("", "")
