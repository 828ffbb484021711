"""The probe of a PyTorch module: signals measured while it runs eagerly, in the calling process.

Opening runs the module once (``torch_run``); its graph tells the layers (``load.from_torch``), and the same run is what
the first probe measures, forwards and backwards. Every later probe is a run of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray

from ..builds import NOT_BUILT, Builds
from ..fixes import Fix
from ..load.from_torch import TracedModule, named_inputs, output_tensors, read, to_numpy
from ..measure import measure_all
from ..model import Model, NotChecked
from ..settings import ProbeSettings
from ..stats import WeightStats
from . import softmax_rows
from .backward import Differentiator, entries, tensor_inputs
from .edits import edited, edited_stats
from .gradients import BackwardProbe
from .objective import Objective, UserLoss
from .signals import Forward, LayerSignal, NonFiniteOrigin, Signals, SoftmaxSignal
from .single_sample import Work
from .taps import sample_axes
from .torch_origin import Watch, origin_of
from .torch_run import NOT_ASKED, Call, Run, restored, run_kept, watched
from .torch_signals import own_units, signal_of, signals_of_outputs, std_along


class UnsteadyError(Exception):
    """The forward does not repeat itself, so that what was read of one run does not describe another."""


class TorchSession:
    """Holds one module with its inputs; the module is left exactly as it was found, after every call."""

    def __init__(
        self,
        module: torch.nn.Module,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        loss: UserLoss | None = None,
        autograd: bool = True,
    ) -> None:
        self.module = module
        self.loss = loss
        self.call: Call = tuple(args), dict(kwargs)
        self._opening: Run | None = run_kept(module, self.call, autograd=autograd)
        opening = self._opening
        rewritten = (buffer for buffer, _, _ in opening.rewritten)
        self.traced: TracedModule = read(opening.recording, opening.registered, rewritten)
        self.returned: type = type(self._opening.output)
        returned = list(output_tensors(self._opening.output))
        self.returns_tensors = bool(returned)
        known = (*(tensor for _, tensor in named_inputs(*self.call)), *opening.registered.parameters.values())
        held = {id(tensor) for tensor in (*known, *module.buffers())}
        self.returns_held = all(id(tensor) in held for tensor in returned)
        """Nothing but inputs, parameters and buffers as they are."""

    @property
    def model(self) -> Model:
        return self.traced.model

    def stats(self) -> Mapping[str, WeightStats]:
        return measure_all(self.model, self.traced.chunks)

    def edited_stats(self, edits: Sequence[Fix], seed: int) -> Mapping[str, WeightStats]:
        return edited_stats(self.model, self.traced.chunks, edits, seed, self._made_anew)

    def _made_anew(self, changed: Mapping[str, NDArray[Any]], made: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Computed weights are read from a run of their own."""
        with self._changed(changed):
            recording = run_kept(self.module, self.call, autograd=False, wanted=()).recording
        found: dict[str, NDArray[Any]] = {}
        for address in made:
            stored = self.traced.stored_at[address]
            array = to_numpy(recording.constants[stored.value]) if stored.value in recording.constants else None
            if array is not None:
                found[address] = stored.canonical(array)
        return found

    def probe(self, settings: ProbeSettings, edits: Sequence[Fix] = ()) -> Signals:
        """Measure the taps of the opening run, or of another one, with ``edits`` that are undone bit for bit."""
        with self._edited(edits, settings.seed):
            return self._probed(settings)

    @contextmanager
    def _edited(self, edits: Sequence[Fix], seed: int) -> Iterator[None]:
        with self._changed(edited(self.model, self.traced.chunks, edits, seed)):
            yield

    @contextmanager
    def _changed(self, changed: Mapping[str, NDArray[Any]]) -> Iterator[None]:
        held = {address: self.traced.held(address) for address in changed}
        with restored(held):
            for address, rows in changed.items():
                self.traced.write(address, rows)
            yield

    def _probed(self, settings: ProbeSettings) -> Signals:
        run = self._run(settings)
        layers, not_probed = self._layers(run)
        outputs, softmaxes = signals_of_outputs(run.output), self._softmaxes(run)
        run.kept.release()  # before the backward pass needs the memory
        forward = Signals(
            forward=Forward.MEASURED,
            batch=self.batch,
            runs=1,
            seed=settings.seed,
            layers=layers,
            outputs=outputs,
            softmaxes=softmaxes,
            input_rms=self._input_rms(),
            origin=self._origin(run, layers, outputs),
            not_probed=tuple(not_probed),
            unmoved_statistics=tuple(_unmoved_statistics(self.module)),
            overlapping=tuple(name for name, each in run.registered.parameters.items() if _overlaps(each)),
        )
        if not (settings.backward or settings.liveness):
            return forward
        objective = Objective(self.loss, settings.seed)
        differentiator = Differentiator(
            self.module, objective, run.registered.parameters, run.overwritten, self._reads_graph(run)
        )
        backward = BackwardProbe(differentiator, self.traced, self.call, settings.seed)
        return backward.measure(run, forward, settings.liveness)

    def _reads_graph(self, run: Run) -> bool:
        """Whether the forward reads something that autograd remembers the making of, and that was there before."""
        held = (*run.recording.unregistered.values(), *self.module.buffers(), *tensor_inputs(self.call))
        return any(tensor.grad_fn is not None for tensor in held)

    def _run(self, settings: ProbeSettings) -> Run:
        """The opening run if it was not used yet and kept what is needed."""
        run, self._opening = self._opening, None
        taps = {value for tap in self.traced.taps for value in (tap.value, *tap.again)}
        autograd = settings.backward or settings.liveness
        if run is not None and not taps & run.kept.passed and (not autograd or run.no_autograd != NOT_ASKED):
            return run
        del run  # its memory, before there is another
        run = run_kept(self.module, self.call, autograd=autograd, wanted=taps)
        if [node.op for node in run.recording.nodes] != [node.op for node in self.traced.recording.nodes]:
            raise UnsteadyError("two runs of its forward went different ways")
        return run

    def _layers(self, run: Run) -> tuple[dict[str, LayerSignal], list[NotChecked]]:
        layers, not_probed = {}, []
        for tap in self.traced.taps:
            tensor = run.kept.tensors.get(tap.value)
            if tensor is not None and tensor.numel():
                own = own_units(tensor, tap)
                signal = signal_of(own, tap.unit_axis, tap.flat)
                axes = sample_axes(tap.unit_axis, own.shape, self.batch) if tap.samples else ()
                layers[tap.layer] = replace(signal, sample_std=std_along(own, axes)) if axes else signal
            elif tensor is not None or tap.value in run.kept.passed:
                not_probed.append(NotChecked(tap.layer, "its output holds no floating-point numbers"))
        single = sum(signal.samples == 1 for signal in layers.values())
        if single and self.batch == 1:  # learnt queries are a single one in every batch
            reason = f"a single sample does not show what depends on the input at {single} of {len(layers)} layers"
            not_probed.append(NotChecked("signals", f"{reason}; give a batch of two or more"))
        return layers, not_probed

    def _softmaxes(self, run: Run) -> dict[str, SoftmaxSignal]:
        found = {}
        for tap in self.traced.softmaxes:
            rows = run.kept.rows.get(tap.result)
            signal = None if rows is None or rows.is_meta else softmax_rows.signal_of(tap, rows.cpu().numpy())
            if signal is not None:
                found[tap.name] = signal
        return found

    def _origin(
        self, run: Run, signals: Mapping[str, LayerSignal], outputs: Mapping[str, LayerSignal]
    ) -> NonFiniteOrigin | None:
        """Looked for in a run of its own, and only where something is wrong; outputs may be masked with -inf."""
        diverged = any(not each < math.inf for signal in outputs.values() for each in signal.unit_max)
        if not diverged and not any(signal.nonfinite > 0 for signal in signals.values()):
            return None
        watch = Watch()
        watched(self.module, self.call, watch, autograd=not run.no_autograd)
        watch.ended()
        return origin_of(self.traced, watch, signals)

    def work(self) -> Work:
        """What the opening run did at the layers whose outputs it kept."""
        single = weights = products = 0
        sizes = {layer.name: layer.weight.size for layer in self.model.layers}
        for tap in self.traced.taps:
            tensor = None if self._opening is None else self._opening.kept.tensors.get(tap.value)
            if tensor is None or not tensor.numel():
                continue
            own = own_units(tensor, tap)
            samples = own.numel() // (own.shape[tap.unit_axis] if -own.ndim <= tap.unit_axis < own.ndim else 1)
            single += samples == 1
            weights += sizes[tap.layer]
            products += sizes[tap.layer] * samples
        values = sum(map(math.prod, self.traced.recording.sizes.values()))
        return Work(single, weights, products, values)

    @property
    def output(self) -> Any:
        """What the opening run returned; None once it was measured."""
        return None if self._opening is None else self._opening.output

    @property
    def batch(self) -> int:
        return next((int(t.shape[0]) for _, t in named_inputs(*self.call) if t.ndim), 1)

    def _input_rms(self) -> float:
        floats = [t.detach() for _, t in named_inputs(*self.call) if t.is_floating_point() and t.numel()]
        if not floats:
            return 0.0
        squares = sum(float(torch.linalg.vector_norm(entries(t), dtype=torch.float64)) ** 2 for t in floats)
        return float((squares / sum(t.numel() for t in floats)) ** 0.5)

    def builds(self) -> Builds:
        return NOT_BUILT

    def close(self) -> None:
        """The module is the caller's; what the opening run kept is let go of."""
        self._opening = None

    def __enter__(self) -> TorchSession:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _unmoved_statistics(module: torch.nn.Module) -> Iterator[str]:
    """Running means of norms that learn, with a momentum of 0: as they were made, whatever training sees."""
    for name, each in module.named_modules():
        if not isinstance(each, torch.nn.modules.batchnorm._NormBase) or each.momentum != 0:
            continue
        mean, variance, gain = each.running_mean, each.running_var, each.weight
        if mean is None or variance is None or mean.is_meta or (gain is not None and not gain.requires_grad):
            continue
        if not bool(mean.any()) and bool((variance == 1).all()):
            yield f"{name}.running_mean".removeprefix(".")


def _overlaps(parameter: torch.Tensor) -> bool:
    """Whether an optimiser refuses to write into it: a stride of zero, as ``expand`` makes them."""
    if not parameter.requires_grad or parameter.layout is not torch.strided or parameter.is_nested:
        return False
    strides = parameter.stride()
    if 0 not in strides:
        return False
    return parameter.numel() > 0 and any(
        size > 1 and stride == 0 for size, stride in zip(parameter.shape, strides, strict=True)
    )
