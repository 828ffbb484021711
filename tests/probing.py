"""Small ONNX graphs for tests of the probe, written in ONNX's text form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper, parser

from initlint.kinds import Kind, Role
from initlint.model import Layer, Model, Tensor, View
from initlint.probe.on_onnx import OnnxProbe
from initlint.probe.signals import LayerSignal, Signals
from initlint.probe.taps import SoftmaxTap, Tap
from initlint.probe.weights import Weights
from initlint.settings import ProbeSettings

SEED = ProbeSettings(seed=3)


@dataclass(frozen=True)
class Opened:
    """What a loader would hand over, without a loader."""

    proto: onnx.ModelProto
    taps: tuple[Tap, ...]
    roots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    base_dir: Path | None = None
    softmaxes: tuple[SoftmaxTap, ...] = ()

    @property
    def weights(self) -> Weights:
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in self.proto.graph.initializer}
        return Weights({}, stored.__getitem__, lambda _, array: array, lambda _, rows, around: rows)

    @property
    def model(self) -> Model:
        names = dict.fromkeys(address for addresses in self.roots.values() for address in addresses)
        view = View(1, 1, 1)
        tensors = tuple(Tensor(name, (1, 1), "float32", Role.WEIGHT, view) for name in names)
        layers = tuple(
            Layer(tap.layer, Kind.LINEAR, Tensor(tap.layer, (1, 1), "float32", Role.WEIGHT, view)) for tap in self.taps
        )
        return Model("onnx", layers, tensors, 0)


def graph(text: str, opset: int = 18, **weights: Any) -> onnx.ModelProto:
    """A model of ``text`` (a graph), with ``weights`` as initializers."""
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["" : {opset}, "com.microsoft" : 1]> {text}')
    for name, value in weights.items():
        model.graph.initializer.append(
            value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(np.asarray(value), name)
        )
    return model


def taps(*values: str, axis: int = 1, flat: tuple[float, float] | None = None) -> tuple[Tap, ...]:
    """One tap per value; the layer is called as the value."""
    return tuple(Tap(value, value, axis, flat) for value in values)


def probe(
    model: onnx.ModelProto,
    tapped: Sequence[Tap] = (),
    settings: ProbeSettings = SEED,
    overrides: Mapping[str, Any] | None = None,
    roots: Mapping[str, tuple[str, ...]] | None = None,
) -> Signals:
    return OnnxProbe(Opened(model, tuple(tapped), roots or {})).run(settings, overrides or {})


def value_of(model: onnx.ModelProto, name: str, feeds: Mapping[str, Any]) -> Any:
    """What plain onnxruntime computes for a value."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.append(onnx.ValueInfoProto(name=name))
    return onnxruntime.InferenceSession(copy.SerializeToString()).run([name], dict(feeds))[0]


def expect_statistics(signal: LayerSignal, values: Any, axis: int = 1, flat: tuple[float, float] | None = None) -> None:
    """``signal`` says of ``values`` what numpy says in float64."""
    units = np.moveaxis(np.asarray(values, np.float64), axis, 0).reshape(np.shape(values)[axis], -1)
    close = {"rtol": 2e-5, "atol": 1e-12}
    assert signal.samples == units.shape[1]
    np.testing.assert_allclose(signal.unit_mean, units.mean(1), rtol=1e-5, atol=1e-6 * np.abs(units).max())
    np.testing.assert_allclose(signal.unit_std, units.std(1), rtol=2e-5, atol=1e-9 * np.abs(units).max())
    np.testing.assert_allclose(signal.unit_max, units.max(1), **close)
    np.testing.assert_allclose(signal.rms, np.sqrt((units**2).mean()), **close)
    np.testing.assert_allclose(signal.mean, units.mean(), rtol=1e-4, atol=1e-6 * np.abs(units).max())
    np.testing.assert_allclose(signal.std, np.sqrt(units.var(1).mean()), **close)
    np.testing.assert_allclose(signal.absmax, np.abs(units).max(), **close)
    assert signal.nonfinite == 0
    if flat is None:
        assert len(signal.unit_saturated) == 0
        assert signal.saturated == 0
    else:
        outside = (units < flat[0]) | (units > flat[1])
        np.testing.assert_allclose(signal.unit_saturated, outside.mean(1), atol=1e-7)
        np.testing.assert_allclose(signal.saturated, outside.mean(), atol=1e-7)
