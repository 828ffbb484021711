"""A repository that already has findings takes initlint up: one command, and only what is new fails."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

WIDTH = 4
BRANCHES = 101


def write_model(path: Path, faults: Mapping[int, str], order: Iterable[int] = range(BRANCHES), seed: int = 0) -> None:
    """Two layers of weights in each of many parallel branches, with a fault in some of them."""
    generator = np.random.default_rng(seed)
    nodes, tensors, outputs = [], [], []
    for i in order:
        values = {name: generator.normal(0, (2 / WIDTH) ** 0.5, (WIDTH, WIDTH)) for name in ("0.weight", "2.weight")}
        values["0.bias"] = np.zeros(WIDTH)
        _break(values, faults.get(i, ""))
        name = f"branch{i}"
        tensors += [numpy_helper.from_array(v.astype(np.float32), f"{name}.{key}") for key, v in values.items()]
        nodes += [
            helper.make_node("Gemm", ["x", f"{name}.0.weight", f"{name}.0.bias"], [f"{name}/a"], transB=1),
            helper.make_node("Relu", [f"{name}/a"], [f"{name}/b"]),
            helper.make_node("Gemm", [f"{name}/b", f"{name}.2.weight"], [f"{name}/c"], transB=1),
        ]
        outputs.append(f"{name}/c")
    nodes.append(helper.make_node("Concat", outputs, ["y"], axis=1))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH * len(outputs)])
    graph = helper.make_graph(nodes, "branches", [x], [y], tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def _break(values: dict[str, Any], fault: str) -> None:
    if fault == "nan":
        values["0.weight"][0, 0] = values["2.weight"][0, 0] = np.nan
    elif fault == "zero":
        values["0.weight"][:] = 0
    elif fault == "constant":
        values["0.weight"][:] = 0.1
    elif fault == "dead":
        values["0.bias"][:] = -50


def lint(folder: Path, *arguments: str) -> tuple[int, list[dict[str, Any]], int]:
    """Exit status, what counts or is folded under what counts, number of known findings."""
    command = [sys.executable, "-m", "initlint", *arguments, "--isolated", "--output-format", "json"]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert "Traceback" not in finished.stderr
    reports = json.loads(finished.stdout)["reports"]
    findings = [finding for report in reports for finding in report["findings"]]
    return finished.returncode, findings, sum(len(report["suppressed"]) for report in reports)


def test_two_hundred_known_findings_are_adopted_with_one_command(tmp_path: Path) -> None:
    faults = dict.fromkeys(range(100), "nan")
    write_model(tmp_path / "models" / "net.onnx", faults)
    quick = ("--no-probe", "--select", "numerics,symmetry")
    status, findings, _ = lint(tmp_path, "models/net.onnx", *quick)
    assert (status, len(findings)) == (1, 200)
    assert lint(tmp_path, "models/net.onnx", *quick, "--write-baseline", "known.json") == (0, [], 200)
    assert lint(tmp_path, "models/net.onnx", *quick, "--baseline", "known.json") == (0, [], 200)

    order = np.random.default_rng(1).permutation(BRANCHES).tolist()
    (tmp_path / "models").rename(tmp_path / "networks")
    write_model(tmp_path / "networks" / "net.onnx", faults, order, seed=2)
    assert lint(tmp_path, "networks/net.onnx", *quick, "--baseline", "known.json") == (0, [], 200)

    write_model(tmp_path / "networks" / "net.onnx", {**faults, 100: "zero"}, order, seed=3)
    status, findings, known = lint(
        tmp_path, "networks/net.onnx", *quick, "--fail-on", "note", "--baseline", "known.json"
    )
    assert [(each["rule"], each["tensor"]) for each in findings] == [("zero-weights", "branch100.0.weight")]
    assert (status, known) == (1, 200)


@pytest.mark.parametrize(
    ("fault", "rule", "address"),
    [
        ("zero", "zero-weights", "branch5.0.weight"),
        ("nan", "non-finite-weights", "branch5.0.weight"),
        ("dead", "dead-relu-bias", "branch5.0.bias"),
    ],
)
def test_measured_findings_and_their_consequences_are_adopted_too(
    tmp_path: Path, fault: str, rule: str, address: str
) -> None:
    faults = {0: "zero", 1: "constant", 2: "dead"}
    write_model(tmp_path / "net.onnx", faults, range(6))
    assert lint(tmp_path, "net.onnx", "--write-baseline", "known.json")[0] == 0
    write_model(tmp_path / "moved" / "net.onnx", {**faults, 5: fault}, (5, 1, 3, 2, 0, 4), seed=1)
    status, findings, known = lint(tmp_path, "moved/net.onnx", "--fail-on", "warning", "--baseline", "known.json")
    headlines = {each["tensor"] for each in findings if each["caused_by"] is None}
    assert address in headlines
    assert headlines <= {address, "branch5.2.weight"}
    assert rule in {each["rule"] for each in findings}
    assert status == 1
    assert known >= 3
