"""Which parameters can never learn: a few scaled gradient steps, made in place and taken back bit by bit.

One zero factor on a path wakes up at the second or third step (LoRA; adaLN-Zero with a zero head); two stacked zeros
never do. A tensor is stuck if its gradient is exactly zero at every step although the outputs depend on it, and stays
so where units that were merely off are kept ajar. ``redrawn`` has the last word: whether its values are to blame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .ajar import Ajar, Gauge, out_of_reach
from .alike import share_by_sample
from .backward import (
    Differentiator,
    Gradients,
    NoGradientError,
    are_finite,
    entries,
    is_zero,
    peaks,
    rms,
    rms_of_each,
    tensor_inputs,
)
from .limits import SHARE
from .objective import Counted
from .standing import Made, made_of_parameters
from .symmetry import TOLERANCE, EqualRows
from .torch_run import Call, restored

STEPS = 4
"""adaLN-Zero with a zero head, the longest chain of zeros in use, needs three."""
LIMIT = 12
"""Steps go on while they wake something up, but not beyond this."""
STEP = 1e-2
"""Of the weight's scale: the raw gradient explodes or stalls."""


Case = tuple[str, int]
"""A parameter by name, and the number of a packed part of it."""
REFUSALS = (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError, NoGradientError)
"""What a forward or a loss raises that does not take a batch, or values that it never saw."""


@dataclass(frozen=True)
class Shape:
    """What the steps have to know of a parameter."""

    fan_in: int = 1
    parts: int = 1
    axis: int = 0
    """Along which the parts are packed; ``SCATTERED`` where there are some and it is not known."""
    gates: bool = False
    """The parts are a recurrence's."""
    is_table: bool = False
    """Rows are looked up: those that the batch does not name have no gradient."""


_WHOLE = Shape()


