"""Gradients of a module's parameters and layer outputs, leaving no trace: ``.grad`` is never touched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..load.eager import AsInTraining, run, untouched
from ..load.from_torch import named_inputs
from ..load.trace import Recorder, Recording
from .objective import Objective, split
from .signals import GradientSignal
from .taps import Tap

Gradients = dict[str, torch.Tensor | None]
"""By parameter name; None where autograd found no way from the loss to the parameter."""

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a forward."""


class NoGradientError(Exception):
    """There is nothing to differentiate; the message completes "no gradients: ..."."""


@dataclass
class Differentiator:
    """Runs a module forwards and backwards as often as asked. Exceptions of a forward or a loss pass through."""

    module: torch.nn.Module
    objective: Objective

    def __post_init__(self) -> None:
        self.parameters = {name: p for name, p in self.module.named_parameters() if _trainable(p)}

    def gradients(self, call: Call, draw: int, mode: AsInTraining | None = None, everything: bool = False) -> Gradients:
        """Gradients with the coefficients number ``draw``; ``everything`` takes all outputs."""
        with differentiating(self.module), untouched(self.module), mode or AsInTraining():
            output = self.module(*call[0], **call[1])
            return self._differentiate(output, call, draw, everything)

    def recorded(
        self, call: Call, draw: int, recorder: GradientRecorder, meter: GradientMeter
    ) -> tuple[Gradients, bool]:
        """The same while ``recorder`` watches and ``meter`` sees layer outputs; and whether an output was left out."""
        with differentiating(self.module), recorder.own_detaches:
            output = run(self.module, call[0], call[1], recorder)
            meter.hook_the_rest()
            outputs = [recorder.value_of(each) for part in split(output) for each in part]
            recorder.recording.outputs = outputs
            left_out = self.objective.given is None and bool(split(output)[1])
            return self._differentiate(output, call, draw, False), left_out

    def _differentiate(self, output: Any, call: Call, draw: int, everything: bool) -> Gradients:
        chosen, rest = split(output)
        if not self.parameters:
            raise NoGradientError("no parameter requires a gradient")
        if not chosen and self.objective.given is None:
            raise NoGradientError("the output does not depend on a parameter in a way that autograd can follow")
        loss = (
            self.objective.linear([*chosen, *rest], draw) if everything else self.objective(output, _given(call), draw)
        )
        if not loss.requires_grad:
            raise NoGradientError("the loss does not depend on a parameter in a way that autograd can follow")
        names = list(self.parameters)
        found = torch.autograd.grad(loss, [self.parameters[name] for name in names], allow_unused=True)
        return dict(zip(names, found, strict=True))


def _trainable(parameter: torch.Tensor) -> bool:
    return parameter.requires_grad and not parameter.is_meta and parameter.numel() > 0


def _given(call: Call) -> Any:
    args, kwargs = call
    if not args:
        return kwargs
    return args[0] if len(args) == 1 and not kwargs else args


@contextmanager
def differentiating(module: torch.nn.Module) -> Iterator[None]:
    """Autograd is on inside, whatever the caller's mode; modules get their attributes back (caches)."""
    attributes = [(each, dict(each.__dict__)) for each in module.modules()]
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))  # its RNNs have no backward in eval mode
            yield
    finally:
        for each, saved in attributes:
            present = each.__dict__
            for name in [name for name in present if name not in saved]:
                del present[name]
            for name, value in saved.items():
                if present.get(name) is not value or name not in present:
                    present[name] = value


class GradientRecorder(Recorder):
    """Records what a run without autograd records: not the detached copies that autograd saves for itself."""

    def __init__(self, module: torch.nn.Module, meter: GradientMeter, reads: Reads) -> None:
        def about_to_read(tensor: torch.Tensor) -> None:
            meter.about_to_read(tensor)
            reads.about_to_read(tensor)

        super().__init__(module, meter.observe, about_to_read)
        self.own_detaches = _OwnDetaches()
        reads.detached = self.own_detaches.detached

    def record(self, name: str, args: Sequence[Any], kwargs: dict[str, Any], outputs: Any) -> None:
        if name != "detach" or self.own_detaches.running:
            super().record(name, args, kwargs, outputs)


_DATA = torch.Tensor.data.__get__  # type: ignore[attr-defined]


class _OwnDetaches(TorchFunctionMode):
    """Knows when it is the model that detaches a tensor, and which: autograd does so without a function call."""

    def __init__(self) -> None:
        super().__init__()
        self.running = 0
        self.detached: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        own = getattr(func, "__name__", "") == "detach"
        if args and (own or func == _DATA):
            self.detached.add(id(args[0]))
        self.running += own
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self.running -= own


# -- what a gradient says --------------------------------------------------------------------------------------------


def entries(gradient: torch.Tensor) -> torch.Tensor:
    """Its stored entries, flat and real; a sparse gradient stores the rows that were read."""
    values = gradient.coalesce().values() if gradient.is_sparse else gradient.detach()
    values = torch.view_as_real(values.resolve_conj()) if values.is_complex() else values
    return values.reshape(-1)


