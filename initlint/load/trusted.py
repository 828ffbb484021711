"""PyTorch files that hold code, loaded because the user trusts them (``--trust``). What is in them runs.

Runs in the calling process, as a Python target does.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import FailureKind, TargetError
from ..foreign import described
from .python_object import Built, require_torch, searched
from .target import is_module
from .weights_file import is_exported, is_script


def load(path: Path | bytes) -> Built | None:
    """The module in the file, with its example inputs where it has some; None for a file of plain weights.

    Raises TargetError where the file cannot be loaded.
    """
    assert isinstance(path, Path)
    require_torch()
    try:
        return _loaded(path)
    except TargetError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001 - code in the file may raise anything
        text = f"{path.name} cannot be loaded: {described(error)}; import what it is made of, or name its builder"
        raise TargetError(FailureKind.UNREADABLE, text) from None


def _loaded(path: Path) -> Built | None:
    import torch

    names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else []
    if is_script(names):
        return Built(torch.jit.load(str(path), map_location="cpu"))  # type: ignore[no-untyped-call]
    if is_exported(names):
        return _exported(path)
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return _pickled(path)
    return None


def _pickled(path: Path) -> Built:
    import torch

    with searched(str(path.resolve().parent)):
        found = torch.load(path, map_location="cpu", weights_only=False)
    held = [found, *found.values()] if isinstance(found, Mapping) else [found]
    module = next((each for each in held if is_module(each)), None)
    if module is None:
        text = f"{path.name} holds pickled objects, and no module among them; save model.state_dict() alone"
        raise TargetError(FailureKind.UNSUPPORTED, text)
    return Built(module)


def _exported(path: Path) -> Built:
    import torch

    program = torch.export.load(path)
    module = program.module()
    for refused in ("train", "eval"):  # the graph is what was exported, whatever the mode says
        vars(module).pop(refused, None)
    args, kwargs = program.example_inputs or ((), {})
    inputs: Any = kwargs or (tuple(args) if args else None)
    return Built(module, inputs)
