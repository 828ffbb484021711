"""What float16 cannot hold: an error in a model stored in it, a warning in others."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx
from models.graphs import Array, mlp
from onnx import TensorProto, numpy_helper

from initlint.plugin import Severity
from initlint.testing import Bad, Case, Good, cases, check

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


def times(factor: float) -> object:
    def change(weight: Array) -> Array:
        return (weight * factor).astype(np.float32)

    return change


def half(seed: int = 0, factor: float = 1.0) -> onnx.ModelProto:
    """Stored and run in float16."""
    model = mlp(seed, changes={"2.weight": times(factor)})
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


@cases(
    Good("he-initialised mlp", mlp, notes_ok=False),
    Good("he-initialised mlp in float16", half, notes_ok=False),
    Good("near miss: loud, within the range", partial(half, factor=1000.0), notes_ok=False),
    Good("near miss: small, above the least", partial(mlp, changes={"2.weight": times(1e-5)}), notes_ok=False),
    Good(
        "near miss: beyond float32 too, which another rule says",
        partial(mlp, changes={"2.weight": times(1e5), "4.weight": times(1e38)}),
    ),
    Bad("activations beyond it in float16", partial(half, factor=1e5), ["2"], ERROR),
    Bad("activations beyond it in float32", partial(mlp, changes={"2.weight": times(1e5)}), ["2"], WARNING),
    Bad("weights that become zero", partial(mlp, changes={"2.weight": times(1e-9)}), ["2.weight"], NOTE),
)
def test_half_precision_range(case: Case) -> None:
    check("half-precision-range", case, seeds=(0,))
