"""Opening a PyTorch module: find inputs that it runs on and trace it, or say why not and look at its weights only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from math import ceil, prod
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules import module as module_hooks
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from ..errors import FailureKind, TargetError
from ..fixes import Fix
from ..foreign import described, is_lack_of_memory, is_own
from ..load import from_modules
from ..load.python_object import Built, build, construct, find, function_inputs
from ..load.registered import modules_of, tensors_of
from ..load.target import is_module, name_of, python_name
from ..model import NotChecked
from ..settings import ProbeSettings
from . import more_samples, single_sample, torch_call, torch_inputs
from .blank_inputs import remark
from .limits import MAX_BATCH, NORM_SAMPLES
from .on_torch import TorchSession, UnsteadyError
from .rebuilt import BuilderSession
from .signals import Forward, Signals
from .torch_call import Call
from .torch_inputs import Guess
from .unrun import UnrunSession

HOW_TO_GIVE = "give inputs with --inputs or --input-shape (inputs= in Python)"

TRIES = 60
"""Guesses that are tried; most fail in their first layer, within a millisecond."""

_MISFIT = re.compile(
    r"shape|size|dimension|dims?\b|dtype|scalar type|same type|same device|expected|channels|out of range|"
    r"out of bounds|multipl|unpack|positional argument|keyword argument|must match|broadcast",
    re.IGNORECASE,
)
"""What errors say when a tensor is not what an operator wants."""


class _Unseen(Exception):
    """Nothing of what the forward does was seen."""

    def __str__(self) -> str:
        return "nothing of its forward was seen, as where it runs in another thread; make it run in the calling one"


class _NoTensor(Exception):
    """The forward returns something without a tensor in it."""


def open_module(module: nn.Module, inputs: Any, settings: ProbeSettings) -> TorchSession | UnrunSession:
    """``inputs`` is what the user or a builder gave, None to find some.

    Raises TargetError(USAGE) where given inputs do not fit. A forward that cannot be run gives a session without
    signals.
    """
    if settings.dims.keys() - {"batch"}:
        name = min(settings.dims.keys() - {"batch"})
        text = f"--dim names {name!r}, and inputs of a PyTorch module have no named dimensions; use --input-shape"
        raise TargetError(FailureKind.USAGE, text)
    if settings.enabled:
        _refuse_empty(inputs, settings)
    obstacle = _obstacle(module, settings)
    if obstacle:
        return _unrun(module, obstacle)
    if inputs is not None:
        return _with_given(module, torch_call.given_calls(module, inputs), settings)
    return _with_guessed(module, settings)


def _refuse_empty(inputs: Any, settings: ProbeSettings) -> None:
    """Raises TargetError(USAGE) where what was given holds no value at all."""
    leaves = tree_leaves(inputs)
    tensors = [each for each in leaves if isinstance(each, torch.Tensor)]
    if any(each.is_nested or each.is_meta or each.is_quantized for each in tensors):
        text = "the inputs hold a nested, a quantized or a meta tensor, which the probe cannot feed; give plain ones"
        raise TargetError(FailureKind.USAGE, text)
    shapes = [tuple(each.shape) for each in leaves if isinstance(each, torch.Tensor | np.ndarray)]
    shapes = shapes or list(settings.shapes.values())
    if settings.dims.get("batch") == 0 or (shapes and all(0 in shape for shape in shapes)):
        said = "batch=0" if not shapes else "x".join(map(str, shapes[0]))
        text = f"the inputs do not fit: they are empty ({said}); give at least one sample"
        raise TargetError(FailureKind.USAGE, text)


def _obstacle(module: nn.Module, settings: ProbeSettings) -> str:
    """Why the module must not be run at all."""
    if not settings.enabled:
        return "the probe is switched off (--no-probe)"
    parameters, buffers = tensors_of(modules_of(module))
    tensors = (*parameters, *buffers)
    if any(is_lazy(tensor) for tensor in tensors):
        return "it has lazy modules, which a first run would change; run one batch through it before the check"
    if any(tensor.is_meta for tensor in tensors):
        return "it has parameters on the meta device; move it with to_empty(device=...) and initialise it first"
    return ""


def _unrun(module: nn.Module, reason: str) -> UnrunSession:
    static = from_modules.read(module)
    if not static.model.tensors and any(is_lazy(tensor) for tensor in module.parameters()):
        raise TargetError(FailureKind.UNSUPPORTED, f"there are no weights to check: {reason}")
    if static.model.tensors and len(static.model.valueless) == len(static.model.tensors):
        text = "all its tensors are on the meta device, so they have no values"
        raise TargetError(FailureKind.UNSUPPORTED, f"{text}; move it with to_empty(device=...) and initialise it first")
    return UnrunSession(static.model, static.chunks, reason)


def _with_given(module: nn.Module, calls: list[Call], settings: ProbeSettings) -> TorchSession | UnrunSession:
    """The first reading of the user's inputs that runs; where none does, the first one's error counts."""
    faults: list[Exception] = []
    for call in calls:
        try:
            return _of_several(module, call, _traced(module, call, settings), settings)
        except Exception as error:  # noqa: BLE001 - whatever the user's forward raises
            if not call.drawn:
                faults.append(error)
    first = faults[0]
    if isinstance(first, _NoTensor | _Unseen):
        return _unrun(module, str(first))
    if not is_own(first) and _is_misfit(first) and _is_finite(module):
        text = f"the inputs ({calls[0]}) do not fit the module: {described(first)}; give what its forward takes"
        raise TargetError(FailureKind.USAGE, text) from None
    return _unrun(module, _why_not(first))


def _with_guessed(module: nn.Module, settings: ProbeSettings) -> TorchSession | UnrunSession:
    batch = settings.batch or settings.dims.get("batch") or torch_inputs.DEFAULT_BATCH
    first: Exception | None = None
    other: Exception | None = None
    for _, guess in zip(range(TRIES), torch_inputs.guesses(module, settings), strict=False):
        try:
            return _enlarged(module, guess, batch, settings)
        except Exception as error:  # noqa: BLE001 - a guess that does not fit can raise anything
            first = first or error
            if other is None and (isinstance(error, _NoTensor | _Unseen) or is_own(error) or not _is_misfit(error)):
                other = error
    if other is not None and is_lack_of_memory(other):
        return _unrun(module, _why_not(other))
    if settings.shapes:
        assert first is not None
        text = f"--input-shape does not fit the module: {_said(first)}; give the shapes its forward takes"
        raise TargetError(FailureKind.USAGE, text)
    if isinstance(other, _NoTensor | _Unseen):
        return _unrun(module, str(other))
    if other is not None:
        return _unrun(module, f"{_why_not(other)}; if that is because of made-up inputs, {HOW_TO_GIVE}")
    last = f" (the first guess ended with {_said(first)})" if first is not None else ""
    return _unrun(module, f"no inputs were found that its forward takes; {HOW_TO_GIVE}{last}")


def _enlarged(module: nn.Module, guess: Guess, batch: int, settings: ProbeSettings) -> TorchSession:
    """Traced at ``batch``, or at a larger one where a batch norm would have too few values per channel."""
    call = guess(batch)
    with _norm_samples() as counts:
        session = _traced(module, call, settings)
    if not call.resizable:
        return _of_several(module, call, session, settings)
    if not counts or min(counts) >= NORM_SAMPLES or settings.batch:
        return session
    needed = min(ceil(NORM_SAMPLES * batch / min(counts)), MAX_BATCH)
    return _traced(module, guess(needed), settings) if needed > batch else session


def _of_several(module: nn.Module, call: Call, session: TorchSession, settings: ProbeSettings) -> TorchSession:
    """The session of one given sample with more beside it, where they can be made and do not cost much."""
    batch = torch_inputs.DEFAULT_BATCH
    if session.batch != 1 or settings.batch or settings.loss is not None or not session.work().allows(batch):
        return session
    try:
        more = torch_call.with_more_samples(module, call, batch, settings.seed)
        several = None if more is None else _traced(module, more, settings)
        follows = several is not None and more_samples.follows(session.output, several.output, batch)
    except Exception:  # noqa: BLE001 - what takes one sample only may raise anything; it did run on that
        return session
    return several if several is not None and follows else session


class ModuleSession(TorchSession):
    """A traced module whose later runs may still fail: then signals are missing, and the report says why."""

    remarks: tuple[NotChecked, ...] = ()
    """What the report is to say of the inputs."""
    fed: str = ""

    def probe(self, settings: ProbeSettings, edits: Sequence[Fix] = ()) -> Signals:
        try:
            found = super().probe(settings, edits)
            return replace(found, not_probed=(*self.remarks, *found.not_probed), fed=self.fed)
        except TargetError:
            raise
        except UnsteadyError as error:
            return Signals(Forward.NONE, reason=str(error), seed=settings.seed)
        except Exception as error:  # noqa: BLE001 - whatever the user's forward raises the second time
            return Signals(Forward.NONE, reason=_why_not(error), seed=settings.seed)


def _guarded(loss: Any) -> Any:
    """The user's loss; what it raises is a fault of the call, not of the model."""
    if loss is None:
        return None

    @wraps(loss)
    def computed(*args: Any) -> Any:
        try:
            return loss(*args)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
            text = f"the loss could not be computed: {described(error)}; it is called with the model's output"
            raise TargetError(FailureKind.USAGE, text) from None

    return computed


