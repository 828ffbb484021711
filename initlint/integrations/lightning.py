"""A callback for Lightning (``lightning`` or ``pytorch_lightning``) that refuses to train a broken model.

trainer = Trainer(callbacks=[InitlintCallback()])
trainer.fit(model)    # FindingsError before the first optimiser step
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import nn

from ..load.python_object import seeded
from ..report import Report
from . import gates

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def _bases() -> tuple[Any, ...]:
    """``Callback`` of each of the two packages that the program has imported, else of one that is installed."""
    names = [name for name in _PACKAGES if name in sys.modules]
    names = names or [name for name in _PACKAGES if importlib.util.find_spec(name.partition(".")[0])][:1]
    if not names:
        raise ImportError("the callback needs Lightning, which is not installed; run: pip install lightning")
    return tuple(dict.fromkeys(importlib.import_module(name).Callback for name in names))


class InitlintCallback(*_bases()):  # type: ignore[misc]
    """Checks the LightningModule when ``fit`` starts. A resumed run is not checked.

    The inputs are ``batch`` (as the training loader gives it), or the module's ``example_input_array``, or found by
    initlint. With ``real_batch`` they are samples of the training loader's data set, and the check is made right
    before the first step; neither the loader nor its sampler is touched. ``loss(output, target)`` is differentiated
    instead of a random linear one; ``training_step`` is not called, since it may log, step or keep state. A module
    without a forward is checked through its only child that has parameters.

    ``on_findings="warn"`` logs the report and lets the run go on. ``settings`` are those of ``initlint.check``.
    """

    def __init__(
        self,
        *,
        batch: Any = None,
        loss: Callable[..., Any] | None = None,
        real_batch: bool = False,
        on_findings: str = "raise",
        **settings: Any,
    ) -> None:
        super().__init__()
        self._asked = gates.Asked(batch, loss, real_batch, on_findings, settings)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Lightning's hook: the model is on its device, nothing has run."""
        if not self._asked.real_batch:
            self._check(trainer, pl_module, lambda: self._asked.batch)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Lightning's hook: the loaders are there, no step was taken."""
        if self._asked.real_batch:
            self._check(trainer, pl_module, lambda: self._sampled(trainer))

    def _check(self, trainer: Any, pl_module: Any, batch: Callable[[], Any]) -> None:
        def judge() -> Report:
            module = _runnable(gates.unwrapped(pl_module))
            return gates.judged(module, batch(), self._asked.loss, self._asked.settings)

        self._asked.stand(pl_module, judge, resumed=bool(trainer.ckpt_path or trainer.global_step))

    def _sampled(self, trainer: Any) -> Any:
        """Data as ``training_step`` gets them."""
        batch = self._asked.sampled(trainer.train_dataloader)
        if batch is self._asked.batch:
            return batch
        with seeded(0):  # transfer hooks may augment
            return trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))


def _runnable(module: nn.Module) -> nn.Module:
    """The module itself, or, where it has no forward of its own, its only child with parameters under its name."""
    home = next(each for each in type(module).__mro__ if "forward" in vars(each))
    own = "forward" in vars(module) or not (home is nn.Module or home.__name__ == "LightningModule")  # placeholders
    children = {name: child for name, child in module.named_children() if any(True for _ in child.parameters())}
    if own or len(children) != 1 or any(True for _ in module.parameters(recurse=False)):
        return module
    kind = type(type(module).__name__, (_ThroughChild,), {})  # reports name the class
    through: nn.Module = kind(*children.popitem(), getattr(module, "example_input_array", None))
    return through


class _ThroughChild(nn.Module):
    """Runs its child; what the child's library says of inputs, and addresses within the parent, stay as they are."""

    def __init__(self, name: str, child: nn.Module, example: Any) -> None:
        super().__init__()
        self.child_name = name
        self.add_module(name, child)

        @wraps(child.forward)
        def forward(*args: Any, **kwargs: Any) -> Any:
            return child(*args, **kwargs)  # not its forward: it may have hooks

        self.forward = forward
        if example is not None:
            self.example_input_array = example

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__(self.__dict__["child_name"]), name)
