"""The backward part of a probe: gradients at initialisation and, where asked for, what can never learn."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from ..errors import TargetError
from ..foreign import described, is_own
from ..kinds import Role
from ..load.eager import DroppingAll
from ..load.from_torch import TracedModule
from ..load.unfed import unfed
from ..model import SCATTERED, Layer, Model, NotChecked, Tensor
from .alike import share_by_sample
from .backward import (
    Backflow,
    Differentiator,
    Gradients,
    NoGradientError,
    flowing_back,
    is_zero,
    multiplied,
    reach_outputs,
    signals,
    tensor_inputs,
)
from .backward_origin import gradient_origin
from .batches import shuffled
from .learnt_rows import learnt_rows, still_alike
from .limits import SHARE
from .liveness import Shape, Walk
from .objective import Counted
from .readings import in_softmaxes_of_one, looked_up, read_as_numbers
from .redrawn import look_redrawn
from .signals import Backward, GradientSignal, Liveness, Loss, Members, NonFiniteOrigin, Signals, Twin
from .strays import strays
from .symmetry import EqualRows, equal_members, equal_units, is_turned, twins
from .torch_run import Call, Run, restored
from .training_mode import with_noise, with_reads

CANCELS = 1e-5
"""|sum g| over sum |g| of a bias: independent terms cancel to 1 / sqrt(samples), rounding in float32 leaves 1e-7."""
CANCELS_IN_HALF = 2e-2
"""The same where the parameters have 8 or 11 bits."""


_LEFT_OUT = NotChecked("auxiliary outputs", "the random loss leaves out all but the main output")


@dataclass
class BackwardProbe:
    """One probe of one module; ``call`` are the arguments of its forward."""

    differentiator: Differentiator
    traced: TracedModule
    call: Call
    seed: int

    @property
    def model(self) -> Model:
        return self.traced.model

    def measure(self, run: Run, forward: Signals, liveness: bool) -> Signals:
        """``forward`` with what gradients say; the graph of ``run`` was not used yet. A TargetError passes through."""
        if run.no_autograd:
            return replace(forward, backward_reason=f"no gradients: {run.no_autograd}")
        biased = {layer.name for layer in self.model.layers if layer.bias is not None}
        flows = flowing_back(run, self.traced.taps, biased)
        unregistered = self._unregistered(run)
        try:
            gradients = self.differentiator.of_run(run, 0)
        except NoGradientError as reason:
            return replace(forward, backward_reason=f"no gradients: {reason}")
        except TargetError:
            raise
        except Exception as error:  # noqa: BLE001 - a backward of the user's own, or what autograd cannot do
            said = f"initlint could not follow its backward ({described(error)}); please report this"
            raised = f"its backward in evaluation mode raised {described(error)}"
            return replace(forward, backward_reason=f"no gradients: {said if is_own(error) else raised}")
        start = self.differentiator.loss_start(run)
        notes = [_LEFT_OUT] if self.differentiator.leaves_out(run.output) else []
        if isinstance(start, NotChecked):
            notes.append(start)
        elif start is not None and start.refusal:
            notes.append(NotChecked("the loss at the start", f"of outputs that are all zero it raised {start.refusal}"))
        reads = run.kept.read_by_autograd
        made = self._with_parts(gradients)
        found = replace(
            forward,
            backward=Backward.EXACT,
            loss=self.differentiator.objective.kind,
            loss_start=None if isinstance(start, NotChecked) else start,
            not_probed=(*forward.not_probed, *notes),
            unregistered=unregistered,
            gradients=made,
            gradient_origin=None if forward.origin else self._origin(made),
            activation_gradients={layer: flow.rms for layer, flow in flows.items() if flow.count},
        )
        if not liveness:
            return found
        found = with_noise(found, self.differentiator, self.call, run.output)
        alike = share_by_sample(run.output, self.call) <= SHARE
        misses = self.differentiator.misses(run.output)
        return self._with_liveness(found, gradients, self._invariant(flows), reads, alike, misses)

    def _origin(self, made: Mapping[str, GradientSignal]) -> NonFiniteOrigin | None:
        whole = {address: signal for address, signal in made.items() if address in self.differentiator.parameters}
        return gradient_origin(self.differentiator, self.traced, self.call, whole)

    def _with_parts(self, gradients: Gradients) -> dict[str, GradientSignal]:
        parameters = self.differentiator.parameters
        made = signals(gradients, parameters)
        for tensor in self.model.tensors:
            gradient = gradients.get(tensor.address)
            parts, axis = len(tensor.parts), self._axis(tensor)
            if parts and gradient is not None and axis != SCATTERED and gradient.shape[axis] % parts == 0:
                pieces = gradient.chunk(parts, axis)
                weights = parameters[tensor.address].detach().chunk(parts, axis)
                made.update(
                    signals(
                        dict(zip(tensor.part_addresses, pieces, strict=True)),
                        dict(zip(tensor.part_addresses, weights, strict=True)),
                    )
                )
        return made

    def _axis(self, tensor: Tensor) -> int:
        """Along which a parameter has its units, and thereby its parts: the second of the (in, out) of a product."""
        if tensor.parts:
            return self.model.packed_along.get(tensor.address, 0)
        parameter = self.differentiator.parameters.get(tensor.address)
        return int(parameter is not None and is_turned(parameter, tensor))

    def _unregistered(self, run: Run) -> tuple[str, ...]:
        read, watched = self.traced.recording.unregistered.values(), run.kept.read_by_autograd
        own = [*self.differentiator.registered.values(), *tensor_inputs(self.call)]
        return strays(self.differentiator.module, own, read, watched, run.output)

    # -- liveness ----------------------------------------------------------------------------------------------------

    def _with_liveness(
        self,
        found: Signals,
        gradients: Gradients,
        invariant: frozenset[str],
        reads: Collection[int],
        alike: bool,
        misses: bool,
    ) -> Signals:
        """``misses`` says that there are outputs which other losses tell apart."""
        parameters = self.differentiator.parameters
        found = replace(found, dropped=self._dropped(gradients), dropped_at=tuple(dict.fromkeys(self._drops)))
        walk = Walk(self.differentiator, [self.call], self._shapes(), invariant, outputs_alike=alike)
        walk.begin(gradients)
        pairs, units = twins(parameters), list(equal_units(self.model, parameters))
        members = list(equal_members(self.model, parameters))
        open_cases = {name for name, _ in walk.zero if name not in invariant and name in self._used}
        idle_rows = walk.idle_rows.items()
        walk.idle_rows = {name: idle for name, idle in idle_rows if name not in invariant and name in self._used}
        walk.settled = frozenset(parameters).difference(self._used) | invariant
        tokens = learnt_rows(self.model, parameters, gradients) if walk.finite else []
        felt = any(each.felt for each in tokens)
        found = replace(found, batches=1, draws=1)
        if walk.finite and (open_cases or units or members or pairs or felt or walk.idle_rows or alike):
            walk.calls = self._calls()
            try:
                with restored(parameters), self._telling_no_twins_apart(bool(pairs or members)):
                    if pairs or members:  # those at hand were drawn for each member by itself
                        gradients = self.differentiator.gradients(self.call, 0)
                    walk.run(gradients, [*units, *members, *(each.rows for each in tokens)], pairs)
                    if misses:
                        walk.step_on([*units, *members], pairs, Counted.HEADS)
                    found = _with_twins(found, walk, members, pairs)
                    if pairs or members:
                        with self._telling_no_twins_apart(False):
                            walk.step_on(units, [])
                    found = _with_symmetry(found, walk, units)
                    found = replace(found, alike=still_alike(walk, tokens, self.seed))
                    look_redrawn(walk, open_cases, multiplied(self.traced.recording))
            except TargetError:
                raise
            except Exception as error:  # noqa: BLE001 - the user's forward or loss, on values that it never saw
                return replace(found, backward_reason=f"no steps could be taken: {described(error)}")
            draws = walk.steps + 1 if found.loss is Loss.RANDOM_LINEAR else 1
            found = replace(found, batches=len(walk.calls), draws=draws, steps=walk.steps)
            if walk.outputs_alike and walk.finite:
                # what another batch, a state or a loss of its own would open may let the inputs through as well
                found = replace(found, outputs_alike=not walk.unreached, outputs_shut=bool(walk.unreached))
        if not walk.finite:
            return found
        verdicts = self._verdicts(walk, invariant, reads)
        unwatched = tuple(name for name in parameters if verdicts[name] is Liveness.FROZEN)
        rows = self._stuck_rows(walk, verdicts)
        unused = [name for name, verdict in verdicts.items() if verdict is Liveness.UNUSED and name in parameters]
        held = {name: buffers for (name, _), buffers in walk.switches.items()}
        single, numbers = (each(self.traced.recording) if unused else () for each in _READINGS)
        found = replace(
            found,
            liveness=verdicts,
            stuck_rows=rows,
            unwatched=unwatched,
            switched_off={name: held[name] for name in parameters if name in held and name in verdicts},
            single_softmax=tuple(name for name in unused if name in single),
            as_numbers=tuple(name for name in unused if name in numbers),
        )
        return with_reads(found, self.differentiator, self.call, unused) if unused else found

    @property
    def _drops(self) -> Sequence[str]:
        return self.traced.recording.drops

    def _dropped(self, gradients: Gradients) -> tuple[str, ...]:
        """Which parameters have a gradient, and none where dropouts with p = 1 do what they do in training."""
        if not self._drops:
            return ()
        names = [name for name, gradient in gradients.items() if not is_zero(gradient)]
        try:
            left = self.differentiator.gradients(self.call, 0, DroppingAll(), of=names)
        except NoGradientError:
            return tuple(names)
        return tuple(name for name in names if is_zero(left[name]))

    @contextmanager
    def _telling_no_twins_apart(self, twins: bool) -> Iterator[None]:
        """Twins that leave as one stacked tensor get one target, as a tuple of outputs does."""
        before = self.differentiator.objective
        self.differentiator.objective = replace(before, alike=twins)
        try:
            yield
        finally:
            self.differentiator.objective = before

    def _calls(self) -> list[Call]:
        """The batch and a shuffled one, if there is something to shuffle."""
        other: Call = (shuffled(self.call[0], self.seed), shuffled(self.call[1], self.seed))
        pairs = zip(tensor_inputs(self.call), tensor_inputs(other), strict=True)
        return [self.call] if all(one is two for one, two in pairs) else [self.call, other]

    def _shapes(self) -> dict[str, Shape]:
        shapes = {}
        for tensor in self.model.tensors:
            parameter = self.differentiator.parameters.get(tensor.address)
            if parameter is not None:
                parts = len(tensor.parts) or 1
                axis, owner = self._axis(tensor), self.model.owner(tensor.address)
                divides = axis != SCATTERED and parameter.ndim > axis and parameter.shape[axis] % parts == 0
                gates = owner is not None and owner.kind.is_recurrent and parts > 1
                is_table = tensor.role is Role.TABLE
                shapes[tensor.address] = Shape(
                    max(1, tensor.view.fan_in), parts if divides else 1, axis, gates, is_table
                )
        return shapes

    def _invariant(self, flows: Mapping[str, Backflow]) -> frozenset[str]:
        """Biases and shifts that something behind them takes away: their gradient cancels over the samples."""
        found = set()
        for name, flow in flows.items():
            layer = self.model.layer(name)
            if layer.bias is not None and flow.count and _cancels(layer, flow, self.differentiator.parameters):
                found.add(layer.bias.address)
        return frozenset(found)

    @cached_property
    def _used(self) -> set[str]:
        return reach_outputs(self.traced.recording)

    @cached_property
    def _tables(self) -> set[str]:
        return looked_up(self.traced.recording)

    @cached_property
    def _routed(self) -> bool:
        return any(node.op in _ROUTING for node in self.traced.recording.nodes)

    def _verdicts(self, walk: Walk, invariant: frozenset[str], reads: Collection[int]) -> dict[str, Liveness]:
        recording = self.traced.recording
        parameters = self.differentiator.registered
        read = set(recording.stored.values())
        silent = {name for name, _ in walk.zero}
        made: dict[str, Liveness] = {}
        for name, parameter in parameters.items():
            if name not in self.differentiator.parameters:
                made[name] = Liveness.FROZEN
            elif name not in silent:
                made[name] = Liveness.INVARIANT if name in invariant else Liveness.LIVE
            elif name not in self._used:
                expert = name not in read and self._routed and _has_sibling(name, read)
                made[name] = Liveness.UNREACHED if expert else Liveness.UNUSED
            else:
                made[name] = self._zero_verdict(walk, name, parameter, invariant, reads)
        if stuck := [name for name, verdict in made.items() if verdict is Liveness.STUCK]:
            idle = unfed(recording, learnt=self.differentiator.parameters)
            made.update(dict.fromkeys(idle.intersection(stuck), Liveness.UNREACHED))
        return {**made, **self._part_verdicts(walk, made)}

    def _stuck_rows(self, walk: Walk, verdicts: Mapping[str, Liveness]) -> dict[str, int]:
        """Of tensors that live otherwise; experts in one tensor are left alone where data choose among them."""
        found = {}
        for name, idle in walk.idle_rows.items():
            if verdicts.get(name) is not Liveness.LIVE:
                continue
            if self._routed and self.differentiator.parameters[name].ndim > 2:
                continue
            tensor = self.model.tensor(name)
            blocks = idle.chunk(walk.shape(name).parts)
            parts = tensor.part_addresses if tensor is not None and len(blocks) > 1 else (name,)
            told = [verdicts.get(part) is Liveness.STUCK for part in parts]  # a part is told of by itself
            rows = sum(int(block.sum()) for block, stuck in zip(blocks, told, strict=True) if not stuck)
            if rows:
                found[name] = rows
        return found

    def _zero_verdict(
        self, walk: Walk, name: str, parameter: torch.Tensor, invariant: frozenset[str], reads: Collection[int]
    ) -> Liveness:
        parts = walk.shapes.get(name, Shape()).parts
        zero = {part for each, part in walk.zero if each == name}
        if name in invariant:
            return Liveness.INVARIANT
        if len(zero) < parts:
            return Liveness.LIVE
        if any((name, part) in walk.unreached for part in zero):
            return Liveness.UNREACHED
        if all((name, part) in walk.inert for part in zero):
            return Liveness.UNREACHED if name in self._tables else Liveness.UNUSED
        if name in walk.absent:
            if id(parameter) not in reads:
                return Liveness.FROZEN
            return Liveness.DETACHED if name in self.traced.recording.detached else Liveness.STOPPED
        return Liveness.STUCK

    def _part_verdicts(self, walk: Walk, whole: Mapping[str, Liveness]) -> dict[str, Liveness]:
        made = {}
        for tensor in self.model.tensors:
            verdict = whole.get(tensor.address)
            if not tensor.parts or verdict is None or walk.shapes.get(tensor.address, Shape()).parts == 1:
                continue
            for part, address in enumerate(tensor.part_addresses):
                key = (tensor.address, part)
                if verdict is not Liveness.LIVE or key not in walk.zero:
                    made[address] = verdict
                else:
                    made[address] = (
                        Liveness.UNREACHED
                        if key in walk.unreached
                        else Liveness.UNUSED
                        if key in walk.inert
                        else Liveness.STUCK
                    )
        return made


def _with_symmetry(found: Signals, walk: Walk, units: Sequence[EqualRows]) -> Signals:
    """Which units still are equal; to be asked before the parameters are restored."""
    still_equal = {address: equal for each in units for address, equal in walk.still_equal(each).items()}
    return replace(found, still_equal=still_equal)


def _with_twins(found: Signals, walk: Walk, members: Sequence[EqualRows], pairs: Sequence[tuple[str, str]]) -> Signals:
    """Likewise, which members of stacks and which whole weights."""
    return replace(
        found,
        members=tuple(
            Members(each.address, len(each.classes), each.equal, walk.still_equal(each)[each.address])
            for each in members
        ),
        twins=tuple(Twin(one, other, walk.separated(one, other)) for one, other in pairs),
    )


_READINGS = (in_softmaxes_of_one, read_as_numbers)

_ROUTING = frozenset({"TopK", "ArgMax", "aten::nonzero", "aten::where", "Where", "GatherND"})
"""Operators that choose by data which experts run."""


def _has_sibling(name: str, read: set[str]) -> bool:
    """Whether the same parameter of another member of some list was read: "experts.3.up" beside "experts.0.up"."""
    for number in re.finditer(r"(?<=\.)\d+(?=\.)", name):
        pattern = re.compile(re.escape(name[: number.start()]) + r"\d+" + re.escape(name[number.end() :]))
        if any(pattern.fullmatch(each) for each in read):
            return True
    return False


def _cancels(layer: Layer, flow: Backflow, parameters: Mapping[str, torch.Tensor]) -> bool:
    bias = parameters.get(layer.bias.address) if layer.bias is not None else None
    if bias is None or flow.total is None or flow.absolute is None or flow.mixed:
        return False
    if bias.numel() != flow.total.numel():
        return False
    limit = CANCELS if bias.real.dtype in (torch.float32, torch.float64) else CANCELS_IN_HALF
    sums = (flow.total, flow.absolute)
    total, absolute = ((each if each.dtype is torch.float32 else each.double()).cpu().numpy() for each in sums)
    return bool((abs(total) < limit * absolute).all())  # nor does it where nothing came: 0 is not below 0
