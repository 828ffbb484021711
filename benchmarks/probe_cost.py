"""What the forward probe costs beside a bare onnxruntime script: whole processes, wall time and peak memory.

    python benchmarks/probe_cost.py [--runs 5]

ResNet-50 (pytorchcv, exported once; about 100 MB) and a synthetic graph of 3,000 nodes. Both sides open the same file
and run the same batch once, in turn, so that a busy machine slows both; the figures are medians. Needs the extra
``dev``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

BATCH = 8

BARE = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
shape = [size if isinstance(size, int) else int(sys.argv[2]) for size in session.get_inputs()[0].shape]
session.run(None, {session.get_inputs()[0].name: numpy.random.default_rng(0).standard_normal(shape, "float32")})
"""

PROBE = """
import sys
from pathlib import Path
from initlint.load.from_onnx import open_onnx
from initlint.probe.on_onnx import OnnxProbe
from initlint.settings import ProbeSettings
signals = OnnxProbe(open_onnx(Path(sys.argv[1]))).run(ProbeSettings(batch=int(sys.argv[2])), {})
assert signals.layers, signals.reason
"""

MEASURED = """
import resource, subprocess, sys, time
begin = time.perf_counter()
subprocess.run([sys.executable, "-c", *sys.argv[1:]], check=True)
print(time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


def resnet50(path: Path, honest: bool) -> None:
    """Export an untrained ResNet-50; ``honest`` keeps its batch norms, else they are folded into convolutions."""
    import torch
    from pytorchcv.model_provider import get_model

    torch.manual_seed(0)
    module = get_model("resnet50", pretrained=False).train(honest)
    mode = torch.onnx.TrainingMode.TRAINING if honest else torch.onnx.TrainingMode.EVAL
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        torch.onnx.export(
            module,
            (torch.randn(2, 3, 224, 224),),
            path,
            dynamo=False,
            training=mode,
            do_constant_folding=not honest,
            input_names=["x"],
            dynamic_axes={"x": {0: "batch"}},
        )


def many_nodes(path: Path, nodes: int = 3000) -> None:
    """A chain of 1x1 convolutions, each added to the input: 1 MB per activation at batch 8."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    body, weights, last = [], [], "x"
    for i in range(nodes // 3):
        weight = (generator.standard_normal((32, 32, 1, 1)) * 0.1).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{i}"))
        body.append(helper.make_node("Conv", [last, f"w{i}"], [f"c{i}"], f"/{i}/Conv"))
        body.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"], f"/{i}/Relu"))
        body.append(helper.make_node("Add", [f"r{i}", "x"], [f"y{i}"], f"/{i}/Add"))
        last = f"y{i}"
    shape = ["batch", 32, 32, 32]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name in ("x", last)]
    graph = helper.make_graph(body, "chain", *ends, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def cost(script: str, path: Path) -> tuple[float, float]:
    """(seconds, MiB of peak resident memory) of one process."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, script, str(path), str(BATCH)], check=True, capture_output=True, text=True
    )
    seconds, memory = done.stdout.split()
    return float(seconds), float(memory)


def compare(name: str, path: Path, runs: int) -> None:
    pairs = [(cost(BARE, path), cost(PROBE, path)) for _ in range(runs)]
    for index, (what, unit) in enumerate((("time", "s"), ("peak memory", "MiB"))):
        bare, probe = (statistics.median(pair[side][index] for pair in pairs) for side in (0, 1))
        ratio = statistics.median(pair[1][index] / pair[0][index] for pair in pairs)
        print(f"{name:28} {what:12} bare {bare:7.2f} {unit:4} probe {probe:7.2f} {unit:4} ratio {ratio:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        for name, honest in (("ResNet-50, batch norms kept", True), ("ResNet-50, folded", False)):
            path = Path(folder, f"resnet50-{honest}.onnx")
            resnet50(path, honest)
            compare(name, path, runs)
        path = Path(folder, "chain.onnx")
        many_nodes(path)
        compare("3,000 nodes", path, runs)


if __name__ == "__main__":
    main()
