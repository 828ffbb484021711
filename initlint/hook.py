"""What the pre-commit hook runs: `initlint check`, where a file of external data stands for the models that read it.

Exporters write weights into a file beside the model, which can change while the model file does not.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

DATA_FILE = re.compile(r"(?P<model>.+\.onnx)[._]data(_\d+)?", re.IGNORECASE)
"""As torch.onnx ("model.onnx.data") and optimum ("model.onnx_data", "model.onnx_data_1") name them."""


def main() -> None:
    """Check what the arguments name, and exit as `initlint check` does."""
    from . import cli

    def check_models(targets: tuple[str, ...], **options: Any) -> int:
        models = tuple(with_models(targets))
        if targets and not models:
            cli.complain("weights without a model beside them, so there is nothing to check")
            return 0
        assert cli.check.callback is not None
        status: int = cli.check.callback(targets=models, **options)
        return status

    # A command with the same parameters: click tells options and their values from targets.
    check = click.Command("check", params=cli.check.params, help=cli.check.help, callback=check_models)
    group = cli.DefaultToCheck("initlint", commands=[check], context_settings=cli.main.context_settings)
    group.main(["check", *sys.argv[1:]])


def with_models(targets: Sequence[str]) -> list[str]:
    """``targets`` with each file of external data replaced by the models that may read it, each of them once."""
    replaced = [target for target in targets if not DATA_FILE.fullmatch(target)]
    for target in targets:
        match = DATA_FILE.fullmatch(target)
        if match is not None:
            replaced += [model for model in _models_of(Path(target), match["model"]) if model not in replaced]
    return replaced


def _models_of(data: Path, model: str) -> list[str]:
    """The model after which ``data`` is named; where that has another name by now, all models in the folder."""
    if Path(model).is_file():
        return [model]
    return sorted(path.as_posix() for path in data.parent.glob("*.onnx") if path.is_file())