def is_zero(gradient: torch.Tensor | None) -> bool:
    return gradient is None or not bool(entries(gradient).any())


def is_finite(gradient: torch.Tensor | None) -> bool:
    return gradient is None or bool(entries(gradient).isfinite().all())


def rms(values: torch.Tensor, size: int) -> float:
    """Root of the sum of squares over ``size``, in double precision where it could overflow or underflow."""
    if not values.numel() or not size:
        return 0.0
    total = float(torch.linalg.vector_norm(values.float()))
    if not 1e-18 < total < 1e18:  # squares leave the range of float32
        total = float(torch.linalg.vector_norm(values.double()))
    return float(total / size**0.5)


def signals(gradients: Mapping[str, torch.Tensor | None], parameters: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """A GradientSignal for every gradient that is there."""
    made: dict[str, GradientSignal] = {}
    for name, gradient in gradients.items():
        if gradient is not None:
            values, weight = entries(gradient), entries(parameters[name])
            size = weight.numel()
            zero_share = 1.0 - float(torch.count_nonzero(values)) / size
            made[name] = GradientSignal(rms(values, size), zero_share, rms(weight, size))
    return made


# -- layer outputs ---------------------------------------------------------------------------------------------------


@dataclass
class Backflow:
    """What came back through a layer's output: sums over samples and positions, by unit."""

    square: float = 0.0
    count: int = 0
    total: Any = 0.0
    absolute: Any = 0.0

    @property
    def rms(self) -> float:
        return (self.square / self.count) ** 0.5 if self.count else 0.0

    def add(self, gradient: torch.Tensor, axis: int) -> None:
        data = torch.view_as_real(gradient)[..., 0] if gradient.is_complex() else gradient.detach()
        axis = axis if -data.ndim <= axis < data.ndim else data.ndim - 1
        others = [dim for dim in range(data.ndim) if dim != axis % data.ndim]
        data = data if data.ndim else data.reshape(1)
        self.square += float(torch.linalg.vector_norm(data, dtype=_at_least_single(data))) ** 2
        self.count += data.numel()
        absolute = data.abs()
        self.total = self.total + (data.sum(others, dtype=torch.float64) if others else data.double())
        self.absolute = self.absolute + (absolute.sum(others, dtype=torch.float64) if others else absolute.double())


def _at_least_single(data: torch.Tensor) -> torch.dtype:
    return torch.float64 if data.dtype == torch.float64 else torch.float32


@dataclass
class GradientMeter:
    """Hooks the gradient of tapped values when they are first read: before anything can overwrite them."""

    taps: Sequence[Tap]
    flows: dict[str, Backflow] = field(default_factory=dict)
    _waiting: dict[int, tuple[torch.Tensor, list[Tap]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._by_value: dict[str, list[Tap]] = {}
        for tap in self.taps:
            self._by_value.setdefault(tap.value, []).append(tap)

    def observe(self, value: str, tensor: torch.Tensor) -> None:
        if value in self._by_value:
            self._waiting[id(tensor)] = (tensor, self._by_value[value])

    def about_to_read(self, tensor: torch.Tensor) -> None:
        found = self._waiting.pop(id(tensor), None)
        if found is not None and tensor.requires_grad:
            for tap in found[1]:
                tensor.register_hook(self._taker(tap))  # type: ignore[no-untyped-call]

    def hook_the_rest(self) -> None:
        for tensor, _ in list(self._waiting.values()):
            self.about_to_read(tensor)

    def _taker(self, tap: Tap) -> Callable[[torch.Tensor], None]:
        flow = self.flows.setdefault(tap.layer, Backflow())

        def take(gradient: torch.Tensor) -> None:
            if not gradient.is_sparse:
                flow.add(gradient, tap.unit_axis)

        return take


@dataclass
class Reads:
    """Which parameters were read while autograd was watching, and which tensors the model detached (by identity)."""

    watched: set[int] = field(default_factory=set)
    detached: set[int] = field(default_factory=set)

    def about_to_read(self, tensor: torch.Tensor) -> None:
        if torch.is_grad_enabled() and tensor.requires_grad:
            self.watched.add(id(tensor))


def same_operators(one: Recording, other: Recording) -> bool:
    """Whether two runs made the same values in the same order, so that one's names mean the other's tensors."""
    return [node.op for node in one.nodes] == [node.op for node in other.nodes]


def reach_outputs(recording: Recording) -> set[str]:
    """Names of the parameters and buffers that some output depends on."""
    needed = set(recording.outputs)
    for node in reversed(recording.nodes):
        if not needed.isdisjoint(node.outputs):
            needed.update(node.inputs)
    return {qualified for value, qualified in recording.stored.items() if value in needed}


def tensor_inputs(call: Call) -> list[torch.Tensor]:
    return [tensor for _, tensor in named_inputs(*call)]
