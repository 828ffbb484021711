"""What a graph does with an input: which table it indexes, which sizes its axes must have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnx import NodeProto

from .dataflow import Dataflow
from .graph_rewrite import ProbeGraph
from .payload import FLOATS

Axes = tuple[int | None, ...] | None
"""Which axis of the input each axis of a value is; None where that is lost."""

_SAME_AXES = frozenset(
    {"Cast", "CastLike", "Identity", "Neg", "Abs", "Relu", "Sigmoid", "Tanh", "Clip", "Not", "Round", "Floor", "Ceil"}
    | {"LayerNormalization", "Softmax", "Dropout", "Gelu", "Erf", "Exp", "Log", "Sqrt"}
)
_WITH_CONSTANT = frozenset({"Add", "Sub", "Mul", "Div", "Min", "Max", "Mod"})
_RESHAPING = frozenset(
    {"Reshape", "Flatten", "Slice", "Expand", "Concat", "Split", "Tile", "Where", "GatherElements", "Pad"}
)
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
_MAX_STEPS = 4000
"""Values looked at per input; uses that say something lie within the first few."""


@dataclass
class InputUse:
    """What was seen of one input's use. ``None`` means that nothing was seen."""

    rows: int | None = None
    """Rows of the smallest table that it indexes."""
    indexes_live: bool = False
    """It indexes something of unknown size: only 0 is safe."""
    lengths: bool = False
    """It holds sequence lengths, of a recurrence or an attention."""
    last: bool = False
    """It holds the places of the last entries, which are one less."""
    state: bool = False
    """It is the initial state of a recurrence."""
    sizes: dict[int, int] = field(default_factory=dict)
    """Sizes that weights demand, by axis."""
    batch_axis: int | None = None
    sequence_axis: int | None = None
    image_axes: tuple[int, ...] = ()
    """Axes that a convolution runs over."""
    rank: int | None = None


Shapes = Mapping[str, tuple[int, ...]]
"""Known shapes of constants."""


def uses(graph: ProbeGraph, shapes: Shapes, ranks: Mapping[str, int | None]) -> dict[str, InputUse]:
    """The use of every input."""
    flow = Dataflow(graph.nodes)
    found = {}
    for name, value in graph.inputs.items():
        is_float = value.type.tensor_type.elem_type in FLOATS
        own = frozenset() if is_float else frozenset(flow.downstream([name]))
        use = _follow(name, ranks.get(name), flow, shapes, own)
        if ranks.get(name) is None and use.rank is not None:
            use = _follow(name, use.rank, flow, shapes, own)  # now axes can be told apart
        found[name] = use
    return found


def _follow(name: str, rank: int | None, flow: Dataflow, shapes: Shapes, own: frozenset[str]) -> InputUse:
    """``own`` is what integers make: indices may be wrapped by where(i < 0, i + n, i) before they are used."""
    use = InputUse()
    axes: Axes = None if rank is None else tuple(range(rank))
    waiting: list[tuple[str, Axes]] = [(name, axes)]
    seen = {name}
    while waiting and len(seen) < _MAX_STEPS:
        value, axes = waiting.pop(0)
        for node in flow.consumers.get(value, ()):
            for position, read in enumerate(node.input):
                if read != value:
                    continue
                _learn(use, node, position, axes, shapes)
                if not _passes(node, position, shapes, own):
                    continue
                after = _axes_after(node, axes, shapes)
                for output in node.output:
                    if output and output not in seen:
                        seen.add(output)
                        waiting.append((output, after))
    return use


def _passes(node: NodeProto, position: int, shapes: Shapes, own: frozenset[str]) -> bool:
    if node.op_type in _SAME_AXES or node.op_type in ("Transpose", "Unsqueeze", "Squeeze"):
        return position == 0
    if node.op_type in _WITH_CONSTANT:
        return all(other in shapes or other in own for index, other in enumerate(node.input) if index != position)
    if node.op_type == "Where":
        return position > 0
    if node.op_type == "Gather":
        return position == 0
    return node.op_type in _RESHAPING and (position == 0 or node.op_type == "Concat")


