"""A gate in front of a training run: check the model, and stop before the first optimiser step where it will not train.

Under ``torch.distributed`` rank 0 checks and tells the others, so that all go on or all stop. The model may be wrapped;
it is left as it was, and so is everything else, so that a run that passes is the run it would have been.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import FailureKind, FindingsError, InitlintError, TargetError, UsageError
from ..report import Failure, Report, Status
from . import samples

if TYPE_CHECKING:
    import torch

log = logging.getLogger("initlint")

ON_FINDINGS = ("raise", "warn")

TRAINED_ON_PURPOSE = "a training run may start from trained weights"

SHARDED = (
    "its parameters are sharded over the processes (FSDP, tensor parallelism, ZeRO-3), so no rank can run it alone; "
    "call initlint.gate(model, batch) before the model is sharded"
)


def gate(model: Any, batch: Any, loss: Any, on_findings: str, settings: Mapping[str, Any]) -> Report:
    """What ``initlint.gate`` does."""
    __tracebackhide__ = True
    refuse_unknown(on_findings)
    module = unwrapped(model)
    _refuse_no_module(module)
    report = unshardable(module) or shared(lambda: judged(module, batch, loss, settings))
    return passed(report, on_findings)


def refuse_unknown(on_findings: str) -> None:
    """Raises UsageError."""
    if on_findings not in ON_FINDINGS:
        raise UsageError(f"on_findings has to be one of {', '.join(ON_FINDINGS)}, not {on_findings!r}")


def _refuse_no_module(module: Any) -> None:
    """Raises UsageError."""
    from ..load.target import is_module

    if isinstance(module, type) or not is_module(module):
        what = f"the class {module.__name__}" if isinstance(module, type) else type(module).__name__
        raise UsageError(f"a gate checks a torch.nn.Module that has been built, not {what}")


def _refuse_no_batch(batch: Any) -> None:
    """Raises UsageError for what gives batches instead of being one, and for what holds nothing."""
    from torch.utils.data import DataLoader

    empty = isinstance(batch, (Mapping, list, tuple)) and not batch
    if empty or isinstance(batch, (str, bytes, int, float, DataLoader)) or hasattr(batch, "__next__"):
        what = f"an empty {type(batch).__name__}" if empty else type(batch).__name__
        raise UsageError(f"a gate needs one batch, as next(iter(loader)) gives it, not {what}")


def judged(module: Any, batch: Any, loss: Any, settings: Mapping[str, Any]) -> Report:
    """The report on a module that is not wrapped, fed with ``batch`` as a training loop gets it.

    Fine-tuning is no fault: what a rule says of trained weights, and what follows from them, is accepted.
    """
    from .. import check

    _refuse_no_batch(batch)
    inputs, of_output = fitted(module, batch, loss)
    allow = settings.get("allow", ())
    if isinstance(allow, Sequence) and not isinstance(allow, str):  # what is no list is refused by check
        allow = [*allow, {"rule": "looks-trained", "at": "*", "reason": TRAINED_ON_PURPOSE}]
    return check(module, inputs, of_output, **{**settings, "allow": allow})


def passed(report: Report, on_findings: str) -> Report:
    """The report, if training may begin; raises FindingsError where it may not. Rank 0 logs what is worth saying."""
    __tracebackhide__ = True
    if not report.ok and on_findings == "raise":
        report.raise_for_findings()
    if not is_first_rank():
        return report
    if not report.ok:
        log.warning("initlint would have stopped this run:\n%s", report)
    elif report.not_probed:
        log.warning("initlint saw the weights of %s only: %s", report.target, report.not_probed)
    elif report.probe.reason:
        log.warning("initlint saw no gradients of %s: %s", report.target, report.probe.reason)
    else:
        log.info("initlint lets %s pass (%.1f s)", report.target, report.seconds)
    return report


# -- wrappers -------------------------------------------------------------------------------------------------------

_WRAPPERS = {
    "OptimizedModule": "_orig_mod",  # torch.compile
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "DeepSpeedEngine": "module",
    "_FabricModule": "module",
}
"""Class -> where it keeps the model. By name: most of them are of libraries that need not be installed."""


def unwrapped(model: Any) -> Any:
    """The model that the user wrote, without what compiles it or spreads it over devices."""
    while True:
        names = [each.__name__ for each in type(model).__mro__]
        inner = next((getattr(model, _WRAPPERS[name], None) for name in names if name in _WRAPPERS), None)
        if inner is None:
            return model
        model = inner


def unshardable(module: Any) -> Report | None:
    """The report on a module whose parameters no process has whole; None for others. The same on every rank."""
    if not hasattr(module, "modules") or not _is_sharded(module):
        return None
    failure = Failure(FailureKind.UNSUPPORTED, SHARDED)
    return Report(type(module).__name__, "torch", status=Status.UNSUPPORTED, failure=failure)


def _is_sharded(module: torch.nn.Module) -> bool:
    kinds = {each.__name__ for child in module.modules() for each in type(child).__mro__}
    if kinds & {"FullyShardedDataParallel", "FSDPModule"}:
        return True
    tensors = sys.modules.get("torch.distributed.tensor")
    distributed = getattr(tensors, "DTensor", ())
    return any(isinstance(each, distributed) or hasattr(each, "ds_tensor") for each in module.parameters())


# -- callbacks ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What a callback was told; its own docstring says what the words mean."""

    batch: Any
    loss: Any
    real_batch: bool
    on_findings: str
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        refuse_unknown(self.on_findings)

    def sampled(self, loader: Any) -> Any:
        """Samples of the loader's data; the ``batch`` that was given where they cannot be had."""
        try:
            return samples.batch_of(loader)
        except samples.NoBatch as reason:
            log.warning("initlint could not take a batch of the training data: %s", reason)
            return self.batch

    def stand(self, model: Any, judge: Callable[[], Report], resumed: bool) -> None:
        """As ``gate``, but a run that is resumed is not checked, and what is sharded passes with a warning, since
        nobody can call a callback earlier."""
        if resumed:
            _tell_skipped("the run is resumed")
        elif unshardable(inner := unwrapped(model)) is None:
            passed(shared(judge), self.on_findings)
        elif is_first_rank():
            log.warning("initlint did not check %s: %s", type(inner).__name__, SHARDED)


