"""Whether a graph's outputs depend on its inputs at all, once everything that is trained has moved a little."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..model import Tensor
from .graph_rewrite import replace_values
from .limits import SHARE
from .onnx_liveness import STEP
from .payload import Array
from .setup import Setup
from .signals import LayerSignal
from .tangents import TangentRuns
from .weights import Weights, normal, rms


def seem_alike(outputs: Mapping[str, LayerSignal]) -> bool:
    """Whether no output varies, neither with the samples nor with the places; enough to look closer."""
    return bool(outputs) and all(each.samples > 1 and each.std <= SHARE * each.rms for each in outputs.values())


def stay_alike(
    setup: Setup,
    weights: Weights,
    tensors: Iterable[Tensor],
    outputs: Sequence[str],
    batches: Sequence[Mapping[str, Array]],
) -> bool:
    """Whether two ``batches`` give the same ``outputs`` with all ``tensors`` moved at once, whatever holds them."""
    if len(batches) < 2:
        return False
    moved = replace(weights, overrides=dict(weights.overrides))
    for tensor in tensors:
        rows = moved.rows(tensor.address)
        scale = max(rms(rows), 1 / math.sqrt(max(1, tensor.view.fan_in)))
        there = rows + np.float32(STEP) * normal(rows.shape, scale, tensor.address, "alike")
        moved.overrides.update(moved.stored(tensor.address, there))
    graph = replace_values(setup.graph, moved.overrides)
    setup = Setup(graph, setup.feeder, setup.attempt, moved.overrides, setup.folder)
    setup.prepare()
    runs = TangentRuns(setup, [], outputs)
    one, other = (runs.run({}, 0, {**batch, **moved.overrides}).outputs for batch in batches[:2])
    return all(_are_alike(values, other[name]) for name, values in one.items())


def _are_alike(one: Array, other: Array) -> bool:
    sizes = np.abs(one[(one != 0) & np.isfinite(one)])
    difference = np.nan_to_num(np.abs(one - other)) if one.shape == other.shape else np.full(1, np.inf)
    return bool(difference.max(initial=0.0) <= SHARE * (np.median(sizes) if sizes.size else 0.0))