def _axes_after(node: NodeProto, axes: Axes, shapes: Shapes) -> Axes:
    if axes is None:
        return None
    if node.op_type in _SAME_AXES:
        return axes
    if node.op_type in _WITH_CONSTANT:
        ranks = [len(shapes[other]) for other in node.input if other in shapes]
        if not ranks:
            return None
        return axes if max(ranks, default=0) <= len(axes) else None
    if node.op_type == "Transpose":
        order = next((list(a.ints) for a in node.attribute if a.name == "perm"), list(range(len(axes)))[::-1])
        return tuple(axes[i] for i in order) if sorted(order) == list(range(len(axes))) else None
    return None


def _learn(use: InputUse, node: NodeProto, position: int, axes: Axes, shapes: Shapes) -> None:
    op = node.op_type
    if op in ("Gather", "GatherElements", "GatherND") and position == 1:
        _learn_table(use, node, shapes)
    elif op == "EmbedLayerNormalization" and position < 2:
        _learn_rows(use, shapes.get(node.input[position * 2 + 2]))
    elif op == "OneHot" and position == 0:
        use.indexes_live = True
    elif op == "GroupQueryAttention" and position in (5, 6):
        use.lengths, use.last = True, position == 5
    elif op in _RECURRENT:
        _learn_recurrent(use, node, position, axes, shapes)
    elif op in ("Conv", "ConvTranspose") and position == 0:
        _learn_conv(use, node, axes, shapes.get(node.input[1]))
    elif op in ("MatMul", "Gemm") and position == 0:
        _learn_matmul(use, node, axes, shapes.get(node.input[1]))
    elif op in ("BatchNormalization", "InstanceNormalization", "GroupNormalization") and position == 0:
        weight = shapes.get(node.input[1])
        if weight and op != "GroupNormalization":
            _demand(use, axes, 1, weight[0])
    elif op == "LayerNormalization" and position == 0:
        weight = shapes.get(node.input[1])
        if weight and len(weight) == 1:
            _demand(use, axes, -1, weight[0])


def _learn_table(use: InputUse, node: NodeProto, shapes: Shapes) -> None:
    table = shapes.get(node.input[0])
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    if table and -len(table) <= axis < len(table):
        _learn_rows(use, (table[axis],))
    else:
        use.indexes_live = True


def _learn_rows(use: InputUse, table: tuple[int, ...] | None) -> None:
    if table:
        use.rows = table[0] if use.rows is None else min(use.rows, table[0])


def _learn_recurrent(use: InputUse, node: NodeProto, position: int, axes: Axes, shapes: Shapes) -> None:
    batch_first = any(a.name == "layout" and a.i == 1 for a in node.attribute)
    if position == 0:
        use.rank = use.rank or 3
        weight = shapes.get(node.input[1])
        if weight:
            _demand(use, axes, 2, weight[-1])
        if axes is not None and len(axes) == 3:
            sequence, batch = (1, 0) if batch_first else (0, 1)
            use.sequence_axis, use.batch_axis = axes[sequence], axes[batch]
    elif position == 4:
        use.lengths = True
    elif position in (5, 6):
        use.state = True
        if axes is not None and len(axes) == 3:
            use.batch_axis = axes[0 if batch_first else 1]


def _learn_conv(use: InputUse, node: NodeProto, axes: Axes, weight: tuple[int, ...] | None) -> None:
    if not weight or len(weight) < 3:
        return
    use.rank = use.rank or len(weight)
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    _demand(use, axes, 1, weight[1] * groups if node.op_type == "Conv" else weight[0])
    if axes is not None and len(axes) == len(weight):
        use.image_axes = tuple(axis for axis in axes[2:] if axis is not None)


def _learn_matmul(use: InputUse, node: NodeProto, axes: Axes, weight: tuple[int, ...] | None) -> None:
    if not weight or (node.op_type == "Gemm" and len(weight) != 2):
        return
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    if node.op_type == "Gemm":
        use.rank = use.rank or 2
        _demand(use, axes, 1, weight[1 if transposed else 0])
    else:
        _demand(use, axes, -1, weight[-2] if len(weight) > 1 else weight[0])


def _demand(use: InputUse, axes: Axes, axis: int, size: int) -> None:
    if axes is None or not -len(axes) <= axis < len(axes):
        return
    own = axes[axis]
    if own is not None:
        use.sizes.setdefault(own, size)
