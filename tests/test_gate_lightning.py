"""The Lightning callback in real trainers: it refuses a broken run before its first step and changes no healthy one."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import initlint

lightning = pytest.importorskip("lightning.pytorch")

from initlint.integrations.lightning import InitlintCallback  # noqa: E402


class Net(lightning.LightningModule):  # type: ignore[misc, name-defined]
    """Has no forward of its own; its steps log."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(16, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)
        )
        if broken:
            nn.init.zeros_(self.net[3].weight)
            nn.init.constant_(self.net[3].bias, -1.0)
        self.losses: list[float] = []

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class Example(Net):
    """Has a forward and says what it takes."""

    example_input_array = torch.randn(1, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def data() -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(64, 16, generator=generator), torch.randint(0, 4, (64,), generator=generator))


def fit(module: Any, *callbacks: Any, loader: Any = None, package: Any = lightning, **arguments: Any) -> list[float]:
    torch.manual_seed(1)
    trainer = package.Trainer(
        max_steps=3, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
    )  # fmt: skip
    trainer.fit(module, loader if loader is not None else DataLoader(data(), 16, shuffle=True), **arguments)
    return list(module.losses)


def seeded(kind: type[Net], broken: bool = False) -> Net:
    torch.manual_seed(0)
    return kind(broken)


GATES = [{}, {"real_batch": True}, {"real_batch": True, "loss": nn.CrossEntropyLoss()}]


@pytest.mark.parametrize("options", GATES)
@pytest.mark.parametrize("kind", [Net, Example])
def test_a_healthy_run_is_the_same_with_and_without_the_gate(kind: type[Net], options: dict[str, Any]) -> None:
    assert fit(seeded(kind), InitlintCallback(**options)) == fit(seeded(kind))


@pytest.mark.parametrize("options", GATES)
@pytest.mark.parametrize("kind", [Net, Example])
def test_a_broken_run_ends_before_its_first_step(kind: type[Net], options: dict[str, Any]) -> None:
    module = seeded(kind, broken=True)
    with pytest.raises(initlint.FindingsError, match=rf"(?s)\A{kind.__name__}  torch.*zero-weights  net\.3\.weight"):
        fit(module, InitlintCallback(**options))
    assert module.losses == []


def test_the_older_package_works_too() -> None:
    package = pytest.importorskip("pytorch_lightning")
    script = (
        "import pytorch_lightning, sys; from initlint.integrations.lightning import InitlintCallback;"
        "assert issubclass(InitlintCallback, pytorch_lightning.Callback); assert 'lightning.pytorch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)
    module = older(package, broken=True)
    with pytest.raises(initlint.FindingsError, match="zero-weights"):
        fit(module, InitlintCallback(), package=package)
    assert module.losses == []
    assert len(fit(older(package), InitlintCallback(), package=package)) == 3


def older(package: Any, broken: bool = False) -> Any:
    """``Net`` of the other package."""
    members = {name: value for name, value in vars(Net).items() if name in ("training_step", "configure_optimizers")}

    def construct(self: Any) -> None:
        package.LightningModule.__init__(self)
        self.net, self.losses = seeded(Net, broken).net, []

    return type("Older", (package.LightningModule,), {**members, "__init__": construct})()


def test_findings_may_be_a_warning_or_allowed(caplog: pytest.LogCaptureFixture) -> None:
    assert len(fit(seeded(Net, broken=True), InitlintCallback(on_findings="warn"))) == 3
    assert "zero-weights" in caplog.text
    allow = [{"rule": "zero-weights", "at": "net.3.*", "reason": "a test"}]
    assert len(fit(seeded(Net, broken=True), InitlintCallback(allow=allow))) == 3
    assert len(fit(seeded(Net, broken=True), InitlintCallback(fail_on="never"))) == 3


def test_a_resumed_run_is_not_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "initlint")
    trainer = lightning.Trainer(
        max_steps=3, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(seeded(Net, broken=True), DataLoader(data(), 16))
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    fit(seeded(Net, broken=True), InitlintCallback(), ckpt_path=tmp_path / "saved.ckpt")
    said = [record.getMessage() for record in caplog.records if record.name == "initlint"]
    assert said == ["initlint did not check the model: the run is resumed"]


class Stream(IterableDataset[Any]):
    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self) -> Any:
        for item in data():
            self.taken += 1
            yield item


def test_a_stream_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream()
    gated = fit(seeded(Net), InitlintCallback(real_batch=True), loader=DataLoader(stream, 16))
    assert gated == fit(seeded(Net), loader=DataLoader(Stream(), 16))
    assert stream.taken == 48 + 16  # Lightning fetches one batch ahead
    assert "could not take a batch of the training data: its data set (Stream)" in caplog.text
