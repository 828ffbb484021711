"""Whether what has no gradient is held by its values, or has no influence whatever they are.

Initialisation is to blame only for what another initialisation would cure. So everything without a gradient is drawn
anew, all of it at once, since two zero factors hide each other; what has a gradient then was stuck by its values. What
has none either is moved once more: if no bit of the outputs changes, no output depends on it, however the recorded
graph looks (queries of positions that nobody reads). Buffers of zeros are a state that training fills, as a code book
of moving averages, or a branch that is switched on later; what waits for these alone was not reached. Unless they are
factors, keep all that depends on the inputs from the outputs, and training does not fill them: a mask never set. So
are parameters of zeros that the probe's loss does not reach, as a code book that a loss of its own moves.
A frozen parameter of zeros that is a factor switches a branch off: while it does no output depends on that branch.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping

import torch

from ..load.eager import AsInTraining
from ..load.from_torch import output_tensors
from .ajar import Ajar
from .backward import Gradients, are_finite
from .liveness import REFUSALS, Case, Walk
from .objective import Counted
from .reach import ROUNDING
from .symmetry import TOLERANCE
from .torch_run import Call, restored


def look_redrawn(walk: Walk, names: Collection[str], factors: Collection[str] = ()) -> None:
    """Sort what ``walk`` found without a gradient, among ``names``; the parameters are left as they are then.

    ``factors`` are the stored tensors that something is multiplied by, value by value.
    """
    cases = {case for case in walk.zero if case[0] in names and case[0] not in walk.absent} - walk.unreached
    if not walk.finite or not (cases or walk.idle_rows):
        return
    differentiator = walk.differentiator
    frozen = dict(_zeros({n: p for n, p in differentiator.registered.items() if n not in differentiator.parameters}))
    switches = {name: frozen.pop(name) for name in list(frozen) if name in factors}
    unmoved = {name: differentiator.parameters[name] for name in walk.absent}  # by this loss: maybe by one of their own
    held = {**dict(differentiator.module.named_buffers()), **unmoved}
    try:
        with restored(frozen), restored(switches):
            _fill(frozen)
            left = cases - _woken(walk, cases, 0)
            left -= _held_by_masks(walk, left, switches)
            _fill(switches)
            switched = _woken(walk, left, 1) if left and switches else set()
            left -= switched
            with restored(states := dict(_zeros(held, factors))):
                masks = {name: states[name] for name in states if name in factors}
                left -= _held_by_masks(walk, left, masks)
                _note_switches(walk, left, {name: masks[name] for name in masks if name not in unmoved})
                _fill(states)
                waiting = _woken(walk, left, 1) if left and states else set()
            left -= waiting
            left -= _freed(walk, left) if left else set()
            inert = left if left and not _outputs_move(walk, left) else set()
            inert -= _held_by_others(walk, inert)
    except REFUSALS:
        return  # the forward or the loss does not take these values: what the steps have shown stands
    walk.unreached |= waiting
    walk.inert |= inert | switched


def _woken(walk: Walk, cases: set[Case], number: int) -> set[Case]:
    """Which of ``cases`` get a gradient once all of them, and all idle rows, are drawn anew."""
    _redraw(walk, cases, walk.idle_rows, number)
    asked = None if number else {name for name, _ in cases}.union(walk.idle_rows)
    woken: set[Case] = set()
    reached: dict[str, torch.Tensor] = {}
    for call in walk.calls:
        gradients = walk.differentiator.gradients(call, number, Ajar(), counted=Counted.ALL, of=asked)
        if number and not are_finite(gradients):
            continue
        woken |= {case for case in cases if not walk.part_is_zero(case[0], gradients[case[0]], case[1])}
        _note_reached(walk, gradients, reached)
        if woken == cases and not walk.idle_rows:
            break
    if not number:  # rows that nothing reaches, as those of masked positions, are not held by their zeros
        walk.idle_rows = {name: rows for name, rows in reached.items() if bool(rows.any())}
    return woken


def _freed(walk: Walk, cases: set[Case]) -> set[Case]:
    """Which of ``cases`` get one once what started constant, and has moved as one since, is drawn anew.

    Rows of a code book that are all equal give no gradient to what chooses among them.
    """
    parameters = walk.differentiator.parameters
    alike = {name: parameters[name].data for name in walk.constant if _is_uniform(parameters[name])}
    if not alike:
        return set()
    with restored(alike):
        generator = torch.Generator().manual_seed(1)
        for name, values in sorted(alike.items()):
            values.copy_(torch.randn(values.shape, generator=generator) / math.sqrt(walk.shape(name).fan_in))
        return _woken(walk, cases, 1)


def _held_by_others(walk: Walk, cases: set[Case]) -> set[Case]:
    """Which of ``cases`` get one once all that is trained is drawn anew, where it takes that for any input to matter.

    A clip level below zero, a step of quantisation above all values: these move, and what they shut off does not.
    """
    if not cases or _tells_batches_apart(walk):
        return set()
    parameters = walk.differentiator.parameters
    free = [name for name, parameter in parameters.items() if parameter.ndim < 2]
    everything = {(name, part) for name in parameters for part in range(walk.shape(name).parts)}
    with restored(parameters):
        for number in (_ANEW, _ANEW + 1):
            _redraw(walk, everything, {}, number)
            if number == _ANEW:  # most levels, scales and widths are positive
                _fill({name: parameters[name] for name in free})
            if _tells_batches_apart(walk):
                return _reached(walk, cases, number)
    return set()


_ANEW = 3
"""Number of the first draw of all parameters; the ones before are taken."""


def _reached(walk: Walk, cases: set[Case], number: int) -> set[Case]:
    """Which of ``cases`` have a gradient as things stand."""
    names = {name for name, _ in cases}
    woken: set[Case] = set()
    for call in walk.calls:
        gradients = walk.differentiator.gradients(call, number, Ajar(), counted=Counted.ALL, of=names)
        woken |= {case for case in cases if not walk.part_is_zero(case[0], gradients[case[0]], case[1])}
    return woken


def _is_uniform(parameter: torch.Tensor) -> bool:
    """Whether all of its rows, or all of its columns, are equal up to rounding."""
    rows = parameter.detach().flatten(1)
    scale = float(rows.abs().amax())
    return any(float((each - each[:1]).abs().amax()) <= TOLERANCE * scale for each in (rows, rows.T))


def _note_reached(walk: Walk, gradients: Gradients, reached: dict[str, torch.Tensor]) -> None:
    for name, idle in walk.idle_rows.items():
        gradient = gradients[name]
        if gradient is not None and not gradient.is_sparse:
            reached[name] = reached.get(name, torch.zeros_like(idle)) | (idle & gradient.flatten(1).any(1))


def _redraw(walk: Walk, cases: set[Case], idle_rows: Mapping[str, torch.Tensor], number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    for name, part in sorted(cases):
        shape = walk.shape(name)
        values = walk.differentiator.parameters[name].data
        piece = values if shape.parts == 1 else values.chunk(shape.parts, shape.axis)[part]
        piece.copy_(torch.randn(piece.shape, generator=generator) / math.sqrt(shape.fan_in))
    for name, idle in sorted(idle_rows.items()):
        values = walk.differentiator.parameters[name].data
        drawn = torch.randn(values.shape, generator=generator) / math.sqrt(walk.shape(name).fan_in)
        values[idle] = drawn.to(values)[idle]


def _zeros(tensors: Mapping[str, torch.Tensor], factors: Collection[str] = ()) -> Iterator[tuple[str, torch.Tensor]]:
    """Those that hold zeros; whole numbers count and truth is a flag, unless they are ``factors``."""
    for name, tensor in tensors.items():
        usable = (tensor.is_floating_point() or name in factors) and tensor.numel() and not tensor.is_meta
        if usable and tensor.layout is torch.strided and not bool(tensor.detach().any()):
            yield name, tensor


def _fill(tensors: Mapping[str, torch.Tensor]) -> None:
    """Positive values below 1, and ones among whole numbers: a buffer may hold counts or variances."""
    generator = torch.Generator().manual_seed(0)
    for tensor in tensors.values():
        drawn = torch.rand(tensor.shape, generator=generator)
        tensor.data.copy_(drawn if tensor.is_floating_point() else torch.ones_like(drawn))


def _held_by_masks(walk: Walk, cases: set[Case], masks: Mapping[str, torch.Tensor]) -> set[Case]:
    """Which of ``cases`` wait for zero ``masks`` alone, which keep the inputs from the outputs; fills them."""
    if not cases or not masks or _tells_batches_apart(walk) or _writes(walk, masks):
        return set()
    _fill(masks)
    return _woken(walk, cases, 1) if _tells_batches_apart(walk) else set()


def _note_switches(walk: Walk, cases: set[Case], switches: Mapping[str, torch.Tensor]) -> None:
    """Which of ``cases`` wait for zero buffers that are factors and that no forward of training writes.

    Somebody has to raise them, as a schedule does: a scale that was meant to be learned is none.
    """
    if not cases or not switches:
        return
    written = walk.differentiator.trained(walk.calls[0], AsInTraining(), 0)
    fixed = {name: switch for name, switch in switches.items() if name not in written}
    one_by_one = [{name: switch} for name, switch in fixed.items()] if len(fixed) <= _SWITCHES else []
    for some in [*one_by_one, fixed] if fixed else []:
        left = {case for case in cases if case not in walk.switches}
        with restored(some):
            _fill(some)
            walk.switches.update(dict.fromkeys(_woken(walk, left, 1) if left else (), tuple(some)))


_SWITCHES = 8
"""More are not tried one by one."""


def _tells_batches_apart(walk: Walk) -> bool:
    """Whether the outputs depend on the inputs, as far as two batches show it."""
    first, *others = ([each.detach() for each in _outputs_of(walk, call)] for call in walk.calls)
    return any(len(first) != len(each) or not all(map(_agree, first, each)) for each in others)


def _writes(walk: Walk, states: Collection[str]) -> bool:
    """Whether a forward in training mode writes one of the buffers ``states``."""
    return not walk.differentiator.trained(walk.calls[0], AsInTraining(), 0).isdisjoint(states)


def _outputs_move(walk: Walk, cases: set[Case]) -> bool:
    """By more than the rounding of values that cancel."""
    before = list(_outputs(walk))
    _redraw(walk, cases, {}, 2)
    after = list(_outputs(walk))
    return len(before) != len(after) or not all(map(_agree, before, after))


def _agree(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or not (one.is_floating_point() and one.numel()):
        return torch.equal(one, other)
    largest = float(one.abs().amax())
    return torch.allclose(one, other, rtol=0.0, atol=ROUNDING * largest if math.isfinite(largest) else 0.0)


def _outputs(walk: Walk) -> Iterator[torch.Tensor]:
    for call in walk.calls:
        yield from (tensor.detach().clone() for tensor in _outputs_of(walk, call))


def _outputs_of(walk: Walk, call: Call) -> list[torch.Tensor]:
    return list(output_tensors(walk.differentiator.outputs(call, AsInTraining())))
