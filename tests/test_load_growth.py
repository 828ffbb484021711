"""Opening takes time that grows with the graph, and memory that does not grow with the weights."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from loading import node, normal, proto, settled
from onnx import ModelProto, TensorProto


def chain(op: str, length: int, *more: str) -> ModelProto:
    names = ["x", *(f"v{i}" for i in range(1, length)), "y"]
    nodes = [node(op, [a, *more], [b]) for a, b in itertools.pairwise(names)]
    return proto(nodes, {"w": normal(8, 8)} if more else {})


def constant_chain(length: int) -> ModelProto:
    nodes = [node("Identity", [f"v{i}"], [f"v{i + 1}"]) for i in range(length)]
    return proto([*nodes, node("MatMul", ["x", f"v{length}"], ["y"])], {"v0": normal(8, 8)})


def fan(length: int) -> ModelProto:
    nodes = [node("MatMul", ["x", "w"], ["h"]), *(node("Relu", ["h"], [f"v{i}"]) for i in range(length))]
    return proto([*nodes, node("Sum", [f"v{i}" for i in range(length)], ["y"])], {"w": normal(8, 8)})


def residual(length: int) -> ModelProto:
    nodes, stream, weights = [], "x", {}
    for i in range(length // 3):
        weights[f"{i}.weight"] = normal(8, 8, seed=i)
        nodes.append(node("MatMul", [stream, f"{i}.weight"], [f"a{i}"]))
        nodes += [node("Relu", [f"a{i}"], [f"b{i}"]), node("Add", [f"b{i}", stream], [f"c{i}"])]
        stream = f"c{i}"
    return proto(nodes, weights, outputs=[stream])


def ladder(length: int) -> ModelProto:
    """Every rung joins the top of a long chain: finding dominators by walking up is quadratic here."""
    half = length // 2
    nodes = [node("Neg", [f"v{i}" if i else "x"], [f"v{i + 1}"]) for i in range(half)]
    nodes += [node("Add", [f"v{half}", f"v{i + 1}"], [f"u{i}"]) for i in range(half)]
    return proto([*nodes, node("Sum", [f"u{i}" for i in range(half)], ["y"])])


SHAPES: dict[str, Callable[[int], ModelProto]] = {
    "non-linearities": lambda n: chain("Relu", n),
    "negations": lambda n: chain("Neg", n),
    "one shared layer": lambda n: chain("MatMul", n, "w"),
    "additions": lambda n: chain("Add", n, "w"),
    "constants": constant_chain,
    "fan": fan,
    "residual": residual,
    "ladder": ladder,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_opening_grows_no_faster_than_the_graph(shape: str) -> None:
    """Processor time of a busy machine may double: one of three attempts has to keep the bound."""
    attempts = []
    for _ in range(3):
        short, long = (opened_in(SHAPES[shape](length)) for length in (1_500, 6_000))
        if short < 2.0 and long < max(8 * short, 2.0):
            return
        attempts.append((short, long))
    pytest.fail(f"seconds for 1,500 nodes and for 4 times as many: {attempts}")


def opened_in(model: ModelProto) -> float:
    data = model.SerializeToString()
    started = time.process_time()
    assert settled(data) is not None
    return time.process_time() - started


MEASURE = """
import re, sys
from pathlib import Path
from initlint.load.from_onnx import open_onnx
model = open_onnx(Path(sys.argv[1]))
values = sum(block.size for block in model.chunks("w"))
print(values, int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


@pytest.mark.parametrize(
    ("op", "dims"),
    [("MatMul", [4096, 32768]), ("ConvTranspose", [2048, 4096, 4, 4]), ("Conv", [2048, 4096, 4, 4])],
    ids=["transposed MatMul", "ConvTranspose", "Conv"],
)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's account of memory")
def test_memory_does_not_grow_with_a_weight(tmp_path: Path, op: str, dims: list[int]) -> None:
    """Half a GiB, of which a sparse file takes nothing on disk."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="w.bin")
    count = int(np.prod(dims))
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(4 * count)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto([node(op, ["x", "w"], ["y"])], {"w": tensor}).SerializeToString())
    run = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    values, mib = map(int, run.stdout.split())
    assert values == count
    assert mib < 300
