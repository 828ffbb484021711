"""What the pre-commit hook runs: `initlint check`, where a file of external data stands for the models that read it.

Exporters write weights into a file beside the model, which can change while the model file does not.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import click

DATA_FILE = re.compile(r"(?P<model>.+\.onnx)[._]data(_\d+)?", re.IGNORECASE)
"""As torch.onnx ("model.onnx.data") and optimum ("model.onnx_data", "model.onnx_data_1") name them."""


def main() -> None:
    """Check what the arguments name, and exit as `initlint check` does."""
    given = sys.argv[1:]
    arguments = with_models(given)
    if given and not arguments:
        click.echo("initlint: weights without a model beside them, so there is nothing to check", err=True)
        sys.exit(0)
    from .cli import main as command

    command(["check", *arguments])


def with_models(arguments: Sequence[str]) -> list[str]:
    """``arguments`` with each file of external data replaced by the models that may read it, none of which comes twice.

    The rest, options among them, stays as it is.
    """
    replaced = [argument for argument in arguments if not DATA_FILE.fullmatch(argument)]
    for argument in arguments:
        match = DATA_FILE.fullmatch(argument)
        if match is not None:
            replaced += [model for model in _models_of(Path(argument), match["model"]) if model not in replaced]
    return replaced


def _models_of(data: Path, model: str) -> list[str]:
    """The model after which ``data`` is named; where that has another name by now, all models in the folder."""
    if Path(model).is_file():
        return [model]
    return sorted(path.as_posix() for path in data.parent.glob("*.onnx") if path.is_file())