def _tell_skipped(reason: str) -> None:
    if is_first_rank():
        log.info("initlint did not check the model: %s", reason)


# -- batches --------------------------------------------------------------------------------------------------------


def fitted(module: Any, batch: Any, loss: Any) -> tuple[Any, Any]:
    """(inputs of forward, loss of its output) from a batch as a loader gives it.

    Of a tuple or list forward gets as many as it requires, at least one; of a mapping what it has names for. The rest
    is the target of a loss of two arguments.
    """
    inputs, rest = _split(module, batch)
    if loss is None or not callable(loss) or not _takes_target(loss) or rest is None:
        return inputs, loss
    from ..probe.torch_call import Call, device_of

    target = Call((rest,)).moved(device_of(module)).args[0]
    return inputs, lambda output: loss(output, target)


def _split(module: Any, batch: Any) -> tuple[Any, Any]:
    """(what forward takes, the rest or None if nothing is left)."""
    parameters = _parameters(module)
    if isinstance(batch, Mapping):
        return _split_names(parameters, batch)
    if not isinstance(batch, (list, tuple)) or not batch:
        return batch, None
    if isinstance(batch[0], Mapping) and {each.name for each in parameters} & set(batch[0]):
        return _split_names(parameters, batch[0])[0], _alone(tuple(batch[1:]))
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    required = max(1, sum(each.default is each.empty for each in positional))
    return tuple(batch[:required]), _alone(tuple(batch[required:]))


def _split_names(parameters: Sequence[inspect.Parameter], batch: Mapping[str, Any]) -> tuple[Any, Any]:
    names = {each.name for each in parameters}
    if not names & set(batch) or any(each.kind is each.VAR_KEYWORD for each in parameters):
        return dict(batch), None
    rest = {name: value for name, value in batch.items() if name not in names}
    taken = {name: value for name, value in batch.items() if name in names}
    return taken, next(iter(rest.values())) if len(rest) == 1 else rest or None


def _alone(rest: tuple[Any, ...]) -> Any:
    return rest[0] if len(rest) == 1 else rest or None


def _parameters(module: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(module.forward).parameters.values())
    except (AttributeError, TypeError, ValueError):
        return []


def _takes_target(loss: Callable[..., Any]) -> bool:
    """Whether it needs two arguments; a loss module says so in its forward."""
    try:
        parameters = inspect.signature(getattr(loss, "forward", loss)).parameters.values()
    except (TypeError, ValueError):
        return True
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return sum(each.default is each.empty for each in positional) > 1


# -- ranks ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fault:
    """What rank 0 raised, in words: an exception need not survive the way."""

    type: str
    message: str
    kind: str = ""

    def error(self) -> InitlintError:
        if self.kind:
            return TargetError(FailureKind(self.kind), self.message)
        known: Mapping[str, type[InitlintError]] = {"UsageError": UsageError, "FindingsError": FindingsError}
        if self.type in known or self.type == "InitlintError":
            return known.get(self.type, InitlintError)(self.message)
        return InitlintError(f"the check on rank 0 raised {self.type}: {self.message}")


def is_first_rank() -> bool:
    """Whether this process is the one that checks and speaks."""
    group = _process_group()
    return group is None or group.get_rank() == 0


def shared(judge: Callable[[], Report]) -> Report:
    """What ``judge`` returns on rank 0, on every rank; what it raises there is raised by all."""
    __tracebackhide__ = True
    group = _process_group()
    if group is None:
        return judge()
    if group.get_rank() != 0:
        verdict = _broadcast(group, None)
        if isinstance(verdict, _Fault):
            raise verdict.error()
        received: Report = verdict
        return received
    try:
        report = judge()
        _broadcast(group, report)  # in here, as what cannot be sent is found before anything is
    except BaseException as error:  # Ctrl-C included: the other ranks are waiting
        kind = str(error.kind) if isinstance(error, TargetError) else ""
        _broadcast(group, _Fault(type(error).__name__, str(error), kind))
        raise
    return report


def _process_group() -> Any:
    """``torch.distributed`` where several processes train together; None otherwise. torch is not imported for it."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed if distributed.get_world_size() > 1 else None


def _broadcast(group: Any, value: Any) -> Any:
    values = [value]
    group.broadcast_object_list(values, src=0)
    return values[0]