@dataclass
class Walk:
    """Takes the steps. ``zero`` holds the (name, part) that had no gradient at any of them."""

    differentiator: Differentiator
    calls: Sequence[Call]
    shapes: Mapping[str, Shape]
    invariant: frozenset[str]
    """Not moved: their gradient is rounding."""
    zero: set[Case] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)
    unreached: set[Case] = field(default_factory=set)
    inert: set[Case] = field(default_factory=set)
    """Which have no influence on the outputs, whatever their values."""
    finite: bool = True
    steps: int = 0
    idle_rows: dict[str, torch.Tensor] = field(default_factory=dict)
    """By name of a weight of which some rows (units, experts) start at zero: which of those never had a gradient."""

    switches: dict[Case, tuple[str, ...]] = field(default_factory=dict)
    """Of what was not reached because a factor is zero: names of the buffers that hold it."""
    constant: set[str] = field(default_factory=set)
    """Names of matrices, tables and the like that start with one value throughout."""
    outputs_alike: bool = False
    """The outputs are the same for all inputs; true if they were at the beginning and still are."""
    settled: frozenset[str] = frozenset()
    """Names of which no step decides anything: nothing uses them, or their gradient is rounding."""

    def begin(self, gradients: Gradients) -> None:
        self.absent = {name for name, gradient in gradients.items() if gradient is None}
        largest = peaks(gradients)
        self.zero = {
            (name, part)
            for name, gradient in gradients.items()
            for part in range(self.shape(name).parts)
            if not largest[name] or (self.shape(name).parts > 1 and self.part_is_zero(name, gradient, part))
        }
        self.finite = all(map(math.isfinite, largest.values()))
        for name, parameter in self.differentiator.parameters.items():
            shape = self.shape(name)
            if parameter.ndim < 2:
                continue
            rows = parameter.detach().flatten(1)
            if min(parameter.shape) > 1 and _is_constant(rows):
                self.constant.add(name)
            if not shape.gates and not shape.is_table and shape.axis == 0:
                if bool(rows[:, 0].all()):  # the first value of each tells already that none is empty
                    continue
                empty = ~rows.any(1)
                if bool(empty.any()):
                    self.idle_rows[name] = empty
        self._note_rows(gradients)

    def _note_rows(self, gradients: Gradients) -> None:
        """A gradient of None leaves all rows idle; one of rows that were looked up says nothing of the others."""
        for name in list(self.idle_rows):
            gradient = gradients[name]
            if gradient is not None and not gradient.is_sparse:
                self.idle_rows[name] = self.idle_rows[name] & ~gradient.flatten(1).any(1)
            if (gradient is not None and gradient.is_sparse) or not bool(self.idle_rows[name].any()):
                del self.idle_rows[name]

    @property
    def _asleep(self) -> int:
        """How many tensors, parts and rows that could have one had no gradient yet."""
        waiting = sum(name not in self.settled for name, _ in self.zero)
        return waiting + sum(int(idle.sum()) for idle in self.idle_rows.values())

    def shape(self, name: str) -> Shape:
        return self.shapes.get(name, _WHOLE)

    def part_is_zero(self, name: str, gradient: torch.Tensor | None, part: int) -> bool:
        parts = self.shape(name).parts
        if gradient is None or parts == 1 or gradient.is_sparse:
            return is_zero(gradient)
        return is_zero(gradient.chunk(parts, self.shape(name).axis)[part])

    def run(
        self, gradients: Gradients, watched: Sequence[EqualRows], pairs: Sequence[tuple[str, str]], first_draw: int = 1
    ) -> None:
        """At least four steps, more while they wake something up, then one look with everything ajar.

        Fewer where all is awake by then, and all that were equal, ``watched`` rows, ``pairs`` of weights and outputs,
        differ.
        ``gradients`` are emptied once they are used: beside those of the next step they would be a third copy of the
        parameters.
        """
        parameters = self.differentiator.parameters
        scales = {name: self._scale(name, parameter) for name, parameter in parameters.items()}
        quiet = 0
        while (
            self.finite
            and self.steps < LIMIT
            and (self.steps < STEPS or quiet < STEPS - 1)
            and (self._asleep or (self.steps < STEPS and (self.outputs_alike or not self._have_parted(watched, pairs))))
        ):
            for each in watched:
                each.note_moves(gradients[each.address])
            self._move(gradients, scales)
            gradients.clear()
            self.steps += 1
            gradients = self._gradients(first_draw + self.steps)
            before = self._asleep
            self._update(gradients)
            quiet = 0 if self._asleep < before else quiet + 1
        if self._asleep and self.finite:
            self._look_ajar(first_draw + self.steps + 1)

    def step_on(
        self, watched: Sequence[EqualRows], pairs: Sequence[tuple[str, str]], counted: Counted = Counted.LOSS
    ) -> None:
        """A few steps more, while what started equal is so, as far as the loss can tell.

        Along gradients of all heads, as boxes are refined by units that the logits beside them read, if at all, in an
        order of size; or along those of outputs that no longer share what they are asked for as twins do: the rows of
        a head are told apart by their targets.
        """
        parameters = self.differentiator.parameters
        scales = {name: self._scale(name, parameter) for name, parameter in parameters.items()}
        for step in range(STEPS):
            if self._have_parted(watched, pairs):
                return
            call, draw = self.calls[step % len(self.calls)], LIMIT + 2 + step
            gradients = self.differentiator.gradients(call, draw, counted=counted)
            if not are_finite(gradients):
                return
            for each in watched:
                each.note_moves(gradients[each.address])
            self._move(gradients, scales)

    def _gradients(self, draw: int) -> Gradients:
        """On the next batch; one that the module does not take is left out from then on."""
        call = self.calls[self.steps % len(self.calls)]
        self.differentiator.witness = self._compare_samples if self.outputs_alike else None
        try:
            return self.differentiator.gradients(call, draw)
        except REFUSALS:
            if call is self.calls[0] or self.steps > 1:
                raise
            self.calls = self.calls[:1]
            return self.differentiator.gradients(self.calls[0], draw)
        finally:
            self.differentiator.witness = None

    def _compare_samples(self, output: Any, call: Call) -> None:
        self.outputs_alike = share_by_sample(output, call) <= SHARE

    def _update(self, gradients: Gradients) -> None:
        if not are_finite(gradients):
            self.finite = False
            return
        self.absent -= {name for name, gradient in gradients.items() if gradient is not None}
        self.zero = {(name, part) for name, part in self.zero if self.part_is_zero(name, gradients[name], part)}
        self._note_rows(gradients)

    def _look_ajar(self, draw: int) -> None:
        """Where a gradient appears with units ajar and all outputs counted, the probe only did not reach it."""
        closed, asleep = self._out_of_reach(), frozenset(self.zero)
        gradients = self._ajar(draw, closed)
        left_out = {name for name in self.absent if gradients.get(name) is not None}  # by the loss, behind zeros
        self.unreached |= {case for case in asleep if case[0] in left_out}
        woken = self._given(gradients, asleep)
        made = self._made_of_parameters() if woken else {}
        standing, tried = asleep, closed
        while made:  # the largest set that holds itself still: what no input has a say in, and nothing that wakes
            now = closed | {number for number, names in made.items() if names <= self._whole(standing)}
            if now == tried:
                break
            gradients, tried = self._ajar(draw, now), now
            woken = self._given(gradients, asleep)
            standing = standing - woken
        self._note_rows(gradients)
        self.unreached |= self._woken_in_turn(woken, gradients, draw, tried)

    def _woken_in_turn(
        self, woken: frozenset[Case], gradients: Gradients, draw: int, closed: frozenset[int]
    ) -> frozenset[Case]:
        """With what wakes up once what is ``woken`` by units ajar has moved, as the edge of a branch of slope one."""
        parameters, asleep = self.differentiator.parameters, frozenset(self.zero)
        fresh = woken
        with restored({name: parameters[name] for name, _ in asleep} if woken and woken != asleep else {}):
            while fresh and woken != asleep:
                names = {name for name, _ in woken}
                self._move(
                    {name: gradients[name] for name in names},
                    {name: self._scale(name, parameters[name]) for name in names},
                )
                draw += 1
                gradients = self._ajar(draw, closed)
                fresh = self._given(gradients, asleep) - woken
                woken |= fresh
        return woken

    def _ajar(self, draw: int, closed: frozenset[int]) -> Gradients:
        """One batch is enough: what another one would switch on is ajar."""
        names = {name for name, _ in self.zero}.union(self.idle_rows)
        call = self.calls[-1]
        samples = next((len(tensor) for tensor in tensor_inputs(call) if tensor.ndim), 0)
        return self.differentiator.gradients(call, draw, Ajar(closed, samples), counted=Counted.ALL, of=names)

    def _given(self, gradients: Gradients, cases: frozenset[Case]) -> frozenset[Case]:
        """Which of ``cases`` have a gradient."""
        return frozenset(case for case in cases if not self.part_is_zero(case[0], gradients[case[0]], case[1]))

    def _whole(self, cases: frozenset[Case]) -> set[str]:
        """Names of the parameters of which every part is among ``cases``."""
        names = {name for name, _ in cases}
        return {name for name in names if all((name, part) in cases for part in range(self.shape(name).parts))}

    def _made_of_parameters(self) -> Made:
        try:
            return made_of_parameters(self.differentiator, self.calls, self.outputs_alike)
        except REFUSALS:
            return {}  # it cannot be told

    def _out_of_reach(self) -> frozenset[int]:
        runs = []
        for call in self.calls:
            self.differentiator.outputs(call, gauge := Gauge())
            runs.append(gauge.seen)
            if all(seen.distance <= 0 for seen in gauge.seen):
                return frozenset()  # another batch reaches no less
        names = self.differentiator.parameters.keys()
        return out_of_reach(runs, grows=not names <= self._whole(frozenset(self.zero)) | self.invariant)

    def _scale(self, name: str, parameter: torch.Tensor) -> float:
        values = entries(parameter)
        return max(rms(values, values.numel()), 1 / math.sqrt(self.shape(name).fan_in))

    def _move(self, gradients: Gradients, scales: Mapping[str, float]) -> None:
        parameters = self.differentiator.parameters
        moving = {name: gradient for name, gradient in gradients.items() if name not in self.invariant}
        known = {name: gradient for name, gradient in moving.items() if gradient is not None}
        counts = [parameters[name].numel() for name in known]
        sizes = rms_of_each(list(known.values()), counts)
        for (name, gradient), size in zip(known.items(), sizes, strict=True):
            parameter = parameters[name]
            if size > 0 and math.isfinite(size):
                # .data: neither autograd nor the version counter of the parameter is to know
                step = STEP * scales[name]
                if parameter.dtype is torch.float32 and size > FAINT:
                    parameter.data.add_(gradient.detach(), alpha=-step / size)  # a quotient would be one more copy
                else:
                    exact = gradient.detach() if size > FAINT else gradient.detach().double()
                    parameter.data.add_((exact / size).to(parameter.dtype), alpha=-step)

    def still_equal(self, watched: EqualRows) -> dict[str, int]:
        """By address, packed parts included; to be called before the parameters are restored."""
        scale = self._scale(watched.address, watched.parameter)
        found = {address: watched.still_equal(scale, rows) for address, rows in watched.parts.items()}
        return {**found, watched.address: sum(found.values()) if found else watched.still_equal(scale)}

    def _have_parted(self, watched: Sequence[EqualRows], pairs: Sequence[tuple[str, str]]) -> bool:
        alike = (each.have_parted(self._scale(each.address, each.parameter)) for each in watched)
        return all(alike) and all(self.separated(one, other) for one, other in pairs)

    def separated(self, one: str, other: str) -> bool:
        """Whether two weights that started equal differ by now by more than rounding."""
        parameters = self.differentiator.parameters
        difference = (parameters[one].detach() - parameters[other].detach()).abs().max()
        return bool(difference > TOLERANCE * self._scale(one, parameters[one]))


def _is_constant(rows: torch.Tensor) -> bool:
    one, other = rows[0, :2].tolist()  # nearly all are told by two
    return bool(one == other) and bool((rows == one).all())


FAINT = 1e-30
"""Below this the rms of a float32 gradient, which mostly is zero, may itself be no float32 number any more."""
