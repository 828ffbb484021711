"""Two processes of a real trainer on a broken model, behind a callback; test_gate_distributed starts them.

    torchrun --standalone --nproc-per-node 2 gated_trainer.py lightning|transformers FOLDER

Prints what was trained: nothing, if the callback works. The exit status is that of an uncaught error.
"""

from __future__ import annotations

import sys
from pathlib import Path


def with_lightning(folder: Path) -> None:
    import lightning.pytorch as lightning
    from test_gate_lightning import DataLoader, InitlintCallback, Net, data, seeded

    module = seeded(Net, broken=True)
    trainer = lightning.Trainer(
        max_steps=3, accelerator="cpu", devices=2, strategy="ddp", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[InitlintCallback(real_batch=True)],
    )  # fmt: skip
    try:
        trainer.fit(module, DataLoader(data(), 8))
    finally:
        print(*module.losses, flush=True)


def with_transformers(folder: Path) -> None:
    from test_gate_transformers import InitlintCallback, gpt, train

    print(*train(folder, gpt(broken=True), InitlintCallback(real_batch=True)), flush=True)


if __name__ == "__main__":
    {"lightning": with_lightning, "transformers": with_transformers}[sys.argv[1]](Path(sys.argv[2]))
