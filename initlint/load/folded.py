"""Batch norms that an exporter multiplied into the convolution before them.

A default export runs the model in evaluation mode: each norm's running statistics are still (0, 1), so it becomes a
factor 1 / sqrt(1 + eps) on the weight and a bias of zeros that no parameter of the module holds. What gives it away:
the weight was renamed together with its bias (older PyTorch exporter: both are "onnx::Conv_N"), or the weight kept its
name beside a bias of zeros that is not its module's (newer exporter and optimisers: "val_3", "conv1.weight_bias"). The
newer exporter also writes into the node's metadata which rewriting rule made it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..model import FoldedNorm, Kind, Layer
from .constants import Constants
from .naming import is_generated, layer_of
from .stored import Operation


def find_folded_norms(pairs: Sequence[tuple[Layer, Operation]], constants: Constants) -> tuple[FoldedNorm, ...]:
    """One entry per linear map whose norm was folded; ``pairs`` are layers with the operation they came from."""
    found = []
    for layer, op in pairs:
        evidence = _rewritten(op)
        if not evidence and op.bias is not None and layer.kind is not Kind.LINEAR:
            evidence = _evidence(op, constants)
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


def _evidence(op: Operation, constants: Constants) -> str:
    assert op.bias is not None
    weight, bias = constants.roots(op.weight.value), constants.roots(op.bias.value)
    if len(weight) != 1 or len(bias) != 1 or op.absorbed:
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
