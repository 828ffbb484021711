"""Inputs that the user gave, on their way to the child process: arrays by name, whatever they were before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import FailureKind, TargetError
from ..settings import ProbeSettings


def arrays(settings: ProbeSettings) -> Any:
    """A path of a file of arrays or a mapping of arrays by input name, which a file's probe understands.

    A function is called for them here: the child process runs nothing of the user's. Raises TargetError.
    """
    given = settings.inputs
    if isinstance(given, str):
        from ..load.target import python_name

        name = python_name(given)
        if name is None:
            return given
        from ..load.python_object import function_inputs

        given = function_inputs(name, settings.seed)
    if isinstance(given, list | tuple):
        text = "give several inputs of a file by name, as in {'x': array}"
        raise TargetError(FailureKind.USAGE, text)
    if given is None or isinstance(given, Mapping):
        return None if given is None else {name: _plain(value) for name, value in given.items()}
    return {"": _plain(given)}


def _plain(value: Any) -> Any:
    """Tensors that need gradients or lie on a device do not convert themselves to arrays."""
    return value.detach().cpu() if hasattr(value, "detach") else value
