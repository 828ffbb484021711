"""Collects what stands for the nodes of one graph while operators are written out as plainer ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

MICROSOFT = "com.microsoft"

PER_AXIS = 13
"""From this opset on DequantizeLinear takes a scale for every slice of an axis, Split and ReduceSum take sizes and axes
as inputs."""


@dataclass
class Writer:
    """Collects the nodes and constants that stand for one graph's."""

    opset: int
    taken: set[str]
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    makers: dict[str, NodeProto] = field(default_factory=dict)
    """By value: the node that makes it, in this graph."""
    stored: dict[str, TensorProto] = field(default_factory=dict)
    """This graph's initializers."""
    unrounded: dict[str, str] = field(default_factory=dict)
    """By quantised value: what stands for it."""
    users: dict[str, list[NodeProto]] = field(default_factory=dict)
    outputs: frozenset[str] = frozenset()
    gone: set[int] = field(default_factory=set)
    """Identities of nodes that another one's rule has replaced."""
    count: int = 0

    def name(self, what: str) -> str:
        while True:
            self.count += 1
            if (name := f"{what}__written_out_{self.count}") not in self.taken:
                return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def constant(self, value: Any) -> str:
        name = self.name("constant")
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(
        self, kind: str, inputs: Sequence[str], output: str = "", like: NodeProto | None = None, **given: Any
    ) -> str:
        """Write one node, which takes its name and scope from ``like``; returns its output."""
        output = output or self.name(kind)
        node = helper.make_node(kind, list(inputs), [output], **given)
        if like is not None:
            node.name = like.name
            node.metadata_props.extend(like.metadata_props)
        self.nodes.append(node)
        self.makers[output] = node
        return output

    def only_user(self, value: str, kind: str) -> NodeProto | None:
        users = self.users.get(value, [])
        found = users[0] if len(users) == 1 and value not in self.outputs else None
        return found if found is not None and found.op_type == kind else None


Rule = Callable[["Writer", NodeProto], bool]
"""Writes what stands for a node; False where it has to stay."""


def attributes_of(node: NodeProto, *left_out: str) -> dict[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute if each.name not in left_out}


def input_of(node: NodeProto, position: int) -> str:
    return str(node.input[position]) if position < len(node.input) else ""
