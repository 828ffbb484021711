"""Gradients of a module's parameters and layer outputs, leaving no trace: ``.grad`` is never touched."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from ..foreign import described
from ..load.eager import AsInTraining, accumulating_nothing, in_training_mode, put_back, untouched
from ..load.from_torch import named_inputs
from ..load.graph import LINK
from ..load.trace import Recording, Rewritten
from ..model import NotChecked
from .objective import Counted, Objective, heads, split
from .signals import GradientSignal, LossStart
from .taps import Tap
from .torch_run import Call, Edge, Run, attributes_kept, differentiating, restored
from .torch_signals import own_units

Gradients = dict[str, torch.Tensor | None]
"""By parameter name; None where autograd found no way from the loss to the parameter."""


class NoGradientError(Exception):
    """There is nothing to differentiate; the message completes "no gradients: ..."."""


@dataclass
class Differentiator:
    """Runs a module forwards and backwards as often as asked. Exceptions of a forward or a loss pass through."""

    module: torch.nn.Module
    objective: Objective
    registered: Mapping[str, torch.Tensor]
    """All its parameters by name."""
    overwritten: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Parameters and inputs that the forward itself writes into."""
    reads_graph: bool = False
    """The forward reads a tensor with a history of its own, as one made in the constructor, not ours to free."""
    witness: Callable[[Any, Call], None] | None = None
    """Is shown the outputs that ``gradients`` are taken of."""

    def __post_init__(self) -> None:
        self.parameters = {name: p for name, p in self.registered.items() if _trainable(p)}

    def gradients(
        self,
        call: Call,
        draw: int,
        mode: AsInTraining | None = None,
        counted: Counted = Counted.LOSS,
        of: Collection[str] | None = None,
    ) -> Gradients:
        """Gradients with the coefficients number ``draw``.

        Where those ``of`` a few parameters are enough, autograd goes no further back than to these.
        """
        with (
            restored(self.overwritten),
            differentiating(),
            attributes_kept(self.module),
            untouched(self.module),
            mode or AsInTraining(),
        ):
            output = self.module(*call[0], **call[1])
            if self.witness is not None:
                self.witness(output, call)
            return self._differentiate(output, call, draw, counted, of)

    def outputs(self, call: Call, mode: AsInTraining) -> Any:
        """What the forward returns, without a graph."""
        with restored(self.overwritten), torch.no_grad(), attributes_kept(self.module), untouched(self.module), mode:
            return self.module(*call[0], **call[1])

    def outputs_of_training(self, call: Call, mode: AsInTraining, seed: int) -> Any:
        """What the forward returns in training mode; it draws its noise from ``seed``."""
        with (
            restored(self.overwritten),
            torch.no_grad(),
            attributes_kept(self.module),
            untouched(self.module),
            in_training_mode(self.module),
            mode,
        ):
            torch.manual_seed(seed)
            return self.module(*call[0], **call[1])

    def trained(self, call: Call, mode: AsInTraining, seed: int) -> set[str]:
        """Names of the buffers that a forward in training mode writes; it draws its noise from ``seed``."""
        before, rewritten = dict(self.module.named_buffers()), list[Rewritten]()
        with restored(self.overwritten), torch.no_grad(), attributes_kept(self.module):
            with untouched(self.module, rewritten), in_training_mode(self.module), mode:
                torch.manual_seed(seed)
                self.module(*call[0], **call[1])
            after = dict(self.module.named_buffers())
        written = {id(buffer) for buffer, _, _ in rewritten}
        return {name for name, buffer in before.items() if id(buffer) in written or after.get(name) is not buffer}

    def read_in_training(self, call: Call, names: Collection[str], seed: int) -> set[str]:
        """Which of the parameters ``names`` an output of training mode depends on: some nets sample only there.

        What the forward of that mode raises, as for want of targets, passes through.
        """
        gradients = self.in_training(call, names, seed, AsInTraining())
        return {name for name, gradient in gradients.items() if not is_zero(gradient)}

    def in_training(
        self, call: Call, names: Collection[str], seed: int, mode: AbstractContextManager[object]
    ) -> Gradients:
        """Gradients of all outputs of training mode; its noise is drawn from ``seed``, dropout as ``mode`` has it."""
        with (
            restored(self.overwritten),
            differentiating(),
            attributes_kept(self.module),
            untouched(self.module),
            in_training_mode(self.module),
            mode,
        ):
            torch.manual_seed(seed)
            return self._differentiate(self.module(*call[0], **call[1]), call, 0, Counted.ALL, names)

    def of_run(self, run: Run, draw: int) -> Gradients:
        """Gradients of a run that is over; its graph can be gone through once."""
        # As in the forward: checkpoints run their part of it again.
        with (
            differentiating(),
            attributes_kept(self.module, run.attributes),
            untouched(self.module),
            AsInTraining(),
        ):
            for buffer, memory, values in run.rewritten:  # ``untouched`` puts them back
                put_back(buffer, memory, values)
            return self._differentiate(run.output, run.call, draw, Counted.LOSS)

    def loss_start(self, run: Run) -> LossStart | NotChecked | None:
        """None without a loss of the user's; one that works only once, or only where autograd watches, is said."""
        if self.objective.given is None:
            return None
        try:
            with torch.no_grad(), attributes_kept(self.module, run.attributes), untouched(self.module), AsInTraining():
                return self.objective.start(run.output, _given(run.call))
        except Exception as error:  # noqa: BLE001 - the loss served for the gradients; this is a second use of it
            return NotChecked("the loss at the start", f"called without gradients, it raised {described(error)}")

    def leaves_out(self, output: Any, counted: Counted = Counted.ALL) -> bool:
        """Whether the loss does not read all outputs that are ``counted``."""
        if self.objective.given is not None:
            return False
        chosen, rest = split(output)
        return bool(rest) if counted is Counted.ALL else len(heads(output)) > len(chosen)

    def misses(self, output: Any) -> bool:
        """Whether others tell outputs apart that this loss does not.

        The random one leaves out some; the user's has the targets of one batch, and classes of which it has none.
        """
        if self.objective.given is not None:
            return bool(heads(output))
        return self.leaves_out(output, Counted.HEADS)

    def _differentiate(
        self, output: Any, call: Call, draw: int, counted: Counted, of: Collection[str] | None = None
    ) -> Gradients:
        chosen, rest = split(output)
        if not self.registered:
            raise NoGradientError("the model has no parameters")
        if not self.parameters:
            raise NoGradientError("none of the model's parameters is trainable: requires_grad is False for all")
        if not chosen and self.objective.given is None:
            raise NoGradientError("the output does not depend on a parameter in a way that autograd can follow")
        names = [name for name in self.parameters if of is None or name in of]
        wanted = [self.parameters[name] for name in names]
        with accumulating_nothing([*self.registered.values(), *tensor_inputs(call)]):
            if counted is Counted.LOSS:
                loss = self.objective(output, _given(call), draw)
            else:
                loss = self.objective.linear(heads(output) if counted is Counted.HEADS else [*chosen, *rest], draw)
            if not loss.requires_grad:
                raise NoGradientError("the loss does not depend on a parameter in a way that autograd can follow")
            found = torch.autograd.grad(loss, wanted, allow_unused=True, retain_graph=self.reads_graph)
            # a backward of the user's own may call autograd itself, as those of reversible nets do
            pairs = zip(wanted, found, strict=True)
            aside = [each.grad if gradient is None and each.is_leaf else gradient for each, gradient in pairs]
        return dict(zip(names, aside, strict=True))


