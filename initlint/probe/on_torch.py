"""The probe of a PyTorch module: signals measured while it runs eagerly, in the calling process.

The module is traced once (``load.from_torch``) to know its layers; a probe runs it again, and because an eager run
makes the same values in the same order, the taps of the trace are where to measure.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from ..builds import NOT_BUILT, Builds
from ..fixes import Fix
from ..load.eager import run
from ..load.from_torch import TracedModule, named_inputs, output_tensors, trace
from ..load.trace import Recorder
from ..measure import measure_all
from ..model import Model, NotChecked
from ..settings import ProbeSettings
from ..stats import WeightStats
from .backward import Differentiator
from .gradients import BackwardProbe
from .objective import Objective, UserLoss
from .signals import Forward, LayerSignal, NonFiniteOrigin, Signals
from .taps import Tap
from .torch_origin import Watch, origin_of


class TorchSession:
    """Holds one module with its inputs; the module is left exactly as it was found, after every call."""

    def __init__(
        self,
        module: torch.nn.Module,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        loss: UserLoss | None = None,
    ) -> None:
        self.module = module
        self.loss = loss
        self.args, self.kwargs = tuple(args), dict(kwargs)
        self.traced: TracedModule = trace(module, self.args, self.kwargs)

    @property
    def model(self) -> Model:
        return self.traced.model

    def stats(self) -> Mapping[str, WeightStats]:
        return measure_all(self.model, self.traced.chunks)

    def probe(self, settings: ProbeSettings, edits: Sequence[Fix] = ()) -> Signals:
        """Run the module once more and measure its taps."""
        if edits:
            raise ValueError("edits of modules come with the trial")
        meter = Meter(self.traced.taps)
        recorder = Recorder(self.module, meter.observe)
        for name, tensor in named_inputs(self.args, self.kwargs):
            recorder.add_input(name, tensor)
        with torch.no_grad():
            output = run(self.module, self.args, self.kwargs, recorder)
        return Signals(
            forward=Forward.MEASURED,
            batch=self.batch,
            runs=1,
            seed=settings.seed,
            layers=meter.signals,
            outputs=_outputs(output),
            input_rms=self._input_rms(),
            origin=self._origin(meter.signals),
            **self._backward(settings, meter.not_probed),
        )

    def _origin(self, signals: Mapping[str, LayerSignal]) -> NonFiniteOrigin | None:
        """Looked for in a run of its own, and only where something is wrong."""
        if not any(signal.nonfinite > 0 for signal in signals.values()):
            return None
        watch = Watch(self.traced)
        recorder = Recorder(self.module, watch.observe)
        for name, tensor in named_inputs(self.args, self.kwargs):
            recorder.add_input(name, tensor)
        with torch.no_grad():
            run(self.module, self.args, self.kwargs, recorder)
        return origin_of(self.traced, watch, signals)

    def _backward(self, settings: ProbeSettings, not_probed: Sequence[NotChecked]) -> dict[str, Any]:
        """The fields of Signals that need gradients, and what was not probed."""
        if not (settings.backward or settings.liveness):
            return {"not_probed": tuple(not_probed)}
        differentiator = Differentiator(self.module, Objective(self.loss, settings.seed))
        probe = BackwardProbe(differentiator, self.traced, (self.args, self.kwargs), settings.seed)
        measured = probe.measure(settings.liveness)
        made = {each.name: getattr(measured, each.name) for each in fields(measured)}
        return {**made, "not_probed": (*not_probed, *measured.not_probed)}

    @property
    def batch(self) -> int:
        return next((int(t.shape[0]) for _, t in named_inputs(self.args, self.kwargs) if t.ndim), 1)

    def _input_rms(self) -> float:
        floats = [t for _, t in named_inputs(self.args, self.kwargs) if t.is_floating_point() and t.numel()]
        if not floats:
            return 0.0
        squares = sum(float(t.detach().double().square().sum()) for t in floats)
        return float((squares / sum(t.numel() for t in floats)) ** 0.5)

    def builds(self) -> Builds:
        return NOT_BUILT

    def close(self) -> None:
        """Nothing to release: the module is the caller's."""

    def __enter__(self) -> TorchSession:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass
class Meter:
    """Measures the tapped values as they are computed."""

    taps: Sequence[Tap]
    signals: dict[str, LayerSignal] = field(default_factory=dict)
    not_probed: list[NotChecked] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._by_value: dict[str, list[Tap]] = {}
        for tap in self.taps:
            self._by_value.setdefault(tap.value, []).append(tap)

    def observe(self, value: str, tensor: torch.Tensor) -> None:
        for tap in self._by_value.get(value, ()):
            if tensor.numel() == 0 or not tensor.is_floating_point():
                self.not_probed.append(NotChecked(tap.layer, "its output holds no floating-point numbers"))
            else:
                self.signals[tap.layer] = signal_of(tensor, tap.unit_axis, tap.flat)


def signal_of(tensor: torch.Tensor, unit_axis: int, flat: tuple[float, float] | None) -> LayerSignal:
    """Statistics of one output; ``unit_axis`` is clipped to the tensor's rank.

    In float64 where the tensor is small, else in float32 with the mean taken off first (exact to 1e-7 of the mean).
    """
    data = tensor.detach()
    axis = unit_axis if -data.ndim <= unit_axis < data.ndim else data.ndim - 1
    units = data.movedim(axis, 0).reshape(data.shape[axis], -1) if data.ndim else data.reshape(1, 1)
    units = units.to(torch.float64)
    mean = units.mean(1)
    variance = (units - mean[:, None]).square_().mean(1)
    finite = torch.isfinite(units)
    nonfinite = 0.0 if bool(finite.all()) else 1.0 - float(finite.double().mean())
    outside = ((units < flat[0]) | (units > flat[1])).double().mean(1) if flat else None
    mean_square = float((variance + mean.square()).mean())
    return LayerSignal(
        samples=int(units.shape[1]),
        rms=mean_square**0.5,
        mean=float(mean.mean()),
        std=float(variance.mean()) ** 0.5,
        absmax=float(units.abs().max()),
        nonfinite=nonfinite,
        saturated=0.0 if outside is None else float(outside.mean()),
        unit_mean=array("f", mean.tolist()),
        unit_std=array("f", variance.sqrt().tolist()),
        unit_max=array("f", units.amax(1).tolist()),
        unit_saturated=array("f", outside.tolist() if outside is not None else []),
    )


def _outputs(output: Any) -> dict[str, LayerSignal]:
    return {
        f"output{i}": signal_of(tensor, 1 if tensor.ndim > 1 else 0, None)
        for i, tensor in enumerate(output_tensors(output))
        if tensor.is_floating_point() and tensor.numel()
    }
