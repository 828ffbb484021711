"""Importing what a Python target names, and building the module it stands for.

Naming a target is consent to run it. What it raises is shown with the user's own line; the random state is afterwards
what it was, and a builder is called under the probe's seed.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import random
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import FailureKind, TargetError
from ..foreign import described
from ..settings import SEEDS
from ..spelling import did_you_mean
from .target import PythonName, is_module

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Built:
    """A module and the inputs that its builder gave with it (None if it gave none)."""

    module: torch.nn.Module
    inputs: Any = None
    again: Callable[[int], torch.nn.Module] | None = None
    """Builds the module anew from a seed and lets through what the builder raises; None for a module that was there."""


def build(name: PythonName, kwargs: Mapping[str, Any], seed: int) -> Built:
    """The module that ``name`` stands for; raises TargetError with exit status 2 where there is none."""
    require_torch()
    with seeded(seed):
        found = find(name)
    if is_module(found) and not isinstance(found, type):
        if kwargs:
            raise TargetError(FailureKind.USAGE, f"{name} is a module already, so --kwargs has nothing to build")
        return Built(found)
    if not callable(found):
        raise _no_module(name, found, "it is")
    return construct(name, found, kwargs, seed)


def construct(name: object, builder: Callable[..., Any], kwargs: Mapping[str, Any], seed: int) -> Built:
    """What ``builder`` returns; ``name`` is what messages call it. Raises TargetError with exit status 2."""

    def again(seed: int) -> torch.nn.Module:
        with seeded(seed):
            return _as_built(name, builder(**kwargs)).module

    with seeded(seed):  # anew: whether the import drew numbers depends on whether it was the first one
        built = _as_built(name, call(name, builder, kwargs))
    return replace(built, again=again)


def find(name: PythonName) -> Any:
    """The object that ``name`` names; raises TargetError of kind IMPORT or MISSING."""
    found: Any = _imported(name)
    for part in name.attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            near = did_you_mean(part, [each for each in dir(found) if not each.startswith("_")])
            raise TargetError(FailureKind.MISSING, f"{name.source} has no {name.attribute!r}{near}") from None
    return found


def call(name: object, function: Callable[..., Any], kwargs: Mapping[str, Any], what: str = "built") -> Any:
    """What ``function`` returns; raises TargetError(USAGE) for arguments that do not fit and (IMPORT) if it raises."""
    _refuse_arguments(name, function, kwargs)
    try:
        return function(**kwargs)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
        text = f"{name} could not be {what}: {described(error)}; make the call work in Python first"
        raise TargetError(FailureKind.IMPORT, text) from None


def require_torch() -> None:
    """Raises TargetError(IMPORT) where PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        text = "PyTorch is not installed, and a Python target needs it; run: pip install torch"
        raise TargetError(FailureKind.IMPORT, text)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random states of Python, numpy and torch start from ``seed`` inside, and are put back."""
    import numpy as np
    import torch

    states = (torch.get_rng_state(), random.getstate(), np.random.get_state())
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    try:
        torch.manual_seed(seed % SEEDS)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


def _imported(name: PythonName) -> ModuleType:
    folder = os.path.dirname(os.path.abspath(name.source)) if name.is_file else os.getcwd()
    if name.is_file and not os.path.isfile(name.source):
        raise TargetError(FailureKind.MISSING, f"{name.source} does not exist")
    importlib.invalidate_caches()  # the file may be newer than the listing of its folder
    try:
        with searched(folder):
            return _executed(name.source) if name.is_file else importlib.import_module(name.source)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name and name.source.startswith(error.name):
            text = f"there is no module {error.name!r}; run initlint where `import {name.source}` works"
            raise TargetError(FailureKind.IMPORT, text) from None
        text = f"{name.source} could not be imported: {described(error)}; {_advice(name, error)}"
        raise TargetError(FailureKind.IMPORT, text) from None


def _advice(name: PythonName, error: BaseException) -> str:
    if isinstance(error, ImportError) and "relative import" in str(error):
        return f"it belongs to a package: name it as package.{Path(name.source).stem}:{name.attribute}"
    if isinstance(error, SystemExit):
        return 'it ends the program when imported: put what it runs under `if __name__ == "__main__":`'
    return f"make `{'python ' if name.is_file else 'import '}{name.source}` work first"


def _executed(path: str) -> ModuleType:
    """Run a file as a module of its own; a file of the same name that was imported before stays what it was."""
    stem = Path(path).stem
    name = stem if stem not in sys.modules else f"{stem}_{zlib.crc32(os.path.abspath(path).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


@contextlib.contextmanager
def searched(folder: str) -> Iterator[None]:
    """``folder`` is searched first, as `python file.py` and `python -m` do."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _refuse_arguments(name: object, function: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return
    try:
        signature.bind(**kwargs)
    except TypeError as error:
        needed = [
            each.name
            for each in signature.parameters.values()
            if each.default is each.empty
            and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
            and each.name not in kwargs
        ]
        example = ", ".join(f'"{each}": ...' for each in needed) or '"name": value'
        takes = ", ".join(each.name for each in signature.parameters.values()) or "no arguments"
        known = f"it takes {takes}; " if set(kwargs) - set(signature.parameters) else ""
        text = f"{name} cannot be called: {error}; {known}give arguments as --kwargs '{{{example}}}'"
        raise TargetError(FailureKind.USAGE, text) from None


def _as_built(name: object, value: Any) -> Built:
    if is_module(value):
        return Built(value)
    if isinstance(value, tuple) and len(value) == 2 and is_module(value[0]):
        return Built(value[0], value[1])
    raise _no_module(name, value, "it returned")


def _no_module(name: object, value: Any, verb: str) -> TargetError:
    what = "None" if value is None else f"a {type(value).__name__}"
    text = f"{name} gives no torch.nn.Module: {verb} {what}; name a module, a class, or a function that returns one"
    return TargetError(FailureKind.USAGE, text)


def function_inputs(name: PythonName, seed: int) -> Any:
    """What the function ``name`` returns as inputs of a probe; raises TargetError with exit status 2."""
    with seeded(seed) if "torch" in sys.modules else contextlib.nullcontext():
        try:
            function = find(name)
        except TargetError as fault:
            raise TargetError(fault.kind, f"--inputs {name}: {fault}") from None
        if not callable(function):
            text = f"{name} is a {type(function).__name__}, not a function that returns inputs"
            raise TargetError(FailureKind.USAGE, text)
        return call(name, function, {}, what="called for inputs")