def _trainable(parameter: torch.Tensor) -> bool:
    return parameter.requires_grad and not parameter.is_meta and parameter.numel() > 0


def _given(call: Call) -> Any:
    args, kwargs = call
    if not args:
        return kwargs
    return args[0] if len(args) == 1 and not kwargs else args


# -- what a gradient says --------------------------------------------------------------------------------------------


def entries(gradient: torch.Tensor) -> torch.Tensor:
    """Its stored entries, flat and real; a sparse gradient stores the rows that were read."""
    values = gradient.coalesce().values() if gradient.is_sparse else _bare(gradient)
    values = torch.view_as_real(values.resolve_conj()) if values.is_complex() else values
    return values.reshape(-1)


def _bare(tensor: torch.Tensor) -> torch.Tensor:
    """Without its history; most gradients have none, and a view costs as much as a sum of a few thousand values."""
    return tensor.detach() if tensor.requires_grad else tensor


def is_zero(gradient: torch.Tensor | None) -> bool:
    return gradient is None or not bool(entries(gradient).any())


def peaks(gradients: Gradients) -> dict[str, float]:
    """The largest magnitude of each, NaN where it holds one; 0 for one that is absent or stores nothing."""
    there = {name: gradient for name, gradient in gradients.items() if gradient is not None}
    stored = {name: entries(each) if each.is_sparse else _bare(each) for name, each in there.items()}
    filled = {name: values for name, values in stored.items() if values.numel()}
    norms = torch._foreach_norm(list(filled.values()), torch.inf) if filled else ()
    return {**dict.fromkeys(gradients, 0.0), **dict(zip(filled, map(float, norms), strict=True))}