def _traced(module: nn.Module, call: Call, settings: ProbeSettings) -> TorchSession:
    wanted = settings.backward or settings.liveness
    session = ModuleSession(module, call.args, call.kwargs, _guarded(settings.loss), autograd=wanted)
    if not session.returns_tensors:
        kind = session.returned
        what = "None" if kind is type(None) else f"a {kind.__name__} without a tensor in it"
        raise _NoTensor(f"its forward returned {what}; wrap it in a module that returns the tensors it computes")
    source = "" if call.given else " (made up)"
    if not session.traced.recording.nodes and not session.returns_held:
        raise _Unseen
    session.fed = f"{torch_call.listed(module, call)}{source}"
    if call.drawn:  # nothing of what was given is left
        session.remarks = (remark(call.drawn),)
    elif call.added:
        session.remarks = (single_sample.remark(call.added),)
    return session


@contextmanager
def _norm_samples() -> Iterator[list[int]]:
    """Values per channel of everything that batch norms read meanwhile."""
    counts: list[int] = []

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and args and isinstance(args[0], torch.Tensor):
            shape = args[0].shape
            counts.append(prod(shape) // max(shape[1] if len(shape) > 1 else 1, 1))

    handle = module_hooks.register_module_forward_pre_hook(note)
    try:
        yield counts
    finally:
        handle.remove()


def _is_misfit(error: Exception) -> bool:
    says_so = isinstance(error, IndexError) or bool(_MISFIT.search(str(error)))
    return says_so and not is_lack_of_memory(error)


def _is_finite(module: nn.Module) -> bool:
    """Where weights are NaN, a forward that looks at its values may raise whatever the inputs are."""
    parameters, _ = tensors_of(module.modules())
    return all(bool(each.detach().isfinite().all()) for each in parameters)


def _why_not(error: Exception) -> str:
    if is_lack_of_memory(error):
        return "it needs more memory than there is; give a smaller --batch, or smaller inputs"
    if is_own(error):
        return f"initlint could not follow its forward ({described(error)}); please report this"
    return f"its forward raised {described(error)}; make `module(inputs)` work first"


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, _NoTensor) else described(error)


