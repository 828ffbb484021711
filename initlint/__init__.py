"""initlint tells, before you spend a GPU hour, whether a freshly initialised network will train.

    report = initlint.check("model.onnx")
    print(report)
    report.raise_for_findings()

Importing this package is light: what a check needs is imported when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import FindingsError, InitlintError, TargetError, UsageError
    from .plugin import Finding, Severity
    from .report import Report, Run

__all__ = [
    "Finding",
    "FindingsError",
    "InitlintError",
    "Report",
    "Run",
    "Severity",
    "TargetError",
    "UsageError",
    "check",
    "gate",
]

_HOMES = {
    "Finding": "plugin",
    "FindingsError": "errors",
    "InitlintError": "errors",
    "Report": "report",
    "Run": "report",
    "Severity": "plugin",
    "TargetError": "errors",
    "UsageError": "errors",
}


def check(target: Any, inputs: Any = None, loss: Any = None, **settings: Any) -> Report:
    """Check one freshly initialised model and return its Report.

    ``target`` is a ``torch.nn.Module``, a function that builds one, the name of either ("pkg.mod:attr",
    "path/to/file.py:attr"; ``kwargs={...}`` for what builds), the path of an ONNX file, of a safetensors file or of a
    state dict, the bytes of an ONNX file, or an ``onnx.ModelProto``. A function is called up to three times, to see
    what depends on the seed and what nobody initialises.

    ``inputs`` feeds the probe: a tensor or array for a model's only input, a tuple of positional arguments, a mapping
    of names, or None to infer them. A module is afterwards what it was: parameters, buffers, gradients, modes, hooks
    and random states. ``loss(output)`` or ``loss(output, inputs)`` gives the number to differentiate for a module, a
    random linear one if left out. ``settings`` are the keys of ``[tool.initlint]``
    with underscores (``select=["symmetry"]``, ``fail_on="warning"``, ``dims={"batch": 8}``,
    ``rules={"zero-weights": {...}}``); ``config="pyproject.toml"`` reads a file first, otherwise none is read.

    Raises InitlintError where the command line would exit with 2: wrong settings, a missing file. A target that is
    unreadable or unsupported, crashes or passes a limit gives a Report whose ``status`` is not "ok".
    """
    from .checking import check_target, plan
    from .configuration import from_call
    from .errors import InitlintError, TargetError
    from .load.target import format_of, name_of

    accepted = _accepted(target)
    chosen = from_call(inputs, settings if loss is None else {**settings, "loss": loss})
    if loss is not None and not (format_of(accepted) == "torch" or chosen.probe.trust):
        raise InitlintError("a loss is a function of a PyTorch module's output; leave out loss= for files")
    report = check_target(accepted, plan(chosen, [name_of(accepted)]))
    if report.failure is not None and report.failure.kind.exit_status == 2:
        raise TargetError(report.failure.kind, report.failure.message)
    return report


def gate(model: Any, batch: Any = None, loss: Any = None, *, on_findings: str = "raise", **settings: Any) -> Report:
    """Stop a training script before its first step if the model will not train; returns the Report otherwise.

    ``model`` may be wrapped (DistributedDataParallel, torch.compile). ``batch`` is what the training loop gets from its
    loader: of a tuple the forward gets as many as it requires, of a mapping what it has names for, and the rest is the
    target of ``loss(output, target)``. Without ``batch``, and for ``settings``, it is as for ``check``.

    Raises FindingsError where the report is not ``ok``; with ``on_findings="warn"`` it is logged instead. In a
    distributed run call it on every rank: the first one checks, and all of them go on or stop. The run is otherwise
    the one that it would have been: parameters, gradients, modes and random states are not touched.
    """
    __tracebackhide__ = True
    from .integrations import gates

    return gates.gate(model, batch, loss, on_findings, settings)


def _accepted(target: Any) -> Any:
    """``target`` if it is of a kind that can be checked; raises InitlintError otherwise."""
    from os import PathLike

    from .errors import InitlintError
    from .load.target import is_module

    if isinstance(target, (bytearray, memoryview)):
        return bytes(target)
    if isinstance(target, type):
        raise InitlintError(f"{target.__name__} is a class; check an instance of it, as in {target.__name__}(...)")
    if isinstance(target, (str, bytes, PathLike)) or hasattr(target, "SerializeToString") or is_module(target):
        return target
    if callable(target):
        return target
    raise InitlintError(
        "a target is a torch.nn.Module, the path of a file, pkg.mod:attr, a function that builds a module, the bytes of"
        f" an ONNX file, or a ModelProto, not {type(target).__name__}"
    )


def __getattr__(name: str) -> Any:
    """PEP 562: public names are imported when they are first asked for."""
    from importlib import import_module, metadata

    if name == "__version__":
        return metadata.version("initlint")
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