def are_finite(gradients: Gradients) -> bool:
    return all(map(math.isfinite, peaks(gradients).values()))


def rms(values: torch.Tensor, size: int) -> float:
    """Root of the sum of squares over ``size``, in double precision where it could overflow or underflow."""
    return _over(float(torch.linalg.vector_norm(values.float())), values, size)


def rms_of_each(tensors: Sequence[torch.Tensor], sizes: Sequence[int]) -> list[float]:
    """``rms`` of the entries of each, in one call for all that need no copy: most are so small that calls cost most."""
    plain = [i for i, each in enumerate(tensors) if _is_plain(each) and each.numel()]
    norms = dict(zip(plain, _norms([tensors[i] for i in plain]), strict=True))
    silent = [i for i, norm in norms.items() if norm == 0.0]  # be it that squares are too small for float32
    zero = {i for i, peak in zip(silent, _norms([tensors[i] for i in silent], torch.inf), strict=True) if peak == 0.0}
    return [
        0.0 if i in zero else _over(norms[i], each, size) if i in norms else rms(entries(each), size)
        for i, (each, size) in enumerate(zip(tensors, sizes, strict=True))
    ]


@torch.no_grad()
def _norms(tensors: list[torch.Tensor], order: float = 2.0) -> list[float]:
    return [float(each) for each in torch._foreach_norm(tensors, order)] if tensors else []


def _is_plain(tensor: torch.Tensor) -> bool:
    return tensor.dtype is torch.float32 and not tensor.is_sparse and tensor.is_contiguous()


def _over(total: float, values: torch.Tensor, size: int) -> float:
    """``total``, the root of the sum of squares of ``values``, over the root of ``size``."""
    if not values.numel() or not size:
        return 0.0
    if not 1e-18 < total < 1e18:  # squares leave the range of float32
        total = float(torch.linalg.vector_norm(values.detach().double()))
    return float(total / size**0.5)