def inputs_of(settings: ProbeSettings) -> Any:
    """What ``settings.inputs`` stands for: the arrays of a file, what a function returns, or the values themselves."""
    given = settings.inputs
    if not isinstance(given, str):
        return given
    name = python_name(given)
    if name is not None:
        return function_inputs(name, settings.seed)
    found: Mapping[str, Any] = torch_call.read_file(given)
    return found


def open_target(target: Any, settings: ProbeSettings) -> TorchSession | UnrunSession | BuilderSession:
    """Open a module, or build what a function, or the text ``target``, stands for; raises TargetError."""
    if is_module(target) and not isinstance(target, type):
        if settings.kwargs:
            raise TargetError(FailureKind.USAGE, "kwargs are for a builder, and the target is a module already")
        settings = _with_loss(settings)
        return open_module(_placed(target, settings, ours=False), inputs_of(settings), settings)
    return open_program(_built(target, settings), settings)


def open_program(built: Built, settings: ProbeSettings) -> TorchSession | UnrunSession | BuilderSession:
    """Open a module that is nobody else's."""
    settings = _with_loss(settings)
    given = inputs_of(settings)
    inputs = built.inputs if given is None and not settings.shapes else given
    opened = open_module(_placed(built.module, settings, ours=True), inputs, settings)
    if built.again is None:
        return opened
    return BuilderSession(opened, built.module, built.again, settings.seed)


def _with_loss(settings: ProbeSettings) -> ProbeSettings:
    """With the loss itself where the settings hold its name; raises TargetError."""
    if not isinstance(settings.loss, str):
        return settings
    name = python_name(settings.loss)
    try:
        loss = find(name) if name is not None else None
    except TargetError as fault:
        raise TargetError(fault.kind, f"--loss {settings.loss}: {fault}") from None
    if not callable(loss):
        text = f"the loss {settings.loss} is of type {type(loss).__name__}; name a function of the model's output"
        raise TargetError(FailureKind.USAGE, text)
    return replace(settings, loss=loss)


def _built(target: Any, settings: ProbeSettings) -> Built:
    name = python_name(target) if isinstance(target, str) else None
    if name is not None:
        return build(name, settings.kwargs, settings.seed)
    return construct(name_of(target), target, settings.kwargs, settings.seed)


def _placed(module: nn.Module, settings: ProbeSettings, *, ours: bool) -> nn.Module:
    """The module on the device that was asked for; one that belongs to the caller is not moved."""
    if not settings.device:
        return module
    try:
        device = torch.empty(0, device=settings.device).device
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        text = f"--device {settings.device}: {described(error)}; name a device that PyTorch has here, such as cpu"
        raise TargetError(FailureKind.USAGE, text) from None
    if ours:
        return module.to(device)
    if torch_call.device_of(module) != device:
        text = f"the module is on {torch_call.device_of(module)} and is not moved; call module.to({settings.device!r})"
        raise TargetError(FailureKind.USAGE, text)
    return module
