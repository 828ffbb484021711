"""Batch norms that an exporter multiplied into the convolution before them.

A default export runs the model in evaluation mode: each norm's running statistics are still (0, 1), so it becomes a
factor 1 / sqrt(1 + eps) on the weight and a bias of zeros that no parameter of the module holds. What gives it away:
the weight was renamed together with its bias (older PyTorch exporter: both are "onnx::Conv_N"), or the weight kept its
name beside a bias of zeros that is not its module's (newer exporter and optimisers: "val_3", "conv1.weight_bias").
Names prove that only where PyTorch's exporters gave them: others rename every tensor, and zeros are what Keras, Flax
and people give their biases. The newer exporter also writes into the node's metadata which rewriting rule made it;
onnxruntime's optimiser into the names of the tensors it makes; tf2onnx gives the convolution the norm's name. A norm
that was not multiplied in but replaced by its factor is a product with 1 / sqrt(1 + eps) for every unit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain

from ..kinds import Kind
from ..model import FoldedNorm, Layer
from .constants import Constants
from .graph import Graph
from .naming import QUANTISED, is_generated, layer_of
from .stored import Operation, Stored

_LARGEST_EPSILON = 1e-2
"""Ten times Keras's, which is the largest in use."""

_FUSED = re.compile(r"^ConvBnFusion_")
"""What onnxruntime's optimiser calls the weights and biases that it has multiplied a batch norm into."""

_NAMED_AS_NORM = re.compile(r"(?:^|/)(?:batchnorm/\w+|FusedBatchNorm\w*)$")
"""The operations of Keras's and TensorFlow's batch norms; tf2onnx merges the convolution into them."""


def find_folded_norms(
    pairs: Sequence[tuple[Layer, Operation]], constants: Constants, graph: Graph, producer: str
) -> tuple[FoldedNorm, ...]:
    """One entry per linear map whose norm was folded; ``pairs`` are layers with the operation they came from,
    ``producer`` is the program that made the file."""
    found = []
    for layer, op in pairs:
        evidence = _rewritten(op) or _merged(op, constants) or _factor(op, constants, graph)
        if not evidence and op.bias is not None and layer.kind is not Kind.LINEAR:
            evidence = _evidence(op, constants, producer)
        if evidence:
            found.append(FoldedNorm(layer.name, evidence))
    return tuple(found)


def _rewritten(op: Operation) -> str:
    """The exporter's own word for it, in the node's metadata."""
    if op.node.proto is None:
        return ""
    for entry in op.node.proto.metadata_props:
        if entry.key == "pkg.onnxscript.rewriter.rule_name" and "BatchNorm" in entry.value:
            return f"the exporter applied {entry.value[:80]}"
    return ""


def _origins(stored: Stored, constants: Constants) -> list[str]:
    """What it is stored as, without the scales of quantised weights."""
    roots = constants.roots(stored.value)
    if not any(root.endswith(QUANTISED) for root in roots):
        return list(roots)
    return [root.removesuffix(QUANTISED) for root in roots if not root.endswith(("_scale", "_zero_point"))]


def _merged(op: Operation, constants: Constants) -> str:
    """The names that tools give to what they made of a map and a norm."""
    if _NAMED_AS_NORM.search(op.node.name):
        return f"the operation is named after a norm ({op.node.name[:80]})"
    stored = (each for each in (op.weight, op.bias) if each is not None)
    fused = next((name for name in chain(*(constants.roots(each.value) for each in stored)) if _FUSED.match(name)), "")
    return f"onnxruntime's optimiser made {fused[:80]}" if fused else ""


def _factor(op: Operation, constants: Constants, graph: Graph) -> str:
    """The same factor 1 / sqrt(1 + eps) for every unit: a norm whose running statistics are still (0, 1)."""
    users = graph.readers(op.output)
    if len(users) != 1 or users[0][0].op != "Mul" or len(users[0][0].inputs) != 2:
        return ""
    factor = users[0][0].inputs[1 - users[0][1]]
    spec = constants.spec(factor) if constants.known(factor) else None
    if spec is None or spec.size != op.weight.view.groups * op.weight.view.units or spec.size < 2:
        return ""
    values = constants.array(factor)
    if values is None or not bool((values == values.reshape(-1)[0]).all()):
        return ""
    first = float(values.reshape(-1)[0])
    if not (1 + _LARGEST_EPSILON) ** -0.5 <= first < 1:
        return ""
    return f"its outputs are multiplied by {first:.7g}, which is a norm on untouched running statistics"


def _evidence(op: Operation, constants: Constants, producer: str) -> str:
    assert op.bias is not None
    weight, bias = (_origins(stored, constants) for stored in (op.weight, op.bias))
    if len(weight) != 1 or len(bias) != 1 or not _is_from_pytorch(op, weight[0], producer):
        return ""
    if op.absorbed and weight[0] in constants.roots(op.weight.value):
        return ""
    renamed = is_generated(weight[0])
    owner = op.node.scope if renamed else layer_of(weight[0])
    if bias[0] in (f"{owner}.bias", weight[0].replace("weight", "bias"), weight[0].replace("_w_", "_b_")):
        return ""
    if renamed and is_generated(bias[0]):
        return f"weight and bias were renamed together ({weight[0]}, {bias[0]})"
    values = constants.array(op.bias.value)
    made_up = renamed or is_generated(bias[0]) or bias[0].startswith(weight[0])  # not merely merged with an equal bias
    if made_up and values is not None and bool((values == 0).all()):
        return f"the bias {bias[0]} holds zeros and belongs to no such module"
    return ""


def _is_from_pytorch(op: Operation, weight: str, producer: str) -> bool:
    """Quantisers and optimisers may sign a file in the exporter's place, but keep its names or its metadata."""
    if producer.startswith("pytorch") or weight.startswith("onnx::"):
        return True
    entries = op.node.proto.metadata_props if op.node.proto is not None else ()
    return any(entry.key.startswith("pkg.torch.onnx.") for entry in entries)
