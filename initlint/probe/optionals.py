"""Optional inputs are always given to a probe: they are tensors there, and asking whether they exist is needless."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from onnx import NodeProto, ValueInfoProto, helper, numpy_helper

from .dataflow import all_nodes


def unwrap(nodes: Iterable[NodeProto], inputs: Mapping[str, ValueInfoProto]) -> None:
    """Make tensors of the optional tensors among ``inputs``, and have ``nodes`` read them as such."""
    optional = {name for name, value in inputs.items() if value.type.WhichOneof("value") == "optional_type"}
    for name in optional:
        kind = type(inputs[name].type)()
        kind.CopyFrom(inputs[name].type.optional_type.elem_type)
        inputs[name].type.CopyFrom(kind)
    for node in all_nodes(nodes) if optional else ():
        if node.op_type == "OptionalGetElement" and node.input[0] in optional:
            node.op_type = "Identity"
        elif node.op_type == "OptionalHasElement" and node.input and node.input[0] in optional:
            node.op_type = "Constant"
            del node.input[:]
            node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.array(True))))
