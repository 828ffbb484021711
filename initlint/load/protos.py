"""Editing protobuf messages of ONNX in place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from onnx import NodeProto, TensorProto


def keep(repeated: Any, messages: Iterable[Any]) -> None:
    """Leave these of its messages in a repeated field, in this order; others may be among them."""
    copies = [type(each).FromString(each.SerializeToString()) for each in messages]  # to empty it ends those inside
    del repeated[:]
    repeated.extend(copies)


def tensor_of(node: NodeProto) -> TensorProto | None:
    """What a Constant node holds, where that is a dense tensor."""
    if node.op_type != "Constant" or len(node.attribute) != 1 or node.attribute[0].name != "value":
        return None
    tensor: TensorProto = node.attribute[0].t
    return tensor
