"""A callback for the Trainer of transformers that refuses to train a broken model.

trainer = Trainer(model, args, train_dataset=data, callbacks=[InitlintCallback()])
trainer.train()    # FindingsError before the first optimiser step
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback
from transformers.utils import generic

from ..report import Report
from . import gates


class InitlintCallback(TrainerCallback):
    """Checks the model when training begins. A resumed run is not checked.

    The inputs are ``batch`` (a mapping, as the collator gives it), or found from the model's configuration. With
    ``real_batch`` they are samples of the training data set, collated by the trainer's collator; neither the loader nor
    its sampler is touched. Where the batch has labels, the model's own loss is differentiated, or ``loss(output)``.

    ``on_findings="warn"`` logs the report and lets the run go on. ``settings`` are those of ``initlint.check``.
    """

    def __init__(
        self,
        *,
        batch: Mapping[str, Any] | None = None,
        loss: Any = None,
        real_batch: bool = False,
        on_findings: str = "raise",
        **settings: Any,
    ) -> None:
        super().__init__()
        self._asked = gates.Asked(batch, loss, real_batch, on_findings, settings)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The trainer's hook: the model is where it will be trained, no step was taken."""
        model, asked = kwargs["model"], self._asked

        def judge() -> Report:
            batch = asked.sampled(kwargs.get("train_dataloader")) if asked.real_batch else asked.batch
            module = gates.unwrapped(model)
            loss = asked.loss or (_own_loss if _has_labels(module, batch) else None)
            return gates.judged(module, batch, loss, asked.settings)

        asked.stand(model, judge, resumed=bool(state.global_step))


def _has_labels(module: Any, batch: Any) -> bool:
    """Whether the model computes a loss from the batch: it has what the model's forward calls labels."""
    base = module.get_base_model() if hasattr(module, "get_base_model") else module  # an adapter's forward says nothing
    find_labels: Any = generic.find_labels
    return isinstance(batch, Mapping) and any(name in batch for name in find_labels(type(base)))


def _own_loss(output: Any) -> Any:
    return output["loss"] if isinstance(output, Mapping) else output[0]