def signals(gradients: Mapping[str, torch.Tensor | None], parameters: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """A GradientSignal for every gradient that is there."""
    there = {name: gradient for name, gradient in gradients.items() if gradient is not None}
    weights = [parameters[name] for name in there]
    sizes = [entries(each).numel() if each.is_sparse or each.is_complex() else each.numel() for each in weights]
    scales = zip(rms_of_each(list(there.values()), sizes), rms_of_each(weights, sizes), strict=True)
    return {
        name: GradientSignal(scale, 1.0 - float(torch.count_nonzero(entries(gradient))) / size, weight)
        for (name, gradient), size, (scale, weight) in zip(there.items(), sizes, scales, strict=True)
    }


# -- layer outputs ---------------------------------------------------------------------------------------------------


@dataclass
class Backflow:
    """What came back through a layer's output: sums over samples and positions, by unit."""

    square: float = 0.0
    count: int = 0
    total: torch.Tensor | None = None
    """By unit; None where these were not asked for."""
    absolute: torch.Tensor | None = None
    mixed: bool = False
    """Calls with other parts of the weight: sums by unit are of no use together."""

    @property
    def rms(self) -> float:
        return (self.square / self.count) ** 0.5 if self.count else 0.0

    def add(self, gradient: torch.Tensor, axis: int | None) -> None:
        """Take in one gradient, with sums by unit where these have an ``axis``."""
        data = _real(gradient)
        self.square += float(torch.linalg.vector_norm(data, dtype=_at_least_single(data))) ** 2
        self.count += data.numel()
        self._add_sums(data, axis)

    def add_sums(self, gradient: torch.Tensor, axis: int | None) -> None:
        self._add_sums(_real(gradient), axis)

    def _add_sums(self, data: torch.Tensor, axis: int | None) -> None:
        if axis is None or not data.ndim:
            return
        axis = axis if -data.ndim <= axis < data.ndim else data.ndim - 1
        others = [dim for dim in range(data.ndim) if dim != axis % data.ndim]
        total, absolute = (each.sum(others) if others else each.clone() for each in (data, data.abs()))
        if self.total is None or self.absolute is None:
            self.total, self.absolute = total, absolute
        elif self.total.shape != total.shape:
            self.mixed = True
        else:
            self.total, self.absolute = self.total.double() + total, self.absolute.double() + absolute


def _real(gradient: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(gradient)[..., 0] if gradient.is_complex() else _bare(gradient)


def _at_least_single(data: torch.Tensor) -> torch.dtype:
    return torch.float64 if data.dtype == torch.float64 else torch.float32


def flowing_back(run: Run, taps: Sequence[Tap], biased: Collection[str]) -> dict[str, Backflow]:
    """By layer what the next backward pass through ``run`` brings; sums by unit for the layers ``biased`` alone.

    Of a layer that is called more than once the sums are those of all calls, as the gradient of its bias is.
    """
    flows: dict[str, Backflow] = {}
    for tap in taps:
        axis = tap.unit_axis if tap.layer in biased else None
        edge = run.kept.edges.get(tap.value)
        if edge is None:
            continue
        flows[tap.layer] = flow = Backflow()
        _take(edge, tap, partial(flow.add, axis=axis))
        for value in tap.again if axis is not None else ():
            if (edge := run.kept.edges.get(value)) is not None:
                _take(edge, tap, partial(flow.add_sums, axis=axis))
    return flows


def _take(edge: Edge, tap: Tap, add: Callable[[torch.Tensor], None]) -> None:
    node, number = edge

    def take(gradients: tuple[torch.Tensor | None, ...]) -> None:
        gradient = gradients[number]
        if gradient is not None and not gradient.is_sparse and gradient.numel():
            add(own_units(gradient, tap))

    node.register_prehook(take)


def reach_outputs(recording: Recording) -> set[str]:
    """Names of the parameters and buffers that some output depends on."""
    needed = set(recording.outputs)
    for node in reversed(recording.nodes):
        if not needed.isdisjoint(node.outputs):
            needed.update(node.inputs)
    return {qualified for value, qualified in recording.stored.items() if value in needed}


def multiplied(recording: Recording) -> set[str]:
    """Names of the parameters and buffers that stand, moved at most, in a product value by value."""
    carried = dict(recording.stored)
    found = set()
    for node in recording.nodes:
        names = [carried[value] for value in node.inputs if value in carried]
        if node.op == "Mul":
            found.update(names)
        elif node.op in _MOVES and names and recording.live.isdisjoint(node.inputs):
            carried.update(dict.fromkeys(node.outputs, names[0]))
    return found


_MOVES = frozenset({"Reshape", "Transpose", "Cast", "Expand", "Slice", "Split", "Gather", "Identity", LINK})


def tensor_inputs(call: Call) -> list[torch.Tensor]:
    return [tensor for _, tensor in named_inputs(*call)]
